"""The hand family: where hands and their key points are (paper, section 3.4, affordance)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

KEYPOINTS = 21
"""The wrist, then thumb, index, middle, ring and little finger, four each from the palm outwards."""
TIPS = (4, 8, 12, 16, 20)
"""Key points that are finger tips, thumb first."""


@dataclass(frozen=True, kw_only=True)
class Hand:
    """One hand in one frame."""

    keypoints_px: np.ndarray
    """(21, 2) float32 pixel coordinates (u, v) in the frame; NaN where the model gives none."""
    keypoints_m: np.ndarray
    """(21, 3) float32 [m] in the camera's axes, about the wrist: the hand's shape, not its place in
    the scene; NaN where the model gives none."""
    side: Literal["left", "right", "unknown"]
    box_px: np.ndarray
    """(4,) float32 left, top, right and bottom edge."""
    score: float
    """Confidence in [0, 1]."""

    @property
    def tips_px(self) -> np.ndarray:
        """(5, 2) float32 finger tips, thumb first; NaN where the model gives none."""
        return self.keypoints_px[list(TIPS)]


class HandDetector(Protocol):
    def detect(
        self,
        frames: np.ndarray,
        *,
        hand_layer: np.ndarray | None = None,
        contact_masks: np.ndarray | None = None,
    ) -> list[list[Hand]]:
        """The hands of each of T frames, the surest first; an empty list where none is seen.

        Args:
            frames: (T, H, W, 3) uint8.
            hand_layer: (T, H, W) bool, hands and arms; None where they are not known yet, as when
                the hand layer itself asks.
            contact_masks: (T, N, H, W) bool, visible pixels of the objects that hands may touch;
                None where they are not known yet.

        Raises:
            UserError: masks of another size than the frames; a member that rests on masks and is
                given none.
        """
        ...
