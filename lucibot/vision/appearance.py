"""Colour models: what a pixel's colour says about the thing it shows.

All models give densities over 8-bit Lab space (per unit volume), so they can be compared. Colours
are binned once per frame; a model is then one table look-up.
"""

from __future__ import annotations

import cv2
import numba
import numpy as np

_BINS = (32, 64, 64)
"""Lightness is binned more coarsely than colour: shading changes it most."""
_STEP = tuple(256 // b for b in _BINS)
_VOLUME = float(np.prod(_STEP))
UNIFORM = 1.0 / (256 * 160 * 160)
"""Density of a colour about which nothing is known (most of Lab space is never seen)."""


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB to 8-bit Lab."""
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)


def cie_lab(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB to float32 CIE Lab."""
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


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
        smooth = _blurred(counts, self._sigma)
        return smooth / smooth.sum()

    def _mix(self) -> np.ndarray:
        table = self._born
        total = self._learned.sum()
        if total > 0:
            counts = _blurred((self._learned / total).astype(np.float32), self._sigma)
            table = counts if self._born.sum() == 0 else 0.4 * self._born + 0.6 * counts
        if self._shading > 0:
            dim = _along_lightness(table, 5.0, 4.0, cv2.BORDER_CONSTANT)
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


def _blurred(table: np.ndarray, sigma: tuple[float, float, float]) -> np.ndarray:
    """`table` (bins,) after a Gaussian blur of `sigma` bins along lightness and both colours."""
    light, *colour = sigma
    kernels = [_gaussian(s, 2.5) for s in colour]
    planes = [
        cv2.sepFilter2D(plane, -1, kernels[1], kernels[0], borderType=cv2.BORDER_REPLICATE)
        for plane in table.reshape(_BINS)
    ]
    return _along_lightness(np.stack(planes), light, 2.5, cv2.BORDER_REPLICATE)


def _along_lightness(table: np.ndarray, sigma: float, reach: float, border: int) -> np.ndarray:
    """`table` (bins,) after a Gaussian blur along lightness, cut off at `reach` times `sigma`."""
    rows = table.reshape(_BINS[0], -1)
    return cv2.sepFilter2D(rows, -1, np.ones(1), _gaussian(sigma, reach), borderType=border).ravel()


def _gaussian(sigma: float, reach: float) -> np.ndarray:
    return cv2.getGaussianKernel(2 * int(reach * sigma + 0.5) + 1, sigma)


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
        self._light, self._colour = (np.empty_like(self.trust) for _ in range(2))
        _tolerances(self._power, self.trust, self._light, self._colour)

    def density(self, lab: np.ndarray, bins: np.ndarray, at=...) -> tuple[np.ndarray, np.ndarray]:
        """Density of the background and squared deviation from the plate of pixels `lab` (..., 3) in
        `bins` (...), which are those of the picture `at` an index: all, (H, W), by default."""
        out, deviation = (np.empty(bins.shape, np.float32) for _ in range(2))
        _agreement(
            lab.reshape(-1, 3), self._most[at].reshape(-1, 3), self._least[at].reshape(-1, 3),
            self._light[at].ravel(), self._colour[at].ravel(), self.trust[at].ravel(),
            self._general.density(bins).ravel(), self._shadow, out.reshape(-1),
            deviation.reshape(-1),
        )  # fmt: skip
        return out, deviation

    def learn(self, lab: np.ndarray, sure: np.ndarray, *, rate: float = 0.06) -> None:
        """Follow slow changes of light where `sure` (H, W) bool shows background."""
        power = np.empty((*sure.shape, 2), np.float32)
        _deviations(lab, self._most, self._least, sure, power)
        seen = cv2.blur(sure.astype(np.float32), (9, 9))
        _follow(
            lab, sure, rate, seen, cv2.blur(power, (9, 9)), self._lab, self._lit, self._power, self.trust
        )  # fmt: skip
        self._settle()

    def new_edges(self, lab: np.ndarray) -> np.ndarray:
        """(H, W) float32 in [0, 1]: strength of edges that the background does not have there."""
        old = cv2.dilate(_gradient(self._lab), np.ones((5, 5), np.uint8))
        return np.clip((_gradient(lab.astype(np.float32)) - 1.2 * old - 2.0) / 8.0, 0, 1)


def _gradient(lab: np.ndarray) -> np.ndarray:
    """(H, W) size of the colour gradient [Lab units a pixel]."""
    gx, gy = (cv2.Sobel(lab, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) for dx in (1, 0))
    return 2 * np.sqrt(cv2.transform(gx * gx + gy * gy, np.ones((1, 3), np.float32)))


_pixelwise = numba.njit(cache=True, nogil=True, error_model="numpy")
"""For what is asked of every pixel: numpy would write a picture for each operation."""


@_pixelwise
def _off(value, most, least):
    """How far a value lies outside of its place's neighbourhood."""
    return max(value - most, least - value, 0.0)


@_pixelwise
def _agreement(lab, most, least, light, colour, trust, general, shadow, out, deviation):
    """See `BackgroundPlate.density`; P pixels."""
    volume = (2 * np.pi) ** 1.5 * 4
    for p in range(len(out)):
        off = _off(lab[p, 0], most[p, 0], least[p, 0])
        a, b = _off(lab[p, 1], most[p, 1], least[p, 1]), _off(lab[p, 2], most[p, 2], least[p, 2])
        chroma2, colour2 = a * a + b * b, colour[p] * colour[p]
        dark2 = (off / (shadow if lab[p, 0] < least[p, 0] else light[p])) ** 2
        d2 = dark2 + chroma2 / colour2
        near, darker, glossy = 0.7, 0.25, 0.05
        if off > 0 or chroma2 > 0:
            lit2 = (off / light[p]) ** 2 + chroma2 / colour2
            # Gloss and reflections tint the background a little: a broad tail allows for that.
            tail2 = dark2 / 9 + chroma2 / 9**2
            near *= np.exp(-0.5 * min(lit2, 80))
            darker *= np.exp(-0.5 * min(d2, 80))
            glossy *= np.exp(-0.5 * min(tail2, 80))
        near /= volume * light[p] * colour2
        near += darker / (volume * shadow / 2 * colour2) + glossy / (volume * shadow * 9**2)
        # Where the place has been seen, the scene's other colours hardly ever turn up there.
        share = 0.02 + 0.28 * (1 - trust[p])
        out[p], deviation[p] = (1 - share) * near + share * general[p], d2


@_pixelwise
def _deviations(lab, most, least, sure, power):
    """Squared deviations (H, W, 2) in lightness, shadows left out, and colour, where `sure`."""
    for y in range(lab.shape[0]):
        for x in range(lab.shape[1]):
            power[y, x, 0] = power[y, x, 1] = 0
            if sure[y, x]:
                power[y, x, 0] = max(lab[y, x, 0] - most[y, x, 0], 0.0) ** 2
                for c in (1, 2):
                    off = _off(lab[y, x, c], most[y, x, c], least[y, x, c])
                    power[y, x, 1] += 0.5 * off * off


@_pixelwise
def _follow(lab, sure, rate, seen, power, plate, lit, noise, trust):
    """Move what is known of each place towards what is `sure` to be background there.

    Args:
        seen: (H, W) share of a place's surroundings that is sure.
        power: (H, W, 2) mean squared deviations there, what is not sure counting as none.
        plate, lit, noise, trust: see `BackgroundPlate`; changed.
    """
    for y in range(lab.shape[0]):
        for x in range(lab.shape[1]):
            if seen[y, x] > 0.3:
                for c in range(2):
                    noise[y, x, c] += 0.1 * (power[y, x, c] / seen[y, x] - noise[y, x, c])
            if sure[y, x]:
                r = rate if trust[y, x] > 0.5 else 0.35
                shaded = lit[y, x, 0] - lab[y, x, 0] >= _IN_SHADOW
                for c in range(3):
                    plate[y, x, c] += r * (lab[y, x, c] - plate[y, x, c])
                    if not shaded:
                        lit[y, x, c] += r * (lab[y, x, c] - lit[y, x, c])
                trust[y, x] += r * (1 - trust[y, x])


@_pixelwise
def _tolerances(noise, trust, light, colour):
    """Standard deviations (H, W) of lightness and colour, wider where nothing was seen."""
    for y in range(trust.shape[0]):
        for x in range(trust.shape[1]):
            loose = 1 + 1.5 * (1 - trust[y, x])
            light[y, x] = loose * min(max(1.5 * np.sqrt(noise[y, x, 0]) + 1.0, 2.0), 6.0)
            colour[y, x] = loose * min(max(1.5 * np.sqrt(noise[y, x, 1]) + 0.7, 1.2), 3.5)
