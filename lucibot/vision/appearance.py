"""Colour models: what a pixel's colour says about the thing it shows.

All models give densities over 8-bit Lab space (per unit volume), so they can be compared. Colours
are binned once per frame; a model is then one table look-up.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

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

    The colours it was born with keep 40% of the weight however much is learned later, so that a
    slow leak cannot carry it away.
    """

    def __init__(
        self,
        bins: np.ndarray,
        *,
        sigma=(1.5, 1.2, 1.2),
        outliers: float = 0.02,
        shading: float = 0.0,
    ):
        """`bins`: colours it is born with; `outliers`: share of pixels of any colour; `shading`:
        share of pixels that are much lighter or darker than any seen, as when an object turns."""
        self._sigma, self._outliers, self._shading = sigma, outliers, shading
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
            table = counts if self._born.sum() == 0 else 0.4 * self._born + 0.6 * counts
        if self._shading > 0:
            dim = gaussian_filter1d(table.reshape(_BINS), 5.0, axis=0, mode="constant").ravel()
            table = (1 - self._shading) * table + self._shading * dim
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


def any_colour() -> ColourModel:
    """Of a thing of which no colour has been seen."""
    return ColourModel(np.zeros(0, np.int64), outliers=1.0)


_IN_SHADOW = 5.0
"""Darkening [Lab units] beyond which a place lies in a shadow."""


class BackgroundPlate:
    """The stationary background at every pixel, as far as it has been seen.

    A pixel agrees with the plate when its colour lies within the plate's 3 x 3 neighbourhood, give
    or take noise, which is measured place by place as the video goes on; darkening without a change
    of colour is forgiven, for that is a shadow. Shadows that stay are learned, but what lay there
    before them is kept: it comes back with the light.
    """

    def __init__(self, lab: np.ndarray, known: np.ndarray, *, shadow: float = 16.0):
        """`lab` (H, W, 3) uint8; `known` (H, W) bool, where it shows background."""
        hidden = (~known).astype(np.uint8)
        filled = cv2.inpaint(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB), hidden, 5, cv2.INPAINT_TELEA)
        self._lab = to_lab(filled).astype(np.float32)
        self._lab[known] = lab[known]
        self._lit = self._lab.copy()
        self.trust = known.astype(np.float32)
        """(H, W): 1 where the background has been seen, 0 where it is guessed."""
        self._shadow = shadow
        self._power = np.empty((*known.shape, 2), np.float32)
        self._power[...] = (3.0**2, 2.0**2)
        self._general = ColourModel(colour_bins(lab)[known], outliers=0.3)
        self._settle()

    def _settle(self) -> None:
        """What follows from what was learned: each pixel's neighbourhood (H, W, 3), and (H, W) standard
        deviations of lightness and colour, wider where nothing was seen."""
        kernel = np.ones((3, 3), np.uint8)
        self._most = cv2.dilate(np.maximum(self._lab, self._lit), kernel)
        self._least = cv2.erode(np.minimum(self._lab, self._lit), kernel)
        loose = 1 + 1.5 * (1 - self.trust)
        sigma = np.sqrt(self._power)
        self._light = np.clip(1.5 * sigma[..., 0] + 1.0, 2.0, 6.0) * loose
        self._colour = np.clip(1.5 * sigma[..., 1] + 0.7, 1.2, 3.5) * loose

    def _off(self, x: np.ndarray, at=...) -> tuple[np.ndarray, np.ndarray]:
        """How far (..., 3) Lab lies outside the plate's neighbourhood, and whether it is darker."""
        above, below = x - self._most[at], self._least[at] - x
        return np.maximum(np.maximum(above, below), 0), below[..., 0] > 0

    def density(self, lab: np.ndarray, bins: np.ndarray, at=...) -> tuple[np.ndarray, np.ndarray]:
        """Density of the background and squared deviation from the plate of pixels `lab` (..., 3) in
        `bins` (...), which are those of the picture `at` an index: all, (H, W), by default."""
        off, darker = self._off(lab.astype(np.float32), at)
        light, colour = self._light[at], self._colour[at]
        chroma2 = off[..., 1] ** 2 + off[..., 2] ** 2
        dark2 = (off[..., 0] / np.where(darker, self._shadow, light)) ** 2
        d2 = dark2 + chroma2 / colour**2
        lit2 = (off[..., 0] / light) ** 2 + chroma2 / colour**2
        # Gloss and reflections tint the background a little: a broad tail allows for that.
        tail2 = dark2 / 9 + chroma2 / 9.0**2
        volume = (2 * np.pi) ** 1.5 * 4
        near = 0.7 * np.exp(-0.5 * np.minimum(lit2, 80)) / (volume * light * colour**2)
        near += 0.25 * np.exp(-0.5 * np.minimum(d2, 80)) / (volume * self._shadow / 2 * colour**2)
        near += 0.05 * np.exp(-0.5 * np.minimum(tail2, 80)) / (volume * self._shadow * 9.0**2)
        general = self._general.density(bins)
        # Where the place has been seen, the scene's other colours hardly ever turn up there.
        share = 0.02 + 0.28 * (1 - self.trust[at])
        return (1 - share) * near + share * general, d2

    def learn(self, lab: np.ndarray, sure: np.ndarray, *, rate: float = 0.06) -> None:
        """Follow slow changes of light where `sure` (H, W) bool shows background."""
        x = lab.astype(np.float32)
        off, darker = self._off(x)
        power = np.stack(
            [np.where(darker, 0, off[..., 0] ** 2), 0.5 * (off[..., 1:] ** 2).sum(-1)], -1
        )
        weight = cv2.blur(sure.astype(np.float32), (9, 9))
        local = cv2.blur(power * sure[..., None], (9, 9)) / np.maximum(weight, 1e-3)[..., None]
        step = 0.1 * (weight > 0.3)[..., None]
        self._power += step * (local - self._power)
        r = np.where(self.trust > 0.5, rate, 0.35) * sure
        self._lab += r[..., None] * (x - self._lab)
        lit = r * (self._lit[..., 0] - x[..., 0] < _IN_SHADOW)
        self._lit += lit[..., None] * (x - self._lit)
        self.trust += r * (1 - self.trust)
        self._settle()

    def new_edges(self, lab: np.ndarray) -> np.ndarray:
        """(H, W) float32 in [0, 1]: strength of edges that the background does not have there."""
        old = cv2.dilate(_gradient(self._lab), np.ones((5, 5), np.uint8))
        return np.clip((_gradient(lab.astype(np.float32)) - 1.2 * old - 2.0) / 8.0, 0, 1)


def _gradient(lab: np.ndarray) -> np.ndarray:
    """(H, W) size of the colour gradient [Lab units a pixel]."""
    gx, gy = cv2.Sobel(lab, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(lab, cv2.CV_32F, 0, 1) / 8
    return np.sqrt((gx**2 + gy**2).sum(-1)) * 2
