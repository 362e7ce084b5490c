"""Height maps: the top or the underside of a mesh over a horizontal grid. NumPy and numba only."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np


@dataclass(frozen=True, kw_only=True)
class HeightMap:
    """Heights [m, world] over a grid of cells; -inf (tops) or inf (undersides) where there is
    nothing."""

    lower_xy_m: np.ndarray
    cell_m: float
    z: np.ndarray
    """(nx, ny)."""

    def at(self, xy: np.ndarray) -> np.ndarray:
        """Heights (...) at world positions (..., 2); -inf outside the grid."""
        cell = np.floor((xy - self.lower_xy_m) / self.cell_m).astype(int)
        inside = ((cell >= 0) & (cell < self.z.shape)).all(-1)
        cell = np.where(inside[..., None], cell, 0)
        return np.where(inside, self.z[cell[..., 0], cell[..., 1]], -np.inf)


def height_map(
    vertices: np.ndarray, faces: np.ndarray, cell: float, *, top: bool, bounds=None
) -> HeightMap:
    """Top (or underside) of a mesh with world vertices (V, 3); `bounds` ((x, y), (x, y)) crops."""
    low = vertices[:, :2].min(0) - cell if bounds is None else np.maximum(
        vertices[:, :2].min(0) - cell, bounds[0])  # fmt: skip
    high = vertices[:, :2].max(0) + cell if bounds is None else np.minimum(
        vertices[:, :2].max(0) + cell, bounds[1])  # fmt: skip
    low = np.floor(low / cell) * cell
    shape = np.maximum(np.ceil((high - low) / cell).astype(int), 1)
    z = np.full(tuple(shape), -np.inf)
    sign = 1.0 if top else -1.0
    draw_heights(vertices * (1, 1, sign), faces.astype(np.int32), low, cell, z)
    return HeightMap(lower_xy_m=low, cell_m=cell, z=sign * z)


@numba.njit(cache=True)
def draw_heights(points, faces, low, cell, out):
    """Raise `out` (nx, ny) to the highest triangle over each cell's middle.

    Args:
        points: (V, 3) [m]; faces: (F, 3); low: (2,) corner of the first cell [m]; cell: size [m].
    """
    nx, ny = out.shape
    for f in range(faces.shape[0]):
        x0, y0, z0 = points[faces[f, 0]]
        x1, y1, z1 = points[faces[f, 1]]
        x2, y2, z2 = points[faces[f, 2]]
        u0, v0 = (x0 - low[0]) / cell - 0.5, (y0 - low[1]) / cell - 0.5
        u1, v1 = (x1 - low[0]) / cell - 0.5, (y1 - low[1]) / cell - 0.5
        u2, v2 = (x2 - low[0]) / cell - 0.5, (y2 - low[1]) / cell - 0.5
        area = (u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0)
        if abs(area) < 1e-12:
            continue
        for u in range(
            max(0, int(np.ceil(min(u0, u1, u2)))), min(nx - 1, int(np.floor(max(u0, u1, u2)))) + 1
        ):
            for v in range(
                max(0, int(np.ceil(min(v0, v1, v2)))),
                min(ny - 1, int(np.floor(max(v0, v1, v2)))) + 1,
            ):
                a = ((u1 - u) * (v2 - v) - (v1 - v) * (u2 - u)) / area
                c = ((u2 - u) * (v0 - v) - (v2 - v) * (u0 - u)) / area
                e = 1.0 - a - c
                if a < 0 or c < 0 or e < 0:
                    continue
                z = a * z0 + c * z1 + e * z2
                if z > out[u, v]:
                    out[u, v] = z
