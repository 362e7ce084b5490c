"""The parts into which a target has fallen: what the video's goal frame is compared with.

A person who is shown the goal frame sees pieces; here they are groups of particles that hang
together. Read at the end of a rollout, with nothing but the targets drawn.
"""

from __future__ import annotations

from lucibot_kernels import linked_groups
from torch import Tensor

LINK_SIZES = 1.5
"""Particles nearer than this many particle sizes hang together: just more than the diagonal of the
lattice that bodies are sampled on. What is elastic may be stretched: it hangs together while its
particles are within one cell of the grid, the distance at which it tears."""
LEAST_SHARE = 0.05
"""A group with a smaller share of the particles is a crumb, not a part."""


def particle_parts(points_m: Tensor, link_m: float) -> tuple[Tensor, Tensor]:
    """Parts of one object in every environment; a diverged one has none.

    Args:
        points_m: (N, B, 3) float32 [m].
        link_m: particles nearer than this hang together.

    Returns:
        part (B, N) int32, numbered from 0 by decreasing size, -1 for crumbs; count (B,) int32.
    """
    return linked_groups(points_m.transpose(0, 1), link_m, LEAST_SHARE)
