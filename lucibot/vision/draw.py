"""Depth images of one rigid mesh in thousands of poses: what pose estimation draws with.

Poses come and go as matrices that may carry a uniform scale, so that a generated object which grows
or shrinks can be drawn as it looks (paper, section 3.3: "slight variations in object size").
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lucibot.core.camera import Camera
from lucibot.vision.jit import compiled, inlined

NEAR_M = 1e-3
"""Faces that come nearer to the camera are not drawn."""


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


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Depth pictures, of each of which only a window around what is drawn is kept.

    An object covers a few thousand pixels of a hundred thousand: nothing is cleared, copied or
    searched beyond them.
    """

    depth_m: np.ndarray
    """(P,) float32: the windows one after the other, each row by row; inf where nothing is
    drawn."""
    start: np.ndarray
    """(...) int64: where each picture's window begins in `depth_m`."""
    box: np.ndarray
    """(..., 4) int64: the window's first row, the row after its last, and so its columns."""
    shape: tuple[int, int]
    """(H, W) of a whole picture."""

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index) -> Windows:
        """Some of the pictures; nothing is copied but where they are."""
        start, box = self.start[index], self.box[index]
        # In one order always, for numba compiles a kernel for each.
        return replace(self, start=np.asarray(start, order="C"), box=np.asarray(box, order="C"))

    @classmethod
    def whole(cls, depth_m: np.ndarray) -> Windows:
        """Of (B, H, W) pictures that are kept as they are."""
        count, h, w = depth_m.shape
        return cls(
            depth_m=np.ascontiguousarray(depth_m, np.float32).reshape(-1),
            start=h * w * np.arange(count), box=np.tile((0, h, 0, w), (count, 1)), shape=(h, w),
        )  # fmt: skip

    @classmethod
    def stack(cls, windows: list[Windows]) -> Windows:
        """(N, B) of N times (B,)."""
        first = np.cumsum([0, *(len(w.depth_m) for w in windows[:-1])])
        return cls(
            depth_m=np.concatenate([w.depth_m for w in windows]),
            start=np.stack([w.start + k for w, k in zip(windows, first, strict=True)]),
            box=np.stack([w.box for w in windows]), shape=windows[0].shape,
        )  # fmt: skip

    def exchanged(self, i: int, own: Windows) -> Windows:
        """(N, B) with row i taken from `own` (B,)."""
        start, box = self.start.copy(), self.box.copy()
        start[i], box[i] = own.start + len(self.depth_m), own.box
        depth = np.concatenate([self.depth_m, own.depth_m])
        return replace(self, depth_m=depth, start=start, box=box)

    def part(self, b) -> tuple[np.ndarray, tuple[slice, slice]]:
        """What is kept of picture `b`, (h, w) [m], and where in the picture it is."""
        v0, v1, u0, u1 = self.box[b]
        k, h, w = self.start[b], v1 - v0, u1 - u0
        return self.depth_m[k : k + h * w].reshape(h, w), (slice(v0, v1), slice(u0, u1))

    def pictures(self) -> np.ndarray:
        """(B, H, W) float32 [m], inf where nothing is drawn."""
        out = np.full((len(self), *self.shape), np.inf, np.float32)
        for b in range(len(self)):
            depth, where = self.part(b)
            out[b][where] = depth
        return out


def draw_depth(mesh: DrawMesh, T_world_object: np.ndarray, camera: Camera) -> np.ndarray:
    """Depth images (B, H, W) float32 [m] of `mesh` alone; inf where nothing is drawn."""
    return draw_windows(mesh, T_world_object, camera).pictures()


def draw_windows(
    mesh: DrawMesh, T_world_object: np.ndarray, camera: Camera, far_m: np.ndarray | None = None
) -> Windows:
    """Depth pictures (B,) of `mesh` alone.

    Args:
        T_world_object: (B, 4, 4) of the mesh about its anchor; the rotation may carry a scale.
        far_m: (H, W) [m] beyond which nothing is seen.
    """
    T = camera.T_cam_world @ np.asarray(T_world_object, float)
    # What stands still is drawn once.
    moved = np.ones(len(T), bool)
    moved[1:] = (T[1:] != T[:-1]).any((1, 2))
    T, drawing = T[moved], np.cumsum(moved) - 1
    shape = (camera.height, camera.width)
    screen, box = np.empty((len(T), len(mesh.vertices_m), 3)), np.empty((len(T), 4), np.int64)
    _project(
        len(T), mesh.vertices_m, T, camera.fx, camera.fy, camera.cx, camera.cy, *shape, screen, box
    )
    area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
    start = np.cumsum(area) - area
    depth = np.empty(area.sum(), np.float32)
    far = np.empty((0, 0), np.float32) if far_m is None else far_m
    _rasterise(len(T), screen, mesh.faces, far, start, box, depth)
    return Windows(depth_m=depth, start=start, box=box, shape=shape)[drawing]


@inlined
def depth_at(depth, start, box, v, u):
    """Depth [m] at a pixel of a picture: see `Windows`."""
    if v < box[0] or v >= box[1] or u < box[2] or u >= box[3]:
        return np.float32(np.inf)
    return depth[start + (v - box[0]) * (box[3] - box[2]) + u - box[2]]


