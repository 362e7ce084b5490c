"""Signed distances to bodies that stand still: boxes exactly, meshes through a grid of their own.

Negative inside. A mesh may be hollow or open to one side, as a glass and a cabinet are; walls of less
than about two cells are seen badly, as they are in the simulation. NumPy, SciPy and numba only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from scipy import ndimage

CELL_M = 0.002
"""Between the nodes of a mesh's grid; larger where there would be more than `MOST_NODES`."""
MOST_NODES = 3_000_000
PAD = 3
"""Nodes that a grid reaches beyond its mesh on each side."""


class Solids(NamedTuple):
    """S boxes, then F meshes, packed for numba; solid j is box j, or mesh j - S."""

    T_box_world: np.ndarray
    """(S, 4, 4) world to each box's frame."""
    half_extents_m: np.ndarray
    """(S, 3)."""
    T_mesh_world: np.ndarray
    """(F, 4, 4)."""
    lower_m: np.ndarray
    """(F, 3) first node of each mesh's grid, in its frame."""
    cell_m: np.ndarray
    """(F,)."""
    shape: np.ndarray
    """(F, 3) int64 nodes."""
    start: np.ndarray
    """(F,) int64 where its nodes begin in `values`."""
    values: np.ndarray
    """(n,) float32 [m] signed distances at all grids' nodes."""

    @classmethod
    def of(
        cls,
        boxes: Sequence[tuple[np.ndarray, np.ndarray]],
        meshes: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    ) -> Solids:
        """From boxes (T_world_box (4, 4), size (3,) [m]) and closed meshes (T_world_mesh, vertices
        (V, 3) [m], faces (F, 3))."""
        fields = [distance_field(v, f) for _, v, f in meshes]
        sizes = [values.size for _, _, values in fields]
        return cls(
            T_box_world=np.reshape([np.linalg.inv(T) for T, _ in boxes], (-1, 4, 4)),
            half_extents_m=np.reshape([np.asarray(s) / 2 for _, s in boxes], (-1, 3)),
            T_mesh_world=np.reshape([np.linalg.inv(T) for T, _, _ in meshes], (-1, 4, 4)),
            lower_m=np.reshape([low for low, _, _ in fields], (-1, 3)),
            cell_m=np.array([cell for _, cell, _ in fields], float),
            shape=np.reshape([values.shape for _, _, values in fields], (-1, 3)).astype(np.int64),
            start=np.cumsum([0, *sizes], dtype=np.int64)[: len(sizes)],
            values=np.concatenate([np.zeros(0, np.float32), *(v.ravel() for _, _, v in fields)]),
        )  # fmt: skip

    @property
    def count(self) -> int:
        return len(self.T_box_world) + len(self.T_mesh_world)


