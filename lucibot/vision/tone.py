"""Changes of exposure and colour over a clip, read from the background and taken out.

Video models let exposure, contrast and colours drift, often from the second frame on. What such a change
does is the same wherever the picture shows the same tone: a curve for each channel. It is fitted so that
the background, seen through it, looks as in the first frame. A hand, moved things and their shadows do
not fit any curve that most of the background fits, and have no say.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

WIDTH = 160
"""Pixels across at which curves are fitted: coding and grain average out."""
SAMPLES = 2500
"""Of them are looked at, about."""
KNOTS = np.linspace(0, 255, 9)
"""Tones at which a curve bends."""
STIFF = 0.15
"""Weight of a curve's bends, as a share of the weight of all pixels: gain, offset and contrast come
easily, wiggles do not."""
UPRIGHT = 0.05
"""Weight of slopes other than one, in the same way: a hand's shadow on dark things is no contrast."""
AS_BEFORE = 0.003
"""Weight of the curve of the frame before, which decides where a tone is not seen."""
SCALES = (10.0, 8.0, 6.0, 5.0, 5.0)
"""Differences that still count in the rounds of a fit [of 255]."""
CLIPPED = 6.0
"""Difference from which on a pixel at an end of the scale has been cut off there [of 255]."""
SLOPES = 0.3, 3.0
"""Least and greatest slope of a curve: what is black has nothing in it that could be brought back."""
FEWEST = 0.2
"""Share of the background that must fit a curve; else the frame before's is taken."""
LEAST = 1.0
"""A clip whose curves change no tone that is seen by as much is left as it is [of 255]."""


@dataclass(frozen=True, kw_only=True)
class Tones:
    """What each frame's values are in the light of the first."""

    curves: np.ndarray
    """(T, 3, 256) float32, ascending: channel's value -> value [0, 255]."""
    fitting: np.ndarray
    """(T,) share of the background that fits the curve."""

    @property
    def gain(self) -> np.ndarray:
        """(T,) how bright each frame is, as a share of the first: of the middle tones."""
        values = np.arange(256)
        out = np.empty(len(self.curves))
        for t, curves in enumerate(self.curves):
            # The value that is shown where the first frame has a middle grey.
            out[t] = np.mean([np.interp(128, c + 1e-3 * values, values) for c in curves]) / 128
        return out

    @property
    def change(self) -> float:
        """The largest change of a tone between the darkest and brightest tenth [of 255]."""
        return float(np.abs(self.curves - np.arange(256))[:, :, 26:230].max(initial=0.0))

    def applied(self, frame: np.ndarray, t: int) -> np.ndarray:
        """Frame t (H, W, 3) uint8 in the light of the first."""
        return in_light(frame, self.curves[t])


