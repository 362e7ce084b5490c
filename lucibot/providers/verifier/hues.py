"""What tells one object from another whatever its shape: the hues that it alone had in the first frame."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from lucibot.vision.regions import Regions

_BINS, _STEP = 25, 8.0
"""Along each axis of hue: bins, and their width [CIE Lab]."""
MORE = 4.0
"""How many times as frequent a hue is in the object that it tells."""
TELLING = 0.25
"""Share of an object that must be in hues of its own for it to be known by them."""


class Hues:
    """How frequent each hue is in each of N objects' first regions."""

    def __init__(self, regions: Regions, count: int):
        """`count`: N."""
        first = [regions.lab[0][regions.object(n)[0]] for n in range(count)]
        self._density = [_frequencies(lab) for lab in first]
        self._own = np.ones((count, _BINS, _BINS), bool)
        """Which hues are each object's own; all where it is not known by any."""
        for n in range(count):
            own = self._only(n, (j for j in range(count) if j != n))
            if len(first[n]) and own[_bins(first[n])].mean() >= TELLING:
                self._own[n] = own

    def only(self, i: int, others: Iterable[int], lab: np.ndarray) -> np.ndarray:
        """(...) bool: which CIE Lab colours (..., 3) are in a hue that object i has and none of the
        `others` has: two cups that are both white inside are told apart by their outsides."""
        return self._only(i, others)[_bins(lab)]

    def own(self, i: int, lab: np.ndarray) -> np.ndarray:
        """(...) bool: which CIE Lab colours (..., 3) can be nothing but object i, as far as hues tell;
        all where it has hardly any hue that the other objects have not."""
        return self._own[i][_bins(lab)]

    def _only(self, i: int, others: Iterable[int]) -> np.ndarray:
        told = np.ones((_BINS, _BINS), bool)
        for j in others:
            told &= self._density[i] > MORE * self._density[j] + 1e-4
        return told


def _frequencies(lab: np.ndarray) -> np.ndarray:
    """Of CIE Lab colours (P, 3) how frequent each hue is, somewhat blurred."""
    hist = np.zeros((_BINS, _BINS), np.float32)
    np.add.at(hist, _bins(lab), 1.0)
    hist = cv2.GaussianBlur(hist, (0, 0), 0.7)
    return hist / max(hist.sum(), 1e-9)


def _bins(lab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at = np.clip((lab[..., 1:] + 100) / _STEP, 0, _BINS - 1).astype(int)
    return at[..., 0], at[..., 1]
