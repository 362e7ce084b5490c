"""The hand layer: whatever comes in from the picture's border, looks like skin, and is no object.

Skin is first told by a colour rule; from the pixels that surely belong to a hand (they differ from
the background plate and hang together with the border) its colours in this video are learned.
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.providers.tracker.appearance import ColourModel, skin_rule_table
from lucibot.providers.tracker.labelling import dilate, erode, signed_distance

_OPENING = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


class HandLayer:
    """State of the hand layer on the work grid."""

    def __init__(self, size: tuple[int, int]):
        self._rule = skin_rule_table()
        self._learned = ColourModel(np.zeros(0, np.int64), outliers=0.05)
        self._has_learned = False
        self.mask = np.zeros(size, bool)
        """(H, W) of the last frame."""
        h, w = size
        self._border = np.ones(size, bool)
        self._border[3 : h - 3, 3 : w - 3] = False

    def density(self, bins: np.ndarray) -> np.ndarray:
        """(H, W) density of skin's colours."""
        if not self._has_learned:
            return self._rule[bins]
        return 0.25 * self._rule[bins] + 0.75 * self._learned.density(bins)

    def log_prior(self, warped: np.ndarray) -> np.ndarray:
        """(H, W) log-probability that a hand is there, given last frame's mask after its motion."""
        d = signed_distance(warped)
        near = np.exp(-np.maximum(-d, 0) / 8.0)
        prior = 0.02 + 0.48 * near
        prior[dilate(self._border, 5)] = np.maximum(prior[dilate(self._border, 5)], 0.1)
        return np.log(prior).astype(np.float32)

    def update(self, belief: np.ndarray, warped: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """Keep the parts of `belief` (H, W) bool that hang together with the picture's border.

        Fingers before or behind an object are cut off from their arm; they hang together with it
        across `objects` (H, W) bool. A large part that was a hand before stays one, too.
        """
        # Mixed colours along an object's edge can pass for skin, but only as a line.
        core = cv2.morphologyEx(belief.astype(np.uint8), cv2.MORPH_OPEN, _OPENING) > 0
        belief = belief & dilate(core, 1)
        n, labels, stats, _ = cv2.connectedComponentsWithStats(
            belief.astype(np.uint8), connectivity=8
        )
        anchored = np.zeros(n, bool)
        for i in range(1, n):
            area = stats[i, cv2.CC_STAT_AREA]
            here = labels == i
            # An arm crosses the border on a stretch; a speck of noise only touches it.
            anchored[i] = (here & self._border).sum() >= 12 and area >= 60
            anchored[i] |= area > 400 and (here & warped).sum() > 0.5 * area
        arms = anchored[labels]
        together = cv2.connectedComponents((belief | dilate(objects, 2)).astype(np.uint8))[1]
        reached = np.zeros(together.max() + 1, bool)
        reached[np.unique(together[arms])] = True
        reached[0] = False
        large = stats[:, cv2.CC_STAT_AREA] >= 20
        self.mask = belief & (anchored | large)[labels] & reached[together]
        return self.mask

    def learn(self, bins: np.ndarray, sure: np.ndarray) -> None:
        """Learn skin's colours where `sure` (H, W) bool shows a hand beyond doubt."""
        sure = erode(sure & self.mask, 2)
        if sure.sum() < 80:
            return
        self._learned.learn(bins[sure], keep=0.95)
        self._has_learned = True
