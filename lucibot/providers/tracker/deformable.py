"""Tracking of one deformable object: where it is, hidden parts included, and what it looks like.

There is no shape model. The belief about the whole object, hidden parts too, is carried along by
optical flow; colours decide what is seen; what a hand or a tool hides keeps its belief until it is
uncovered again.
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.vision.appearance import ColourModel
from lucibot.vision.labelling import box_around, erode, signed_distance, warp

EMERGES = 0.02
"""Prior of coming out of the object that it lay in or on, at any pixel of that object's rim."""


class DeformableTrack:
    """The state of one deformable object on the work grid."""

    def __init__(self, mask: np.ndarray, bins: np.ndarray, *, reach_px: float = 2.5):
        self.whole = mask.astype(np.float32)
        """(H, W) in [0, 1]: belief that the object is there, seen or hidden."""
        self.visible = mask.copy()
        self._reach = reach_px
        """How far the object may spread from one frame to the next [work pixels]."""
        inner = erode(mask, 1)
        self.model = ColourModel(bins[inner if inner.any() else mask])

    def predict(self, flow: np.ndarray) -> np.ndarray:
        """Carry the belief along `flow` (H, W, 2) [work px] where the object was seen."""
        around = box_around(self.visible, 9)
        if around is None:
            return self.whole
        visible = self.visible[around]
        moved = np.where(visible[..., None], flow[around], np.float32(0))
        # Pixels just outside follow the object, or else its edge would be left behind.
        weight = cv2.blur(visible.astype(np.float32), (9, 9))
        spread = cv2.blur(moved, (9, 9)) / np.maximum(weight, 1e-3)[..., None]
        field = np.where(visible[..., None], moved, spread * (weight > 0.05)[..., None])
        still = np.maximum(np.abs(field[..., 0]), np.abs(field[..., 1])) < 0.35
        field[still] = 0
        if not still.all():
            self.whole = self.whole.copy()
            self.whole[around] = warp(self.whole, field, around)
        return self.whole

    def log_prior(self, source: np.ndarray) -> np.ndarray:
        """(H, W) log-probability of the object being there, from last frame's belief; `source`
        (H, W) bool is where it may come out of another object."""
        d = signed_distance(self.whole > 0.5)
        inside = 1.0 / (1.0 + np.exp(-np.clip(d / (0.5 * self._reach), -30, 30)))
        return np.log(0.85 * inside + EMERGES * source + 1e-5).astype(np.float32)

    def update(self, belief: np.ndarray, background: np.ndarray, sure_seen: np.ndarray) -> None:
        """Take over what this frame shows.

        Args:
            belief: (H, W) probability of the object being seen.
            background: (H, W) probability that the background is seen.
            sure_seen: (H, W) bool, the object's visible mask.
        """
        hidden = np.clip(1 - belief - background, 0, 1)
        self.whole = belief + hidden * self.whole
        self.visible = sure_seen
