"""What holds objects up: depth along the viewing ray is a video's weak point, gravity is not.

Heights come from drawing straight down: the top of whatever may carry the object, and the object's
underside, both as height maps. The object has landed where the two first touch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from lucibot.core.heights import HeightMap, draw_heights
from lucibot.task import Task
from lucibot.vision.draw import DrawMesh
from lucibot.vision.trajectory import Trajectory

CELL_M = 0.0005
"""Nested walls are steep: a cell's error in position is several times that in height."""
STATIC_CELL_M = 0.002


def static_tops(task: Task) -> HeightMap:
    """Tops of the solid background within reach of the objects (0.6 m around them)."""
    places = np.array([o.position_m[:2] for o in task.objects])
    bounds = (places.min(0) - 0.6, places.max(0) + 0.6)
    solid = [b for b in task.spec.background if b.solid]
    meshes = []
    for b in solid:
        mesh = task.mesh(b)
        mesh.apply_transform(b.T_world_object)
        meshes.append(mesh)
    if not meshes:
        return HeightMap(lower_xy_m=bounds[0], cell_m=STATIC_CELL_M, z=np.full((1, 1), -np.inf))
    joined = trimesh.util.concatenate(meshes)
    low = np.floor(bounds[0] / STATIC_CELL_M) * STATIC_CELL_M
    shape = np.ceil((bounds[1] - low) / STATIC_CELL_M).astype(int)
    z = np.full(tuple(shape), -np.inf)
    draw_heights(
        np.asarray(joined.vertices, float), joined.faces.astype(np.int32), low, STATIC_CELL_M, z
    )
    return HeightMap(lower_xy_m=low, cell_m=STATIC_CELL_M, z=z)


def world_vertices(mesh: DrawMesh, pose: Trajectory, frame: int = 0) -> np.ndarray:
    """(V, 3) [m, world] of a mesh at one frame of a trajectory."""
    T = pose.T_world_object[frame]
    return mesh.vertices_m @ T[:3, :3].T + T[:3, 3]


def landing_height(under: HeightMap, top: HeightMap, shift_xy=(0.0, 0.0)) -> float:
    """How far [m] an underside, moved by `shift_xy` [m], must be raised to clear `top`.

    Negative when there is room to fall; -inf when nothing lies below.
    """
    cell = under.cell_m
    start = np.round((under.lower_xy_m + shift_xy - top.lower_xy_m) / cell).astype(int)
    a, b = np.maximum(start, 0), np.minimum(start + under.z.shape, top.z.shape)
    if (a >= b).any():
        return -np.inf
    mine = under.z[a[0] - start[0] : b[0] - start[0], a[1] - start[1] : b[1] - start[1]]
    gap = top.z[a[0] : b[0], a[1] : b[1]] - mine
    return float(gap.max()) if gap.size else -np.inf


def settle(under: HeightMap, top: HeightMap, *, reach_m: float) -> tuple[np.ndarray, float]:
    """Slides downhill to where the object comes to rest.

    A cup that is let go a little off another's axis slides to the middle; a cup on a table stays.

    Returns:
        The shift (2,) [m] in xy and the raise [m] in z that bring the object to rest.
    """
    shift = np.zeros(2)
    height = landing_height(under, top, shift)
    step = 0.004
    around = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)]
    while step >= 0.9 * CELL_M:
        tries = [shift + step * np.array(d) for d in around]
        tries = [s for s in tries if np.linalg.norm(s) <= reach_m]
        heights = [landing_height(under, top, s) for s in tries]
        best = int(np.argmin(heights)) if heights else 0
        # Downhill by more than the map's own roughness, and not over an edge into nothing.
        if heights and np.isfinite(heights[best]) and heights[best] < height - 0.1 * step:
            shift, height = tries[best], heights[best]
        else:
            step /= 2
    return _middle_of_valley(under, top, shift, height)


def _middle_of_valley(under: HeightMap, top: HeightMap, shift: np.ndarray, height: float):
    """Where the flanks of a steep valley meet, finer than a cell: half a millimetre beside the axis
    of a cup is several millimetres in height."""
    reach = 6 * CELL_M
    off, slope = np.zeros(2), np.zeros(2)
    for k in range(2):
        side = np.eye(2)[k] * reach
        ahead = landing_height(under, top, shift + side)
        back = landing_height(under, top, shift - side)
        if np.isfinite(ahead) and np.isfinite(back):
            slope[k] = max(0.0, (ahead + back - 2 * height) / (2 * reach))
            if slope[k] > 1:
                off[k] = np.clip((back - ahead) / (2 * slope[k]), -2 * CELL_M, 2 * CELL_M)
    return shift + off, height - float(np.linalg.norm(slope * off))


def standing_directions(mesh: DrawMesh, initial_rotation: np.ndarray) -> np.ndarray:
    """Body directions (n, 3) that may point straight down at rest: first the one that did so at the
    start, then those of the mesh's stable poses on a plane."""
    first = -initial_rotation.T @ np.array([0.0, 0.0, 1.0])
    stable = _stable_directions(
        np.asarray(mesh.vertices_m, float).tobytes(), np.asarray(mesh.faces, np.int64).tobytes()
    )
    return np.concatenate([first[None], stable])


@lru_cache(maxsize=32)
def _stable_directions(vertices_m: bytes, faces: bytes) -> np.ndarray:
    """(n, 3); remembered by the mesh's contents, for they take a third of a second to find."""
    body = trimesh.Trimesh(
        np.frombuffer(vertices_m).reshape(-1, 3), np.frombuffer(faces, np.int64).reshape(-1, 3),
        process=False,
    )  # fmt: skip
    transforms, _ = trimesh.poses.compute_stable_poses(body, sigma=0.0, n_samples=1, threshold=0.05)
    return -np.asarray(transforms).reshape(-1, 4, 4)[:, 2, :3]


def stand_upright(
    rotation: np.ndarray, directions: np.ndarray, *, within_deg: float
) -> np.ndarray | None:
    """The rotation (3, 3) turned the least way so that one of `directions` points down.

    The first direction is preferred: an object is most often put down as it was picked up. Else it
    is the nearest; None when none is within `within_deg`: the object then leans on something.
    """
    down = rotation @ directions.T
    angle = np.arccos(np.clip(-down[2], -1, 1))
    best = 0 if np.rad2deg(angle[0]) <= within_deg else int(np.argmin(angle))
    if np.rad2deg(angle[best]) > within_deg:
        return None
    axis = np.cross(down[:, best], (0.0, 0.0, -1.0))
    norm = np.linalg.norm(axis)
    if norm < 1e-12:
        return rotation
    return Rotation.from_rotvec(axis / norm * angle[best]).as_matrix() @ rotation
