"""Depth images of one rigid mesh in thousands of poses: what pose estimation draws with.

Poses come and go as matrices that may carry a uniform scale, so that a generated object which grows
or shrinks can be drawn as it looks (paper, section 3.3: "slight variations in object size").
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from lucibot.core.camera import Camera


@dataclass(frozen=True, kw_only=True)
class DrawMesh:
    """A triangle mesh about an anchor point, ready to be drawn.

    The anchor is the middle of where the object stands at first. Poses inside perception are those
    of the anchor, and a size that drifts scales the mesh about it: an object that stands keeps
    standing when its size changes.
    """

    vertices_m: np.ndarray
    """(V, 3) float64, the object's axes, anchor at zero."""
    faces: np.ndarray
    """(F, 3) int32."""
    anchor_m: np.ndarray
    """(3,) the anchor in the task's object frame."""

    @classmethod
    def from_trimesh(cls, mesh, T_world_object: np.ndarray | None = None) -> DrawMesh:
        """`T_world_object` (4, 4) is the initial pose, in which the object stands."""
        T = np.eye(4) if T_world_object is None else T_world_object
        vertices = np.asarray(mesh.vertices, float)
        world = vertices @ T[:3, :3].T + T[:3, 3]
        low, high = world.min(0), world.max(0)
        stand = np.array([0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]), low[2]])
        anchor = T[:3, :3].T @ (stand - T[:3, 3])
        return cls(
            vertices_m=np.ascontiguousarray(vertices - anchor),
            faces=np.ascontiguousarray(mesh.faces, np.int32), anchor_m=anchor,
        )  # fmt: skip

    @property
    def radius_m(self) -> float:
        return float(np.linalg.norm(self.vertices_m, axis=1).max())


def fit_camera(camera: Camera, width: int) -> Camera:
    """The same view at `width` pixels (never more than the camera's own), aspect kept."""
    width = min(width, camera.width)
    return camera.resized(width, max(1, round(camera.height * width / camera.width)))


def draw_depth(
    mesh: DrawMesh, T_world_object: np.ndarray, camera: Camera, out: np.ndarray | None = None
) -> np.ndarray:
    """Depth images (B, H, W) float32 [m] of `mesh` alone; inf where nothing is drawn.

    Args:
        T_world_object: (B, 4, 4) of the mesh about its anchor; the rotation may carry a scale.
        out: where to draw; a new array if not given.
    """
    T = camera.T_cam_world @ np.asarray(T_world_object, float)
    points = mesh.vertices_m @ np.swapaxes(T[:, :3, :3], 1, 2) + T[:, None, :3, 3]
    if out is None:
        out = np.empty((len(T), camera.height, camera.width), np.float32)
    _rasterise(points, mesh.faces, camera.fx, camera.fy, camera.cx, camera.cy, out)
    return out


@numba.njit(cache=True, parallel=True, fastmath=False)
def _rasterise(points, faces, fx, fy, cx, cy, out):
    batch, h, w = out.shape
    for b in numba.prange(batch):
        out[b] = np.inf
        for f in range(faces.shape[0]):
            x0, y0, z0 = points[b, faces[f, 0]]
            x1, y1, z1 = points[b, faces[f, 1]]
            x2, y2, z2 = points[b, faces[f, 2]]
            if z0 < 1e-3 or z1 < 1e-3 or z2 < 1e-3:
                continue
            u0, v0 = fx * x0 / z0 + cx - 0.5, fy * y0 / z0 + cy - 0.5
            u1, v1 = fx * x1 / z1 + cx - 0.5, fy * y1 / z1 + cy - 0.5
            u2, v2 = fx * x2 / z2 + cx - 0.5, fy * y2 / z2 + cy - 0.5
            area = (u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0)
            # Meshes are watertight with normals outwards: what faces away is hidden by the rest.
            if area > -1e-12:
                continue
            ua = max(0, int(np.ceil(min(u0, u1, u2))))
            ub = min(w - 1, int(np.floor(max(u0, u1, u2))))
            va = max(0, int(np.ceil(min(v0, v1, v2))))
            vb = min(h - 1, int(np.floor(max(v0, v1, v2))))
            # Barycentric coordinates and inverse depth are linear in the picture.
            scale = 1.0 / area
            a_u, a_v = (v1 - v2) * scale, (u2 - u1) * scale
            c_u, c_v = (v2 - v0) * scale, (u0 - u2) * scale
            i0, i1, i2 = 1.0 / z0, 1.0 / z1, 1.0 / z2
            for v in range(va, vb + 1):
                a = (u1 * v2 - v1 * u2) * scale + a_u * ua + a_v * v
                c = (u2 * v0 - v2 * u0) * scale + c_u * ua + c_v * v
                for u in range(ua, ub + 1):
                    e = 1.0 - a - c
                    if a >= 0 and c >= 0 and e >= 0:
                        z = 1.0 / (a * i0 + c * i1 + e * i2)
                        if z < out[b, v, u]:
                            out[b, v, u] = z
                    a += a_u
                    c += c_u
