"""What the pixels of one frame say, before anything is decided; all on the work grid (h, w)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Evidence:
    lab: np.ndarray
    """(h, w, 3) uint8 Lab."""
    bins: np.ndarray
    """(h, w) int32, see `colour_bins`."""
    flow: np.ndarray
    """(h, w, 2) from the last frame to this one [work px]."""
    background: np.ndarray
    """(h, w) density of the background's colours at their place."""
    deviation: np.ndarray
    """(h, w) squared deviation from the background."""
    hand: np.ndarray
    """(h, w) density of the hand's colours."""
    log_hand: np.ndarray
    """(h, w) log-probability that a hand is there."""
    open: np.ndarray
    """(h, w) probability that no hand is there, at most 0.5: what anything else there is weighed by."""
    parts: list[np.ndarray]
    """Of each object (P, h, w) densities of its parts' colours; one part for a deformable."""