def in_light(frame: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """A frame (H, W, 3) uint8 through curves (3, 256)."""
    table = np.clip(np.rint(curves), 0, 255).astype(np.uint8)
    return cv2.LUT(frame, np.ascontiguousarray(table.T[None]))


def fit_tones(frames: np.ndarray, background: np.ndarray) -> Tones:
    """Curves that bring each of T frames into the light of the first.

    Args:
        frames: (T, H, W, 3) uint8.
        background: (H, W) bool, where the first frame shows what stands still and is seen.
    """
    height, width = frames.shape[1:3]
    size = (min(WIDTH, width), max(round(height * min(WIDTH, width) / width), 1))
    first = _small(frames[0], size)
    inside = cv2.resize(background.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    inside = cv2.erode(inside, np.ones((3, 3), np.uint8)) > 0
    # Where an edge runs, a shift of a fraction of a pixel looks like another light; what is clipped
    # tells nothing of light.
    blurred = cv2.GaussianBlur(first, (0, 0), 2)
    inside &= np.abs(first - blurred).max(-1) < 12
    identity = np.tile(np.arange(256, dtype=np.float32), (3, 1))
    curves = np.tile(identity, (len(frames), 1, 1))
    fitting = np.ones(len(frames))
    if inside.sum() >= 200:
        chosen = np.flatnonzero(inside)[:: max(1, int(inside.sum()) // SAMPLES)]
        wanted, knots = first.reshape(-1, 3)[chosen], np.tile(KNOTS, (3, 1))
        for t in range(1, len(frames)):
            seen = _small(frames[t], size).reshape(-1, 3)[chosen]
            found, share = _fit(seen, wanted, knots)
            fitting[t] = share
            if share >= FEWEST:
                knots = found
            curves[t] = [np.interp(np.arange(256), KNOTS, k) for k in knots]
    tones = Tones(curves=curves, fitting=fitting)
    if tones.change < LEAST:
        return Tones(curves=np.tile(identity, (len(frames), 1, 1)), fitting=fitting)
    return tones


def _small(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _fit(seen: np.ndarray, wanted: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, float]:
    """Values (3, KNOTS) of the curves that take colours `seen` (n, 3) to `wanted` (n, 3), and the
    share of the pixels that fit.

    Args:
        before: (3, KNOTS) those of the frame before.
    """
    step = KNOTS[1]
    at = np.minimum((seen / step).astype(int), len(KNOTS) - 2)
    part = seen / step - at
    # A pixel at either end of the scale may have been anything beyond it; but black that has stayed
    # black, and white white, hold the ends.
    ends = (np.minimum(seen, wanted) <= 3) | (np.maximum(seen, wanted) >= 252)
    open_ = ~(ends & (np.abs(seen - wanted) > CLIPPED)).any(1)

    def sure_of(knots: np.ndarray, scale: float) -> np.ndarray:
        off = np.stack([_through(knots[c], at[:, c], part[:, c]) for c in range(3)], 1) - wanted
        # Geman and McClure's: far ones do not count at all. A pixel fits in all channels or not.
        return 1 / (1 + ((off / scale) ** 2).max(1)) ** 2 * open_

    # A fit to everything would be drawn towards what does not fit: it starts from what most pixels
    # agree on of what the light may have done, nothing, or the same to all tones.
    off = (wanted + 8) / (seen + 8)
    same = KNOTS + 8
    starts = [before, np.tile(KNOTS, (3, 1))]
    if open_.any():
        starts.append(np.median(off[open_], axis=0)[:, None] * same - 8)
    knots = max(starts, key=lambda k: sure_of(k, SCALES[0]).sum())
    for scale in SCALES:
        sure = sure_of(knots, scale)
        if sure.sum() < 1:
            return before, 0.0
        knots = _solve(at, part, wanted, sure, before)
    return knots, float((sure_of(knots, SCALES[-1]) > 0.25).sum() / max(open_.sum(), 1))


def _through(knots: np.ndarray, at: np.ndarray, part: np.ndarray) -> np.ndarray:
    return knots[at] * (1 - part) + knots[at + 1] * part


_BENDS, _STEPS = (np.diff(np.eye(len(KNOTS)), n, axis=0) for n in (2, 1))
_HELD = STIFF * _BENDS.T @ _BENDS + UPRIGHT * _STEPS.T @ _STEPS + AS_BEFORE * np.eye(len(KNOTS))
_UPWARDS = UPRIGHT * _STEPS.T @ np.diff(KNOTS)


def _solve(at, part, wanted, sure, before) -> np.ndarray:
    """(3, KNOTS) the weighted least squares curves, their bends and their way from `before` (3, KNOTS)
    held back; ascending.

    Args:
        at, part, wanted: (n, 3) the knot below each value seen, how far from there to the next that is,
            and what it should be.
        sure: (n,) weights.
    """
    count, sure = len(KNOTS), sure[:, None]
    channel = count * np.arange(3)
    normal, right = np.zeros((3, count, count)), np.zeros((3, count))
    for i, a in ((0, 1 - part), (1, part)):
        row, weight = channel + at + i, sure * a
        right += _summed(row, weight * wanted, right.shape)
        for j, b in ((0, 1 - part), (1, part)):
            normal += _summed(row * count + at + j, weight * b, normal.shape)
    total = sure.sum()
    normal += total * _HELD
    right += total * (_UPWARDS + AS_BEFORE * before)
    values = np.linalg.solve(normal, right[..., None])[..., 0]
    least, most = SLOPES
    steps = np.clip(np.diff(values), least * KNOTS[1], most * KNOTS[1])
    # Ascending about the tone that is seen most, from which the ends follow.
    seen = _summed(channel + at, np.broadcast_to(sure, at.shape), right.shape)
    middle = seen.argmax(1)[:, None]
    out = np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0)))
    return out - np.take_along_axis(out, middle, 1) + np.take_along_axis(values, middle, 1)


def _summed(bins: np.ndarray, weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.bincount(bins.ravel(), weights.ravel(), int(np.prod(shape))).reshape(shape)
