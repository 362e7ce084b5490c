"""The tracker's hand layer: what the whole video's classification says, refined frame by frame."""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.vision.appearance import ColourModel, any_colour
from lucibot.vision.hands import border_of, held_from_outside
from lucibot.vision.labelling import dilate, distance_to, signed_distance
from lucibot.vision.regions import Layers
from lucibot.vision.scene_model import HAND

REACH_PX = 8.0
"""How far from where a hand was expected it may be [work pixels]."""
ELSEWHERE = 0.002
"""Probability of a hand where the classification saw the background just before and after."""
OUTLINE, SURE = 0.5, 0.9
"""Probability of a hand at the outline of where it was, and that far inside of it, or where the
classification saw one just before and just after."""
NEVER = 1e-6
"""Probability of a hand in a video without one."""


class HandLayer:
    """State of the hand layer on the work grid."""

    def __init__(self, layers: Layers | None, size: tuple[int, int]):
        """`layers`: of the classified video; None where no hand is to be seen in it."""
        self.layers = layers
        self.colours: ColourModel = any_colour() if layers is None else layers.hand_colours
        self.mask = np.zeros(size, bool)
        """(H, W) of the last frame."""
        self._border = border_of(size)
        self._entry = dilate(self._border, 5)
        self._sample, self._near = -1, np.ones(size, np.float32)

    def density(self, bins: np.ndarray) -> np.ndarray:
        """(H, W) density of the hand's colours."""
        return self.colours.density(bins)

    def log_prior(self, warped: np.ndarray, frame: int) -> np.ndarray:
        """(H, W) log-probability that a hand is there, given last frame's mask after its motion."""
        if self.layers is None:
            return np.full(warped.shape, np.log(NEVER), np.float32)
        inside = signed_distance(warped) / REACH_PX
        prior = 0.02 + (OUTLINE - 0.02) * np.exp(np.minimum(inside, 0))
        prior += (SURE - OUTLINE) * np.clip(inside, 0, 1)
        prior[self._entry] = np.maximum(prior[self._entry], 0.1)
        prior = np.maximum(prior * self._expected(frame), ELSEWHERE)
        prior[self._sure(frame)] = SURE
        return np.log(prior).astype(np.float32)

    def _expected(self, frame: int) -> np.ndarray:
        """(H, W) in [0, 1]: how near each pixel is to where the samples before and after a frame do not
        show the background. What they took for an object may be a hand that looks like it."""
        k = int(np.searchsorted(self.layers.frames, frame))
        if k != self._sample:
            seen = (self.layers.labels[max(k - 1, 0) : k + 2] > 0).any(0).astype(np.uint8)
            size = self.mask.shape[::-1]
            possible = cv2.resize(seen, size, interpolation=cv2.INTER_NEAREST) > 0
            self._sample, self._near = k, np.exp(-distance_to(possible) / REACH_PX)
        return self._near

    def _sure(self, frame: int) -> np.ndarray:
        """(H, W) bool: where the samples before and after a frame show a hand."""
        k = int(np.searchsorted(self.layers.frames, frame))
        seen = (self.layers.labels[max(k - 1, 0) : k + 1] == HAND).all(0).astype(np.uint8)
        return cv2.resize(seen, self.mask.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0

    def update(self, belief: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """Keep the parts of `belief` (H, W) bool that are held from outside the picture."""
        self.mask = held_from_outside(belief, self._border, objects)
        return self.mask
