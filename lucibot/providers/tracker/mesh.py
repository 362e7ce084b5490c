"""Drawing many poses of one small mesh and adding up what they cover.

The pose search of a tracker needs one number per pose: how well the drawn mesh explains the picture.
Drawing and summing are fused here, so that a search of hundreds of poses costs milliseconds on one
core. Camera frames follow OpenCV (x right, y down, z forward), metres.
"""

from __future__ import annotations

import numba
import numpy as np

_NEAR_M = 0.01
_BEHIND = 1.5


@numba.njit(cache=True, fastmath=True)
def _draw_into(verts, faces, parts, A, t, K, cull, inv_z, part_of, screen):
    """Draw one mesh into `inv_z` and `part_of`, which it clears inside its own bounding box.

    Returns the box (y0, y1, x0, x1), half open, empty where nothing is visible.
    """
    H, W = inv_z.shape
    fx, fy, cx, cy = K[0], K[1], K[2], K[3]
    u0, u1, v0, v1 = 1e9, -1e9, 1e9, -1e9
    for i in range(verts.shape[0]):
        X, Y, Z = verts[i, 0], verts[i, 1], verts[i, 2]
        x = A[0, 0] * X + A[0, 1] * Y + A[0, 2] * Z + t[0]
        y = A[1, 0] * X + A[1, 1] * Y + A[1, 2] * Z + t[1]
        z = A[2, 0] * X + A[2, 1] * Y + A[2, 2] * Z + t[2]
        if z < _NEAR_M:
            screen[i, 2] = -1.0
            continue
        w = 1.0 / z
        u, v = fx * x * w + cx, fy * y * w + cy
        screen[i, 0], screen[i, 1], screen[i, 2] = u, v, w
        u0, u1, v0, v1 = min(u0, u), max(u1, u), min(v0, v), max(v1, v)
    if u1 < u0 or u1 < 0 or v1 < 0 or u0 > W or v0 > H:
        return 0, 0, 0, 0
    bx0, bx1 = max(int(u0) - 1, 0), min(int(u1) + 2, W)
    by0, by1 = max(int(v0) - 1, 0), min(int(v1) + 2, H)
    for y in range(by0, by1):
        for x in range(bx0, bx1):
            inv_z[y, x] = 0.0
            part_of[y, x] = -1
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        wa, wb, wc = screen[a, 2], screen[b, 2], screen[c, 2]
        if wa < 0 or wb < 0 or wc < 0:
            continue
        ax, ay, bx, by = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1]
        qx, qy = screen[c, 0], screen[c, 1]
        area = (bx - ax) * (qy - ay) - (by - ay) * (qx - ax)
        # Outward faces turn the other way round on the screen, whose y axis points down.
        if area == 0.0 or (cull and area > 0.0):
            continue
        x0 = max(int(np.ceil(min(ax, bx, qx) - 0.5)), bx0)
        x1 = min(int(np.floor(max(ax, bx, qx) - 0.5)), bx1 - 1)
        y0 = max(int(np.ceil(min(ay, by, qy) - 0.5)), by0)
        y1 = min(int(np.floor(max(ay, by, qy) - 0.5)), by1 - 1)
        # Most faces of a fine mesh lie between the pixels' centres.
        if x0 > x1 or y0 > y1:
            continue
        s = 1.0 / area
        lbx, lby = (qy - ay) * s, -(qx - ax) * s
        lcx, lcy = -(by - ay) * s, (bx - ax) * s
        lax, lay = -lbx - lcx, -lby - lcy
        # Every barycentric coordinate is linear along a row, so its sign bounds the row's span.
        rbx = 1.0 / lbx if lbx != 0.0 else 0.0
        rcx = 1.0 / lcx if lcx != 0.0 else 0.0
        rax = 1.0 / lax if lax != 0.0 else 0.0
        dw = lax * wa + lbx * wb + lcx * wc
        part = parts[f]
        for y in range(y0, y1 + 1):
            py = y + 0.5 - ay
            lb0, lc0, la0 = py * lby, py * lcy, 1.0 + py * lay
            lo, hi = x0 + 0.5 - ax, x1 + 0.5 - ax
            if lbx > 0.0:
                lo = max(lo, -lb0 * rbx)
            elif lbx < 0.0:
                hi = min(hi, -lb0 * rbx)
            elif lb0 < 0.0:
                continue
            if lcx > 0.0:
                lo = max(lo, -lc0 * rcx)
            elif lcx < 0.0:
                hi = min(hi, -lc0 * rcx)
            elif lc0 < 0.0:
                continue
            if lax > 0.0:
                lo = max(lo, -la0 * rax)
            elif lax < 0.0:
                hi = min(hi, -la0 * rax)
            elif la0 < 0.0:
                continue
            first = int(np.ceil(lo + ax - 0.5 - 1e-3))
            last = int(np.floor(hi + ax - 0.5 + 1e-3))
            w = la0 * wa + lb0 * wb + lc0 * wc + (first + 0.5 - ax) * dw
            for x in range(max(first, x0), min(last, x1) + 1):
                if w > inv_z[y, x]:
                    inv_z[y, x] = w
                    part_of[y, x] = part
                w += dw
    return by0, by1, bx0, bx1


