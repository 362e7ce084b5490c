"""The parts into which a target has fallen: what the video's goal frame is compared with.

A person who is shown the goal frame sees pieces; here they are groups of particles that hang
together. Read at the end of a rollout, with nothing but the targets drawn.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

LINK_SIZES = 1.5
"""Particles nearer than this many particle sizes hang together: just more than the diagonal of the
lattice that bodies are sampled on. What is elastic may be stretched: it hangs together while its
particles are within one cell of the grid, the distance at which it tears."""
LEAST_SHARE = 0.05
"""A group with a smaller share of the particles is a crumb, not a part."""


def particle_parts(points_m: np.ndarray, link_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Parts of one object in every environment.

    Args:
        points_m: (N, B, 3) [m].
        link_m: particles nearer than this hang together.

    Returns:
        part (B, N) int32, numbered from 0 by decreasing size, -1 for crumbs; count (B,) int32.
    """
    N, B, _ = points_m.shape
    part, count = np.full((B, N), -1, np.int32), np.zeros(B, np.int32)
    for b in range(B):
        points = points_m[:, b]
        if not np.isfinite(points).all():
            continue  # A diverged environment has no parts; the evaluator marks it failed.
        pairs = cKDTree(points).query_pairs(link_m, output_type="ndarray")
        links = coo_matrix((np.ones(len(pairs), bool), pairs.T), shape=(N, N))
        _, group = connected_components(links, directed=False)
        sizes = np.bincount(group)
        # Equal sizes keep the order of their first particles: the same state, the same numbers.
        order = np.argsort(-sizes, kind="stable")
        kept = order[sizes[order] >= LEAST_SHARE * N]
        number = np.full(len(sizes), -1, np.int32)
        number[kept] = np.arange(len(kept))
        part[b], count[b] = number[group], len(kept)
    return part, count