def distance_field(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """The first node (3,) [m], the cell [m] and signed distances (nx, ny, nz) float32 [m] of a mesh
    with vertices (V, 3) [m].

    Near the surface distances are exact; farther away each node tries the triangles that are nearest
    to the nearest of those nodes and to its neighbours. A node is inside where the surface winds about
    it, counted along each axis; two of three decide, so that a small hole does no harm.
    """
    triangles = np.ascontiguousarray(np.asarray(vertices, float)[faces])
    first, last = triangles.min((0, 1)), triangles.max((0, 1))
    extent = last - first
    cell = max(CELL_M, float(np.prod(extent + 2 * PAD * CELL_M) / MOST_NODES) ** (1 / 3))
    shape = tuple(np.ceil(extent / cell).astype(int) + 1 + 2 * PAD)
    lower = first - PAD * cell
    squared = np.full(shape, np.inf)
    nearest = np.full(shape, -1, np.int64)
    _draw_near(triangles, lower, cell, squared, nearest)
    away = squared > 0.75 * cell**2
    at = ndimage.distance_transform_edt(away, return_distances=False, return_indices=True)
    nearest = nearest[tuple(at)]
    for backward in (False, True):
        _sweep(triangles, lower, cell, backward, squared, nearest)
    votes = np.zeros(shape, np.int8)
    for axis in range(3):
        order = [(axis + 1) % 3, (axis + 2) % 3, axis]
        crossings = np.zeros([shape[a] for a in order], np.int32)
        _count_crossings(triangles[:, :, order], lower[order], cell, crossings)
        winding = crossings[:, :, ::-1].cumsum(2)[:, :, ::-1]
        votes += (winding != 0).transpose(np.argsort(order)).astype(np.int8)
    distance = np.sqrt(squared)
    return lower, cell, np.where(votes >= 2, -distance, distance).astype(np.float32)


@numba.njit(cache=True)
def _minus(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@numba.njit(cache=True)
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@numba.njit(cache=True, error_model="numpy")
def _squared_to_triangle(p, triangles, f):
    """Squared distance [m^2] of a point, a tuple, to triangle f of (F, 3, 3) (Ericson, Real-Time
    Collision Detection, section 5.1.5). Tuples, because arrays of three would be allocated.

    Of a triangle without area it may be NaN, which is nearer than nothing: its neighbours' edges are
    where its own are.
    """
    a = triangles[f, 0, 0], triangles[f, 0, 1], triangles[f, 0, 2]
    b = triangles[f, 1, 0], triangles[f, 1, 1], triangles[f, 1, 2]
    c = triangles[f, 2, 0], triangles[f, 2, 1], triangles[f, 2, 2]
    ab, ac, ap = _minus(b, a), _minus(c, a), _minus(p, a)
    d1, d2 = _dot(ab, ap), _dot(ac, ap)
    if d1 <= 0 and d2 <= 0:
        return _dot(ap, ap)
    bp = _minus(p, b)
    d3, d4 = _dot(ab, bp), _dot(ac, bp)
    if d3 >= 0 and d4 <= d3:
        return _dot(bp, bp)
    cp = _minus(p, c)
    d5, d6 = _dot(ab, cp), _dot(ac, cp)
    if d6 >= 0 and d5 <= d6:
        return _dot(cp, cp)
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    if vc <= 0 and d1 >= 0 and d3 <= 0:
        s, t = d1 / (d1 - d3), 0.0
    elif vb <= 0 and d2 >= 0 and d6 <= 0:
        s, t = 0.0, d2 / (d2 - d6)
    elif va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0:
        t = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        s = 1 - t
    else:
        s, t = vb / (va + vb + vc), vc / (va + vb + vc)
    r = ap[0] - s * ab[0] - t * ac[0], ap[1] - s * ab[1] - t * ac[1], ap[2] - s * ab[2] - t * ac[2]
    return _dot(r, r)


@numba.njit(cache=True)
def _draw_near(triangles, lower, cell, squared, nearest):
    """Lower `squared` (nx, ny, nz) to the squared distance of each triangle on the nodes about it,
    and note the `nearest` triangle."""
    for f in range(len(triangles)):
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        low, high = np.empty(3, np.int64), np.empty(3, np.int64)
        for k in range(3):
            least, most = min(a[k], b[k], c[k]), max(a[k], b[k], c[k])
            low[k] = max(0, int(np.floor((least - lower[k]) / cell)) - 1)
            high[k] = min(squared.shape[k], int(np.ceil((most - lower[k]) / cell)) + 2)
        for x in range(low[0], high[0]):
            for y in range(low[1], high[1]):
                for z in range(low[2], high[2]):
                    p = lower[0] + x * cell, lower[1] + y * cell, lower[2] + z * cell
                    d = _squared_to_triangle(p, triangles, f)
                    if d < squared[x, y, z]:
                        squared[x, y, z], nearest[x, y, z] = d, f


@numba.njit(cache=True)
def _sweep(triangles, lower, cell, backward, squared, nearest):
    """Let each node try its own `nearest` triangle and those of the three neighbours that the sweep has
    passed."""
    nx, ny, nz = squared.shape
    step = -1 if backward else 1
    for i in range(nx):
        x = nx - 1 - i if backward else i
        for j in range(ny):
            y = ny - 1 - j if backward else j
            for k in range(nz):
                z = nz - 1 - k if backward else k
                p = lower[0] + x * cell, lower[1] + y * cell, lower[2] + z * cell
                for n in range(4):
                    if n == 0:
                        f = nearest[x, y, z]
                    elif n == 1:
                        f = nearest[x - step, y, z] if i else -1
                    elif n == 2:
                        f = nearest[x, y - step, z] if j else -1
                    else:
                        f = nearest[x, y, z - step] if k else -1
                    if f < 0 or (n > 0 and f == nearest[x, y, z]):
                        continue
                    d = _squared_to_triangle(p, triangles, f)
                    if d < squared[x, y, z]:
                        squared[x, y, z], nearest[x, y, z] = d, f


@numba.njit(cache=True)
def _count_crossings(triangles, lower, cell, crossings):
    """Add, to the last node of each line along the third axis that lies before a triangle, which way
    the line passes through: 1 from behind, -1 from the front. Lines run a little beside the nodes,
    where no edge is met exactly."""
    beside0, beside1 = 1.234e-4, 2.718e-4
    for f in range(len(triangles)):
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        u0, v0 = (a[0] - lower[0]) / cell - beside0, (a[1] - lower[1]) / cell - beside1
        u1, v1 = (b[0] - lower[0]) / cell - beside0, (b[1] - lower[1]) / cell - beside1
        u2, v2 = (c[0] - lower[0]) / cell - beside0, (c[1] - lower[1]) / cell - beside1
        area = (u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0)
        if area == 0:
            continue
        for u in range(
            max(0, int(np.ceil(min(u0, u1, u2)))),
            min(crossings.shape[0] - 1, int(np.floor(max(u0, u1, u2)))) + 1,
        ):
            for v in range(
                max(0, int(np.ceil(min(v0, v1, v2)))),
                min(crossings.shape[1] - 1, int(np.floor(max(v0, v1, v2)))) + 1,
            ):
                s = ((u1 - u) * (v2 - v) - (v1 - v) * (u2 - u)) / area
                t = ((u2 - u) * (v0 - v) - (v2 - v) * (u0 - u)) / area
                if s < 0 or t < 0 or s + t > 1:
                    continue
                height = s * a[2] + t * b[2] + (1 - s - t) * c[2]
                last = int(np.ceil((height - lower[2]) / cell)) - 1
                if last >= 0:
                    crossings[u, v, min(last, crossings.shape[2] - 1)] += 1 if area > 0 else -1


@numba.njit(cache=True)
def in_frame(T, j, k, x, y, z):
    """Coordinate k [m] of a world point in frame j of (n, 4, 4). Indexed at once, here and below: a
    slice would be counted as a reference."""
    return T[j, k, 0] * x + T[j, k, 1] * y + T[j, k, 2] * z + T[j, k, 3]


@numba.njit(cache=True)
def distance(solids, j, x, y, z):
    """Signed distance [m] of a world point to solid j; outside of a mesh's grid a lower bound."""
    boxes = solids.T_box_world.shape[0]
    if j < boxes:
        outside, inside = 0.0, -np.inf
        for k in range(3):
            d = abs(in_frame(solids.T_box_world, j, k, x, y, z)) - solids.half_extents_m[j, k]
            inside = max(inside, d)
            if d > 0:
                outside += d * d
        return np.sqrt(outside) if inside > 0 else inside
    f = j - boxes
    cell, lower, T, n = solids.cell_m[f], solids.lower_m, solids.T_mesh_world, solids.shape
    u = (in_frame(T, f, 0, x, y, z) - lower[f, 0]) / cell
    v = (in_frame(T, f, 1, x, y, z) - lower[f, 1]) / cell
    w = (in_frame(T, f, 2, x, y, z) - lower[f, 2]) / cell
    a, b, c = (
        min(max(u, 0.0), n[f, 0] - 1.0),
        min(max(v, 0.0), n[f, 1] - 1.0),
        min(max(w, 0.0), n[f, 2] - 1.0),
    )
    beyond = (u - a) ** 2 + (v - b) ** 2 + (w - c) ** 2
    if beyond > 0:
        return (np.sqrt(beyond) + PAD) * cell
    i, k, m = min(int(a), n[f, 0] - 2), min(int(b), n[f, 1] - 2), min(int(c), n[f, 2] - 2)
    a, b, c = a - i, b - k, c - m
    row, values = n[f, 2], solids.values
    at = solids.start[f] + (i * n[f, 1] + k) * row + m
    near = (1 - b) * ((1 - c) * values[at] + c * values[at + 1]) + b * (
        (1 - c) * values[at + row] + c * values[at + row + 1]
    )
    at += n[f, 1] * row
    far = (1 - b) * ((1 - c) * values[at] + c * values[at + 1]) + b * (
        (1 - c) * values[at + row] + c * values[at + row + 1]
    )
    return (1 - a) * near + a * far


@numba.njit(cache=True)
def outward(solids, j, x, y, z, out):
    """Write into `out` (3,) the unit vector along which a world point leaves solid j soonest."""
    boxes = solids.T_box_world.shape[0]
    h = 1e-5 if j < boxes else 0.5 * solids.cell_m[j - boxes]
    out[0] = distance(solids, j, x + h, y, z) - distance(solids, j, x - h, y, z)
    out[1] = distance(solids, j, x, y + h, z) - distance(solids, j, x, y - h, z)
    out[2] = distance(solids, j, x, y, z + h) - distance(solids, j, x, y, z - h)
    length = np.sqrt(out[0] ** 2 + out[1] ** 2 + out[2] ** 2)
    if length < 1e-12:
        out[0], out[1], out[2] = 0.0, 0.0, 1.0
        return
    for k in range(3):
        out[k] /= length