@numba.njit(cache=True, fastmath=True)
def _score(verts, faces, parts, A, t, K, cull, gain, edge, far, far_hides, out, rim):
    S, H, W = A.shape[0], gain.shape[1], gain.shape[2]
    inv_z = np.zeros((H, W), np.float32)
    part_of = np.full((H, W), -1, np.int8)
    screen = np.empty((verts.shape[0], 3), np.float32)
    for s in range(S):
        y0, y1, x0, x1 = _draw_into(
            verts, faces, parts, A[s], t[s], K, cull, inv_z, part_of, screen
        )
        total, border = 0.0, 0.0
        for y in range(y0, y1):
            for x in range(x0, x1):
                p = part_of[y, x]
                if p < 0:
                    continue
                if far_hides and inv_z[y, x] < far[y, x]:
                    continue
                total += gain[p, y, x]
                if inv_z[y, x] < far[y, x]:
                    # A fiftieth of the depth too far behind the background costs the most.
                    total -= _BEHIND * min(50.0 * (1.0 - inv_z[y, x] / far[y, x]), 1.0)
                # The box has a margin, so only the picture's own border lacks neighbours.
                if (
                    (x > x0 and part_of[y, x - 1] != p)
                    or (x + 1 < x1 and part_of[y, x + 1] != p)
                    or (y > y0 and part_of[y - 1, x] != p)
                    or (y + 1 < y1 and part_of[y + 1, x] != p)
                ):
                    border += edge[y, x]
        out[s], rim[s] = total, border


class Mesh:
    """A mesh prepared for drawing: vertices (V, 3) [m, object frame], faces (F, 3), parts (F,)."""

    def __init__(self, verts: np.ndarray, faces: np.ndarray, parts: np.ndarray, *, closed: bool):
        self.verts = np.ascontiguousarray(verts, np.float32)
        self.faces = np.ascontiguousarray(faces, np.int32)
        self.parts = np.ascontiguousarray(parts, np.int8)
        self.closed = bool(closed)
        """Whether faces that look away may be skipped."""

    @property
    def n_parts(self) -> int:
        return int(self.parts.max()) + 1

    def score(
        self, A: np.ndarray, t_m: np.ndarray, K: np.ndarray, gain: np.ndarray, edge, far, *,
        far_hides: bool = False,
    ):  # fmt: skip
        """What each pose explains of the picture.

        Args:
            A: (S, 3, 3) rotation times scale, object to camera.
            t_m: (S, 3) [m] object origin in the camera frame.
            K: (4,) fx, fy, cx, cy [pixels] of the grid of `gain`.
            gain: (parts, H, W) float32, what a pixel adds when that part is drawn on it.
            edge: (H, W) float32, what a pixel adds when an outline runs over it.
            far: (H, W) float32 [1/m], inverse depth of the background; being behind it costs.
            far_hides: being behind it costs nothing, but nothing is drawn there.

        Returns:
            (S,) float64 sums of `gain` over covered pixels, (S,) sums of `edge` over outlines.
        """
        out, rim = np.empty(len(A)), np.empty(len(A))
        _score(
            self.verts, self.faces, self.parts, np.ascontiguousarray(A, np.float32),
            np.ascontiguousarray(t_m, np.float32), np.asarray(K, np.float32), self.closed,
            np.ascontiguousarray(gain, np.float32), np.ascontiguousarray(edge, np.float32),
            np.ascontiguousarray(far, np.float32), far_hides, out, rim,
        )  # fmt: skip
        return out, rim

    def draw(self, A: np.ndarray, t_m: np.ndarray, K: np.ndarray, height: int, width: int):
        """One pose: (H, W) int8 part, -1 where nothing is drawn, and (H, W) float32 depth [m]."""
        inv_z = np.zeros((height, width), np.float32)
        part_of = np.full((height, width), -1, np.int8)
        screen = np.empty((len(self.verts), 3), np.float32)
        _draw_into(
            self.verts, self.faces, self.parts, np.ascontiguousarray(A, np.float32),
            np.ascontiguousarray(t_m, np.float32), np.asarray(K, np.float32), self.closed,
            inv_z, part_of, screen,
        )  # fmt: skip
        depth = np.where(part_of >= 0, 1.0 / np.maximum(inv_z, 1e-6), np.inf).astype(np.float32)
        return part_of, depth


def face_parts(
    mesh, *, max_parts: int = 4, different: float = 25.0, smallest: float = 0.08
) -> np.ndarray:
    """(F,) int8: faces of a `trimesh.Trimesh` grouped by colour, so that each gets its own model.

    Colours nearer than `different` in 8-bit Lab are one part, parts of less than `smallest` of the area
    join their nearest; a mesh without colours is one part.
    """
    import cv2

    visual = mesh.visual
    if visual.kind == "texture":
        visual = visual.to_color()
    if not visual.defined or visual.kind not in ("vertex", "face"):
        return np.zeros(len(mesh.faces), np.int8)
    rgb = np.asarray(visual.face_colors)[:, :3].astype(np.uint8)
    lab = cv2.cvtColor(rgb[None], cv2.COLOR_RGB2Lab)[0].astype(np.float32)
    area = mesh.area_faces
    parts = np.zeros(len(lab), np.int8)
    centres: list[np.ndarray] = []
    left = np.ones(len(lab), bool)
    while left.any() and len(centres) < max_parts:
        keys, inverse = np.unique(lab[left].round(), axis=0, return_inverse=True)
        weight = np.bincount(inverse.ravel(), weights=area[left], minlength=len(keys))
        centres.append(keys[weight.argmax()])
        left &= np.linalg.norm(lab - centres[-1], axis=1) > different
    distance = np.stack([np.linalg.norm(lab - c, axis=1) for c in centres])
    share = np.bincount(distance.argmin(axis=0), weights=area, minlength=len(centres)) / area.sum()
    # Rivets and seams are too small to learn the colours of.
    distance = distance[share >= smallest]
    parts[:] = distance.argmin(axis=0)
    return parts
