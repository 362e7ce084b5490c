"""Colour models: what a pixel's colour says about the thing it shows.

All models give densities over 8-bit Lab space (per unit volume), so they can be compared. Colours
are binned once per frame; a model is then one table look-up.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

_BINS = (32, 64, 64)
"""Lightness is binned more coarsely than colour: shading changes it most."""
_STEP = tuple(256 // b for b in _BINS)
_VOLUME = float(np.prod(_STEP))
UNIFORM = 1.0 / (256 * 160 * 160)
"""Density of a colour about which nothing is known (most of Lab space is never seen)."""


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB to 8-bit Lab."""
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)


def colour_bins(lab: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 Lab to (H, W) int32 indices into a model's table."""
    x = lab.astype(np.int32)
    return ((x[..., 0] // _STEP[0]) * _BINS[1] + x[..., 1] // _STEP[1]) * _BINS[2] + x[
        ..., 2
    ] // _STEP[2]


class ColourModel:
    """A smoothed Lab histogram that can go on learning.

    The colours it was born with keep half of the weight however much is learned later, so that a
    slow leak cannot carry it away.
    """

    def __init__(self, bins: np.ndarray, *, sigma=(1.5, 1.2, 1.2), outliers: float = 0.02):
        self._sigma, self._outliers = sigma, outliers
        self._born = self._smooth(bins)
        self._learned = np.zeros(int(np.prod(_BINS)), np.float64)
        self.table = self._mix()

    def _smooth(self, bins: np.ndarray) -> np.ndarray:
        counts = np.bincount(np.asarray(bins).ravel(), minlength=int(np.prod(_BINS))).astype(
            np.float32
        )
        if counts.sum() == 0:
            return counts
        smooth = gaussian_filter(counts.reshape(_BINS), self._sigma, mode="nearest", truncate=2.5)
        return (smooth / smooth.sum()).ravel()

    def _mix(self) -> np.ndarray:
        table = self._born
        total = self._learned.sum()
        if total > 0:
            counts = gaussian_filter(
                (self._learned / total).reshape(_BINS), self._sigma, mode="nearest", truncate=2.5
            ).ravel()
            table = counts if self._born.sum() == 0 else 0.5 * self._born + 0.5 * counts
        density = (1 - self._outliers) * table / _VOLUME + self._outliers * UNIFORM
        return np.maximum(density, 0.02 * UNIFORM).astype(np.float32)

    def learn(self, bins: np.ndarray, *, keep: float = 0.9) -> None:
        """Add the colours of pixels that are surely of this thing; older ones fade by `keep`."""
        if len(bins) == 0:
            return
        self._learned *= keep
        self._learned += np.bincount(bins, minlength=self._learned.size) / len(bins)
        self.table = self._mix()

    def density(self, bins: np.ndarray) -> np.ndarray:
        return self.table[bins]


def skin_rule_table() -> np.ndarray:
    """Density of skin before any was seen: uniform over the colours that the usual rules allow."""
    axes = [np.arange(n) * s + s // 2 for n, s in zip(_BINS, _STEP, strict=True)]
    lab = np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.uint8).reshape(1, -1, 3)
    rgb = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
    back = cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab).astype(int)
    possible = np.abs(back - lab.astype(int)).max(-1)[0] <= 6
    y, cr, cb = (c.astype(int) for c in cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)))
    rule = (cr > 136) & (cr < 182) & (cb > 75) & (cb < 128) & (y > 30) & (cr - cb > 12)
    # Grey things in warm light, and reflections of red ones, pass the usual rules.
    chroma = np.hypot(*(lab[0, :, 1:].astype(float) - 128).T)
    rule = rule & (chroma >= 13)
    allowed = (rule[0] & possible).astype(np.float32).reshape(_BINS)
    allowed = gaussian_filter(allowed, 0.7)
    return (allowed / (allowed.sum() * _VOLUME)).ravel() + 0.02 * UNIFORM


class BackgroundPlate:
    """The stationary background at every pixel, as far as it has been seen.

    A pixel agrees with the plate when its colour lies within the plate's 3 x 3 neighbourhood, give
    or take noise; darkening without a change of colour is forgiven, for that is a shadow.
    """

    def __init__(
        self, lab: np.ndarray, known: np.ndarray, *, noise=(5.0, 3.0), shadow: float = 16.0
    ):
        """`lab` (H, W, 3) uint8; `known` (H, W) bool, where it shows background."""
        hidden = (~known).astype(np.uint8)
        filled = cv2.inpaint(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB), hidden, 5, cv2.INPAINT_TELEA)
        self._lab = to_lab(filled).astype(np.float32)
        self._lab[known] = lab[known]
        self.trust = known.astype(np.float32)
        """(H, W): 1 where the background has been seen, 0 where it is guessed."""
        self._noise, self._shadow = noise, shadow
        self._general = ColourModel(colour_bins(lab)[known], outliers=0.3)

    def deviation2(self, lab: np.ndarray) -> np.ndarray:
        """(H, W) float32 squared deviation from the plate, in standard deviations."""
        x = lab.astype(np.float32)
        kernel = np.ones((3, 3), np.uint8)
        above = x - cv2.dilate(self._lab, kernel)
        below = cv2.erode(self._lab, kernel) - x
        off = np.maximum(np.maximum(above, below), 0)
        loose = 1 + 1.5 * (1 - self.trust)
        s_light = np.where(below[..., 0] > 0, self._shadow, self._noise[0]) * loose
        s_col = self._noise[1] * loose
        return (off[..., 0] / s_light) ** 2 + (off[..., 1] ** 2 + off[..., 2] ** 2) / s_col**2

    def density(self, lab: np.ndarray, bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) density of the background and (H, W) squared deviation from the plate."""
        d2 = self.deviation2(lab)
        loose = 1 + 1.5 * (1 - self.trust)
        volume = (2 * np.pi) ** 1.5 * self._noise[0] * self._noise[1] ** 2 * loose**3 * 4
        # Gloss and reflections tint the background a little: a broad tail allows for that.
        near = (0.9 * np.exp(-0.5 * np.minimum(d2, 60)) + 0.1 / 27 * np.exp(-d2 / 18)) / volume
        general = self._general.density(bins)
        # Where the place has been seen, the scene's other colours hardly ever turn up there.
        share = 0.02 + 0.28 * (1 - self.trust)
        return (1 - share) * near + share * general, d2

    def learn(self, lab: np.ndarray, sure: np.ndarray, *, rate: float = 0.06) -> None:
        """Follow slow changes of light where `sure` (H, W) bool shows background."""
        r = np.where(self.trust > 0.5, rate, 0.35) * sure
        self._lab += r[..., None] * (lab - self._lab)
        self.trust += r * (1 - self.trust)
