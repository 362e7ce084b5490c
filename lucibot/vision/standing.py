"""What stands still in the scene, as it looks in the picture, and which of it is upright."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import trimesh

from lucibot.core.camera import Camera
from lucibot.task import BackgroundSpec, ObjectSpec, Task

HEIGHTS = np.linspace(0.1, 0.9, 7)
"""Shares of a thing's height at which it is cut through."""
UPRIGHT = 0.75
"""A thing is upright when it is at least so high, as a share of its greatest width; plates, slices
and boards are not, nor is a bowl."""
STEPS = 12
"""Places of a joint that are looked at."""
LEAN = 0.25
"""The middles of an upright thing's cuts lie above one another up to this share of its width."""


def outlines(task: Task, camera: Camera) -> list[np.ndarray]:
    """(H, W) bool of each mesh in the background: what may hide the middle of something that goes
    around it."""
    return [
        outline(task, item, camera)
        for item in task.spec.background
        if item.solid and item.mesh is not None
    ]


def outline(task: Task, thing: BackgroundSpec | ObjectSpec, camera: Camera) -> np.ndarray:
    """(H, W) bool: the hull of a thing's corners in the picture, where the task puts it."""
    mask = np.zeros((camera.height, camera.width), np.uint8)
    uv, _ = camera.project(placed(task, thing)[0])
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(uv - 0.5).astype(np.int32)), 1)
    return mask > 0


def within_reach(task: Task, thing: ObjectSpec, camera: Camera, margin_px: int) -> np.ndarray:
    """(H, W) bool: where a thing on a joint can be seen, all that its joint allows, and a margin."""
    joint, corners = thing.articulation, np.asarray(task.mesh(thing).vertices)
    poses = joint.poses(np.linspace(joint.lower, joint.upper, STEPS))
    seen = [camera.project(corners @ T[:3, :3].T + T[:3, 3]) for T in poses]
    hulls = [cv2.convexHull(uv[z > 0].astype(np.float32))[:, 0] for uv, z in seen]
    mask = np.zeros((camera.height, camera.width), np.uint8)
    for a, b in pairwise(hulls):
        both = cv2.convexHull(np.concatenate([a, b]))
        cv2.fillConvexPoly(mask, np.round(both - 0.5).astype(np.int32), 1)
    return cv2.dilate(mask, np.ones((2 * margin_px + 1,) * 2, np.uint8)) > 0


def placed(task: Task, thing: BackgroundSpec | ObjectSpec) -> tuple[np.ndarray, np.ndarray]:
    """A thing's vertices (V, 3) [m, world] where the task puts it, and its faces (F, 3)."""
    T, mesh = thing.T_world_object, task.mesh(thing)
    return np.asarray(mesh.vertices) @ T[:3, :3].T + T[:3, 3], np.asarray(mesh.faces)


def middle_line(task: Task, thing: BackgroundSpec | ObjectSpec) -> np.ndarray:
    """(7, 3) [m, world]: the middles of a thing's cuts at `HEIGHTS`, from below; NaN where it has
    none."""
    mesh = trimesh.Trimesh(*placed(task, thing), process=False)
    low, high = mesh.bounds
    out = np.full((len(HEIGHTS), 3), np.nan)
    for k, z in enumerate(low[2] + HEIGHTS * (high[2] - low[2])):
        cut = trimesh.intersections.mesh_plane(mesh, (0.0, 0.0, 1.0), (0.0, 0.0, z)).reshape(-1, 3)
        if len(cut):
            out[k] = 0.5 * (cut.min(0) + cut.max(0))
    return out


def upright_things(task: Task) -> list[str]:
    """Names of what stands still and a loop can be put around from above: solid, as high as
    `UPRIGHT` asks for, its middle line upright and unbroken, with nothing over its top."""
    return [b.name for b in task.spec.background if b.solid and _is_upright(task, b)]


def _is_upright(task: Task, thing: BackgroundSpec) -> bool:
    vertices, _ = placed(task, thing)
    low, high = vertices.min(0), vertices.max(0)
    corners = cv2.convexHull(vertices[:, :2].astype(np.float32))[:, 0]
    width = np.linalg.norm(corners[:, None] - corners, axis=-1).max()
    if high[2] - low[2] < UPRIGHT * width:
        return False
    line = middle_line(task, thing)
    if np.isnan(line).any() or np.ptp(line[:, :2], axis=0).max() > LEAN * width:
        return False
    top = np.array([*line[-1, :2], high[2]])
    return not any(_is_over(task, b, top) for b in task.spec.background if b is not thing)


def _is_over(task: Task, thing: BackgroundSpec, point: np.ndarray) -> bool:
    """Whether a face of a thing lies straight above a point (3,) [m]."""
    vertices, faces = placed(task, thing)
    a, b, c = (vertices[faces[:, i]] for i in range(3))

    def side(p, q):
        """(F,) signed areas of p, q and the point, seen from above."""
        return (q[:, 0] - p[:, 0]) * (point[1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (
            point[0] - p[:, 0]
        )

    areas = np.stack([side(b, c), side(c, a), side(a, b)], axis=1)
    total = areas.sum(1)
    covers = ((areas >= 0).all(1) | (areas <= 0).all(1)) & (np.abs(total) > 1e-12)
    z = np.einsum("fi,fi->f", areas, np.stack([a[:, 2], b[:, 2], c[:, 2]], axis=1))
    return bool((z[covers] / total[covers] > point[2] + 1e-6).any())
