"""Fades and flicker within a clip, read from small pictures of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from einops import rearrange

from lucibot.vision.spans import runs

BLOCK = 8
"""Side of the places whose contrast is measured [pixels of a small picture]."""
GONE = 0.6
"""Contrast, as a share of what it usually is, below which a picture has faded."""
WHOLE = 0.9
"""From here on a fade is over."""
FLICKERS = 0.02
"""Share of the brightness by which pictures must differ from their neighbours to flicker."""


@dataclass(frozen=True, kw_only=True)
class Fades:
    out: int | None
    """The first picture of a fade that lasts to the end; None without one."""
    between: tuple[tuple[int, int, float], ...]
    """Fades with whole pictures on both sides: the first picture, the first after it, and the least
    contrast, as a share of what it usually is."""
    flicker: float
    """How much the brightness of every fourth picture at least differs from its neighbours', as a
    share; 0 where fewer do."""


def find_fades(pictures: np.ndarray) -> Fades:
    """What fades in pictures (n, h, w) uint8, small, from one that is whole on.

    A fade takes contrast away everywhere at once: the middle over places tells it, and a hand that
    comes in covers a few of them only.
    """
    # One by one: all of them as numbers of four bytes are as much as the clip.
    local = np.stack([_contrast(p) for p in pictures])
    usual = np.median(local, axis=0)
    telling = usual >= max(np.median(usual), 1.0)
    flicker = _flicker(pictures)
    if not telling.any():
        return Fades(out=None, between=(), flicker=flicker)
    share = np.median(local[:, telling] / usual[telling], axis=1)
    out, between = None, []
    for a, b in runs(share < GONE):
        while a > 0 and share[a - 1] < WHOLE:
            a -= 1
        while b < len(share) and share[b] < WHOLE:
            b += 1
        if b == len(share):
            out = max(a, 1)
        elif a > 0 and (not between or between[-1][0] != a):
            between.append((a, b, float(share[a:b].min())))
    return Fades(out=out, between=tuple(between), flicker=flicker)


def _contrast(picture: np.ndarray) -> np.ndarray:
    """(places,) standard deviation of the brightness in each place of a picture (h, w)."""
    h, w = (s - s % BLOCK for s in picture.shape)
    places = rearrange(
        picture[:h, :w].astype(np.float32), "(i a) (j b) -> (i j) (a b)", a=BLOCK, b=BLOCK
    )
    return places.std(-1)


def _flicker(pictures: np.ndarray) -> float:
    """Flicker goes up and down from picture to picture, all over; motion and fades do not."""
    if len(pictures) < 8:
        return 0.0
    bright = pictures.reshape(len(pictures), -1)
    off = np.array([
        abs(np.median((now + 8.0) / (0.5 * (a + 8.0 + (b + 8.0)))) - 1)
        for a, now, b in zip(bright, bright[1:], bright[2:], strict=False)
    ])  # fmt: skip
    found = float(np.quantile(off, 0.75))
    return found if found >= FLICKERS else 0.0
