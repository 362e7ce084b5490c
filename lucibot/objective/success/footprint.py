"""What lies on something, and how much of it it hides from above."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree


def on_top(
    mesh, T_world: np.ndarray, points_m: np.ndarray, above_m: float, below_m: float
) -> np.ndarray:
    """(N,) bool: points (N, 3) [m, world] over the bounds of a placed mesh, at a height between
    `above_m` and `below_m` over its top."""
    world = np.asarray(mesh.vertices) @ T_world[:3, :3].T + T_world[:3, 3]
    low, high = world.min(0), world.max(0)
    over = ((points_m[:, :2] >= low[:2]) & (points_m[:, :2] <= high[:2])).all(1)
    height = points_m[:, 2] - high[2]
    return over & (height > above_m) & (height < below_m)


def footprint_m2(points_m: np.ndarray, size_m: float, cell_m: float = 0.001) -> float:
    """Area of the points (N, 3) [m] seen from above, each a disc that closes the gaps of a lattice
    of spacing `size_m`."""
    if not len(points_m):
        return 0.0

    radius = size_m / np.sqrt(2)
    flat = points_m[:, :2].astype(float)
    x, y = (
        np.arange(lo - radius, hi + radius + cell_m, cell_m)
        for lo, hi in zip(flat.min(0), flat.max(0), strict=True)
    )
    cells = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    away, _ = cKDTree(flat).query(cells, distance_upper_bound=radius)
    return float(np.isfinite(away).sum() * cell_m**2)
