"""The surface of particles as a mesh: what a thing looks like that a simulation has deformed."""

from __future__ import annotations

import numpy as np

CELLS = 3
"""Of the grid, along a particle's size."""
SPREAD = 0.6
"""Standard deviation of what each particle is spread over, in sizes."""
LEVEL = 0.45
"""Of the density within, at which the surface is laid: half would lose layers of one particle."""
LINK = 1.5
"""Particles that are nearer to each other than so many sizes are one part; parts are meshed apart, so
that a narrow cut stays open."""
FEWEST = 8
"""Particles of a part that is drawn; fewer are crumbs."""
SMOOTHING = 10
"""Rounds of Taubin's filter, which keeps the volume."""


def surface_of(points_m: np.ndarray, size_m: float):
    """A closed `trimesh.Trimesh` [m] around particles (N, 3) [m] of a size, one part for each group
    that hangs together; crumbs are left out.

    Raises:
        ValueError: there is nothing but crumbs.
    """
    import trimesh

    parts = [_part(points_m[mine], size_m) for mine in groups(points_m, LINK * size_m)]
    parts = [p for p in parts if p is not None]
    if not parts:
        raise ValueError("nothing but crumbs is left of it")
    return trimesh.util.concatenate(parts)


def groups(points_m: np.ndarray, reach_m: float) -> list[np.ndarray]:
    """Indices of the points of each group, chains of neighbours nearer than `reach_m`, the largest
    first; crumbs are left out."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    i, j = cKDTree(points_m).query_pairs(reach_m, output_type="ndarray").T
    graph = coo_array((np.ones(len(i), np.int8), (i, j)), shape=(len(points_m),) * 2)
    count, owner = connected_components(graph, directed=False)
    found = [np.flatnonzero(owner == g) for g in range(count)]
    return sorted((f for f in found if len(f) >= FEWEST), key=len, reverse=True)


def _part(points_m: np.ndarray, size_m: float):
    import trimesh
    from scipy.ndimage import gaussian_filter
    from skimage.measure import marching_cubes

    cell = size_m / CELLS
    lower = points_m.min(0) - 2.5 * size_m
    cells = np.ceil((points_m.max(0) + 2.5 * size_m - lower) / cell).astype(int)
    edges = [lower[k] + cell * np.arange(cells[k] + 1) for k in range(3)]
    count, _ = np.histogramdd(points_m, bins=edges)
    density = gaussian_filter(count * CELLS**3, SPREAD * CELLS, mode="constant")
    if density.max() <= LEVEL:
        return None
    vertices, faces, _, _ = marching_cubes(density, LEVEL)
    mesh = trimesh.Trimesh(vertices * cell + lower + 0.5 * cell, faces, process=True)
    trimesh.smoothing.filter_taubin(mesh, iterations=SMOOTHING)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


def carried_colours(mesh, points_m: np.ndarray, first_m: np.ndarray, original) -> np.ndarray:
    """(V, 4) uint8: the colour that each vertex of `mesh` brings along from the mesh that the particles
    filled at first.

    Args:
        points_m: (N, 3) particles now, in the frame of `mesh`.
        first_m: (N, 3) the same particles at first, in the frame of `original`.
        original: a `trimesh.Trimesh` with colours.
    """
    from scipy.spatial import cKDTree

    visual = original.visual.to_color() if original.visual.kind == "texture" else original.visual
    _, particle = cKDTree(points_m).query(np.asarray(mesh.vertices))
    _, vertex = cKDTree(np.asarray(original.vertices)).query(first_m[particle])
    return np.asarray(visual.vertex_colors, np.uint8)[vertex]
