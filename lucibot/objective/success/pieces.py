"""Which points hang together: geometry for the success predicates."""

from __future__ import annotations

import numpy as np

CRUMB_FRACTION = 0.01
"""Connected groups of less than this share of the particles are crumbs and count for nothing."""


def connected_pieces(points_m: np.ndarray, reach_m: float) -> np.ndarray:
    """(N,) piece number of each point: chains of neighbours nearer than `reach_m` are one piece."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    i, j = cKDTree(points_m).query_pairs(reach_m, output_type="ndarray").T
    graph = coo_array((np.ones(len(i), np.int8), (i, j)), shape=(len(points_m),) * 2)
    return connected_components(graph, directed=False)[1]


def piece_fractions(points_m: np.ndarray, reach_m: float) -> np.ndarray:
    """Shares of the points in each piece, largest first, without crumbs."""
    shares = np.sort(np.bincount(connected_pieces(points_m, reach_m)) / len(points_m))[::-1]
    return shares[shares >= CRUMB_FRACTION]
