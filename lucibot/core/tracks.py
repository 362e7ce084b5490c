"""Where every foreground object is in every frame (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """Per-frame masks of N foreground objects (task order) over T frames of the video."""

    masks: np.ndarray
    """(T, N, H, W) bool, visible pixels only: what the hand or a nearer object hides is False."""
    hand: np.ndarray
    """(T, H, W) bool, hands and arms."""
    confidence: np.ndarray
    """(T, N) float32 in [0, 1]."""
    lost: np.ndarray
    """(T, N) bool: the mask (and pose) of this frame must not be used."""
    poses: np.ndarray
    """(T, N, 6) float32 pose vectors of rigid objects (position [m], rotation vector [rad], world)
    as the tracker saw them; NaN for objects without a known mesh pose (deformables) and for
    trackers that only segment."""
    unseen: np.ndarray | None = None
    """(T, H, W) bool: pixels that the video says nothing of; None where it has none."""
