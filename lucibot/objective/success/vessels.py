"""What is inside of what, and how much a bowl holds: geometry for the success predicates.

Meshes are `trimesh.Trimesh` in their own frame [m] and open along their own +z.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.spatial import ConvexHull

from lucibot.core.heights import height_map

CELL_M = 0.001
"""Grid on which a bowl is filled."""


def inside_hull(mesh, T_world: np.ndarray, points_m: np.ndarray, margin_m: float) -> np.ndarray:
    """(N,) bool: which points (N, 3) [m, world] lie in the convex hull of a mesh at the pose
    `T_world` (4, 4), or not further than `margin_m` outside of it."""
    local = (points_m - T_world[:3, 3]) @ T_world[:3, :3]
    planes = ConvexHull(np.asarray(mesh.vertices)).equations
    return (local @ planes[:, :3].T + planes[:, 3] <= margin_m).all(1)


def over_hull(mesh, T_world: np.ndarray, points_m: np.ndarray, margin_m: float) -> np.ndarray:
    """(N,) bool: which points (N, 3) [m, world] lie, seen from straight above, on the convex hull of
    a mesh at the pose `T_world` (4, 4), or not further than `margin_m` beside it."""
    world = np.asarray(mesh.vertices) @ T_world[:3, :3].T + T_world[:3, 3]
    lines = ConvexHull(world[:, :2]).equations
    return (points_m[:, :2] @ lines[:, :2].T + lines[:, 2] <= margin_m).all(1)


@dataclass(frozen=True, kw_only=True)
class Bowl:
    """How deep water would stand on a mesh, seen from above in its own frame."""

    corner_m: np.ndarray
    """(2,) x and y of the grid's first cell."""
    floor_m: np.ndarray
    """(X, Y) height of the surface; -inf where there is none."""
    level_m: np.ndarray
    """(X, Y) height of the water; the floor's where none stays."""

    @classmethod
    def of(cls, mesh) -> Bowl:
        top = height_map(np.asarray(mesh.vertices), np.asarray(mesh.faces), CELL_M, top=True)
        # One empty cell all around: there the water runs off.
        floor = np.pad(top.z, 1, constant_values=-np.inf)
        return cls(corner_m=top.lower_xy_m - CELL_M, floor_m=floor, level_m=_filled(floor))

    @property
    def capacity_m3(self) -> float:
        wet = self._wet
        return float((self.level_m[wet] - self.floor_m[wet]).sum() * CELL_M**2)

    @property
    def _wet(self) -> np.ndarray:
        return np.isfinite(self.floor_m) & (self.level_m > self.floor_m)

    def holds(self, T_world: np.ndarray, points_m: np.ndarray, size_m: float) -> np.ndarray:
        """(N,) bool: which points (N, 3) [m, world] lie in it or are heaped on it, if it stands at
        `T_world` (4, 4); `size_m` is the particles' size."""
        local = (points_m - T_world[:3, 3]) @ T_world[:3, :3]
        wet = self._wet
        if not wet.any():
            return np.zeros(len(points_m), bool)
        reach = max(1, round(0.5 * size_m / CELL_M))
        near = binary_dilation(np.pad(wet, reach), iterations=reach)
        at = np.floor((local[:, :2] - self.corner_m) / CELL_M).astype(int) + reach
        known = ((at >= 0) & (at < near.shape)).all(1)
        i, j = np.where(known[:, None], at, 0).T
        low, high = self.floor_m[wet].min() - size_m, self.level_m[wet].max()
        # A heap is no steeper than it is wide.
        heap = 0.5 * CELL_M * min(wet.any(1).sum(), wet.any(0).sum()) + size_m
        return known & near[i, j] & (local[:, 2] > low) & (local[:, 2] < high + heap)


def _filled(floor: np.ndarray) -> np.ndarray:
    """Water levels: each cell as high as the lowest pass on its way out (priority flood)."""
    level = np.full(floor.shape, np.inf)
    border = np.zeros(floor.shape, bool)
    border[[0, -1]], border[:, [0, -1]] = True, True
    level[border] = floor[border]
    queue = [(level[i, j], i, j) for i, j in np.argwhere(border)]
    heapq.heapify(queue)
    while queue:
        height, i, j = heapq.heappop(queue)
        for a, b in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if 0 <= a < floor.shape[0] and 0 <= b < floor.shape[1] and level[a, b] == np.inf:
                level[a, b] = max(height, floor[a, b])
                heapq.heappush(queue, (level[a, b], a, b))
    return level