@compiled
def _project(first, end, vertices, T, fx, fy, cx, cy, height, width, screen, box):
    """Vertices on the screen, (B, V, 3): column and row, counted from the middle of the first
    pixel, and inverse depth, negative where too near; and the windows that hold them, (B, 4)."""
    for b in range(first, end):
        left, right, top, bottom = np.inf, -np.inf, np.inf, -np.inf
        for k in range(vertices.shape[0]):
            x, y, z = vertices[k, 0], vertices[k, 1], vertices[k, 2]
            depth = T[b, 2, 0] * x + T[b, 2, 1] * y + T[b, 2, 2] * z + T[b, 2, 3]
            if depth < NEAR_M:
                screen[b, k, 2] = -1.0
                continue
            near = 1.0 / depth
            u = T[b, 0, 0] * x + T[b, 0, 1] * y + T[b, 0, 2] * z + T[b, 0, 3]
            v = T[b, 1, 0] * x + T[b, 1, 1] * y + T[b, 1, 2] * z + T[b, 1, 3]
            u, v = fx * u * near + cx - 0.5, fy * v * near + cy - 0.5
            screen[b, k, 0], screen[b, k, 1], screen[b, k, 2] = u, v, near
            left, right, top, bottom = min(left, u), max(right, u), min(top, v), max(bottom, v)
        box[b] = 0
        if right < 0 or bottom < 0 or left > width - 1 or top > height - 1:
            continue
        v0, v1 = max(0, int(np.ceil(top))), min(height, int(np.floor(bottom)) + 1)
        u0, u1 = max(0, int(np.ceil(left))), min(width, int(np.floor(right)) + 1)
        if v0 < v1 and u0 < u1:
            box[b, 0], box[b, 1], box[b, 2], box[b, 3] = v0, v1, u0, u1


@inlined
def span(b_0, b_p, b_q):
    """Where b_0 + b_p p + b_q q is positive on line p, a little widened: from which q on, and by
    how much that changes with p; and so up to which q. Bounds that a line hardly meets are left
    open, for they cannot be told exactly."""
    if abs(b_q) * 1e6 <= abs(b_p):
        return -np.inf, 0.0, np.inf, 0.0
    at, step = -b_0 / b_q, -b_p / b_q
    if b_q > 0:
        return at - 1e-6, step, np.inf, 0.0
    return -np.inf, 0.0, at + 1e-6, step


@compiled
def _rasterise(first, end, screen, faces, far, start, box, depth):
    for b in range(first, end):
        v_first, v_end, u_first, u_end = box[b]
        wide = u_end - u_first
        size = (v_end - v_first) * wide
        if size == 0:
            continue
        out = depth[start[b] : start[b] + size]
        out[:] = np.inf
        for f in range(faces.shape[0]):
            k0, k1, k2 = faces[f, 0], faces[f, 1], faces[f, 2]
            i0, i1, i2 = screen[b, k0, 2], screen[b, k1, 2], screen[b, k2, 2]
            if i0 < 0 or i1 < 0 or i2 < 0:
                continue
            u0, v0 = screen[b, k0, 0], screen[b, k0, 1]
            u1, v1 = screen[b, k1, 0], screen[b, k1, 1]
            u2, v2 = screen[b, k2, 0], screen[b, k2, 1]
            area = (u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0)
            # Meshes are watertight with normals outwards: what faces away is hidden by the rest.
            if area > -1e-12:
                continue
            va = max(v_first, int(np.ceil(min(v0, v1, v2))))
            vb = min(v_end - 1, int(np.floor(max(v0, v1, v2))))
            ua = max(u_first, int(np.ceil(min(u0, u1, u2))))
            ub = min(u_end - 1, int(np.floor(max(u0, u1, u2))))
            if va > vb or ua > ub:
                continue
            # Barycentric coordinates and inverse depth are linear in the picture.
            scale = 1.0 / area
            a_0, a_u, a_v = (u1 * v2 - v1 * u2) * scale, (v1 - v2) * scale, (u2 - u1) * scale
            c_0, c_u, c_v = (u2 * v0 - v2 * u0) * scale, (v2 - v0) * scale, (u0 - u2) * scale
            # Line by line, rows or columns, whichever are fewer; each only between the edges, for
            # most faces are slivers.
            if vb - va < ub - ua:
                p_a, p_b, q_a, q_b, p_step, q_step = va, vb, ua, ub, wide, 1
                a_p, a_q, c_p, c_q = a_v, a_u, c_v, c_u
            else:
                p_a, p_b, q_a, q_b, p_step, q_step = ua, ub, va, vb, 1, wide
                a_p, a_q, c_p, c_q = a_u, a_v, c_u, c_v
            from_a, from_a_p, to_a, to_a_p = span(a_0, a_p, a_q)
            from_c, from_c_p, to_c, to_c_p = span(c_0, c_p, c_q)
            from_e, from_e_p, to_e, to_e_p = span(1.0 - a_0 - c_0, -a_p - c_p, -a_q - c_q)
            for p in range(p_a, p_b + 1):
                q_from = max(from_a + from_a_p * p, from_c + from_c_p * p, from_e + from_e_p * p)
                q_to = min(to_a + to_a_p * p, to_c + to_c_p * p, to_e + to_e_p * p)
                q_from, q_to = int(np.ceil(max(q_a, q_from))), int(np.floor(min(q_b, q_to)))
                a, c = a_0 + a_p * p + a_q * q_from, c_0 + c_p * p + c_q * q_from
                k = p * p_step + q_from * q_step - v_first * wide - u_first
                for _ in range(q_from, q_to + 1):
                    e = 1.0 - a - c
                    if a >= 0 and c >= 0 and e >= 0:
                        z = 1.0 / (a * i0 + c * i1 + e * i2)
                        if z < out[k]:
                            out[k] = z
                    a += a_q
                    c += c_q
                    k += q_step
        if far.shape[0] > 0:
            for v in range(v_first, v_end):
                for u in range(u_first, u_end):
                    k = (v - v_first) * wide + u - u_first
                    if out[k] > far[v, u]:
                        out[k] = np.inf
