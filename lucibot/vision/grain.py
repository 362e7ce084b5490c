"""Whether a place still shows the grain that it had in the first frame.

A shadow or another light scales what is seen and keeps its grain: the veins of wood, a seam, a rough
wall. Whatever comes in front hides it. So a place whose grain is still there is what it was, however
dark or tinted it has become, and one whose grain is gone is covered, though its colour may be that of
the same place in the shade. Where there was no grain at first, nothing is told.
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.vision.appearance import cie_lab

FINE = 2.5
"""What changes over less counts as grain [standard deviation, pixels]."""
WINDOW = 9
"""Side of the windows in which grain is compared [pixels]."""
REACH = 5
"""A window that shows its grain speaks for the pixels about its middle, so many across."""
SWIM = 0.7
"""How far textures may swim [pixels]; generated ones do."""
BOUND = 2.5
"""What is stronger by this factor than the place's grain is an edge that crosses the window: it
counts no more than so."""
KEPT, LOST = 0.75, 0.35
"""Correlation from which on grain is surely kept, and down to which it is surely lost."""
TELLING = 1.5, 3.0
"""How strong grain must be to tell anything, and to tell all that it can [times the noise]."""
NOISE = 0.12
"""What rounding alone makes of the lightness [CIE L]."""
SEEN = 0.85
"""Quantile of the frames by which a place's grain is judged: a hand may hide it in some."""


class Grain:
    """The grain of the first frame."""

    def __init__(self, first_rgb: np.ndarray):
        """`first_rgb`: (h, w, 3) uint8."""
        light = _lightness(first_rgb)
        size = light.shape[::-1]
        self._coarse = _coarse(light)
        self._fine, self._power = [], []
        for dx, dy in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
            way = np.float32([[1, 0, SWIM * dx], [0, 1, SWIM * dy]])
            there = light
            if dx or dy:
                there = cv2.warpAffine(light, way, size, borderMode=cv2.BORDER_REPLICATE)
            fine = there - _coarse(there)
            self._fine.append(fine)
            self._power.append(_mean(fine * fine))
        self._reliable = np.ones(light.shape, np.float32)

    def learn(self, frames: list[np.ndarray]) -> None:
        """Learn from frames (h, w, 3) uint8 how far the grain of each place can be relied on: noise
        and coding hide it at some."""
        if frames:
            seen = np.stack([self._found(_lightness(rgb))[0] for rgb in frames])
            self._reliable = np.clip(np.quantile(seen, SEEN, axis=0), 0, 1)

    def _alike(self, fine: np.ndarray, power: np.ndarray) -> np.ndarray:
        """(h, w) correlation of what is fine in a frame with the first frame's, in windows."""
        best = np.full(fine.shape, -1, np.float32)
        for there, theirs in zip(self._fine, self._power, strict=True):
            np.maximum(best, _mean(fine * there) / np.sqrt(power * theirs + 1e-6), out=best)
        return best

    def kept(self, rgb: np.ndarray, lab: np.ndarray | None = None) -> np.ndarray:
        """(h, w) float32 in [-1, 1]: 1 where a frame (h, w, 3) uint8, of which the caller may have the
        CIE `lab`, surely shows the first frame's grain, -1 where that is surely gone, 0 where nothing
        is told."""
        found, tells = self._found(_lightness(rgb, lab))
        return tells * np.where(found > 0, found, found * self._reliable)

    def _found(self, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(h, w) in [-1, 1] how far the grain is alike, and (h, w) in [0, 1] whether there is any."""
        coarse = _coarse(light)
        gain = np.clip((coarse + 2) / (self._coarse + 2), 0.2, 2.0)
        strength = gain * np.sqrt(self._power[0])
        most = BOUND * (strength + NOISE)
        fine = np.clip(light - coarse, -most, most)
        best = cv2.dilate(self._alike(fine, _mean(fine * fine)), np.ones((REACH, REACH), np.uint8))
        middle, half = 0.5 * (KEPT + LOST), 0.5 * (KEPT - LOST)
        least, all_ = TELLING
        tells = np.clip((strength / NOISE - least) / (all_ - least), 0, 1)
        return np.clip((best - middle) / half, -1, 1), tells


def _lightness(rgb: np.ndarray, lab: np.ndarray | None = None) -> np.ndarray:
    """(h, w) float32 CIE L of (h, w, 3) uint8, the finest of it, where coding errs most, blurred."""
    return cv2.GaussianBlur((cie_lab(rgb) if lab is None else lab)[..., 0], (0, 0), 0.6)


def _coarse(light: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(light, (0, 0), FINE)


def _mean(values: np.ndarray) -> np.ndarray:
    return cv2.blur(values, (WINDOW, WINDOW))
