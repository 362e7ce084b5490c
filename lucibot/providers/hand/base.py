"""The hand family: where finger tips are (paper, section 3.4, affordance)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Hand:
    """One hand in one frame."""

    tips_px: np.ndarray
    """(F, 2) float32 pixel coordinates (u, v) of visible finger tips, F <= 5."""
    score: float
    """Confidence in [0, 1]."""


class HandDetector(Protocol):
    def detect(
        self, frame: np.ndarray, hand_mask: np.ndarray, contact_mask: np.ndarray
    ) -> list[Hand]:
        """Hands in `frame` (H, W, 3) uint8, given the hand layer (H, W) bool and the mask (H, W)
        bool of the object that is touched. An empty list where none is seen."""
        ...
