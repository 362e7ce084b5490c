"""Does an object move between two moments of a video? By its region, and by what is seen on it."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from lucibot.providers.verifier.hues import Hues
from lucibot.vision.regions import Regions, grown_all, pixels_of
from lucibot.vision.scene_model import HAND, UNKNOWN

APART_S = 0.25, 1.0
"""How far apart two moments are that are compared [s]."""
FEATURES = 60
MOST = 0.6
"""Share of the features whose shifts are covered: a few always stray."""
FAINT = 5e-4
"""Strength of a corner, its structure tensor's smaller eigenvalue, below which it is none: of pixels
mottled by 4 of 255 levels one in a hundred reaches it, and generated textures swim."""
SURE = 4
"""Least number of features that a shift is read from."""


def untouched(touched: np.ndarray, seconds: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Each moment with the earlier ones it can be compared with: nothing touches the object between.

    Args:
        touched: (K,) bool.
        seconds: (K,) [s].
    """
    least, most = APART_S
    for after in range(1, len(touched)):
        touches = np.flatnonzero(touched[: after + 1])
        since = touches[-1] + 1 if len(touches) else 0
        gap = seconds[after] - seconds[since:]
        before = since + np.flatnonzero((gap >= least) & (gap <= most))
        if len(before):
            yield after, before.tolist()


def exchanged(regions: Regions, i: int, before: int, after: int) -> float:
    """The share of object i's region that is exchanged; 0 if too little of it is seen."""
    label, then, now = i + 1, regions.labels[before], regions.labels[after]
    # Pixels that other things cover in either moment, or of which nobody knows, cannot be compared.
    open_ = np.ones(then.shape, bool)
    for seen in (then, now):
        open_ &= (seen == label) | (seen == 0) | (seen == HAND)
    a, b = (then == label) & open_, (now == label) & open_
    if min(a.sum(), b.sum()) < 0.25 * max((regions.labels[0] == label).sum(), 1):
        return 0.0
    # What moves both leaves pixels and takes new ones; a shadow only takes away.
    return float(2 * min((a & ~b).sum(), (b & ~a).sum()) / max((a | b).sum(), 1))


def shifted(regions: Regions, i: int, before: int, after: int, hues: Hues) -> float:
    """How far most of what is seen on object i, in hues that are its own, shifts at most [picture
    widths]; 0 if little is."""
    a, b = (_texture(regions.lab[k, ..., 0]) for k in (before, after))
    inside = (regions.labels[before] == i + 1).astype(np.uint8)
    points = cv2.goodFeaturesToTrack(a, FEATURES, 0.02, 4, mask=inside)
    if points is None:
        return 0.0
    # What may as well be another object's, seen through a hole in its region, tells nothing.
    x, y = points.reshape(-1, 2).astype(int).T
    clear = cv2.cornerMinEigenVal(a, 3, 3)[y, x] > FAINT
    points = points[clear & hues.own(i, regions.lab[before][y, x])]
    if len(points) < SURE:
        return 0.0
    found, ok, _ = cv2.calcOpticalFlowPyrLK(a, b, points, None, winSize=(15, 15), maxLevel=2)
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(b, a, found, None, winSize=(15, 15), maxLevel=2)
    good = (ok & ok_back).ravel() > 0
    good &= np.linalg.norm((back - points).reshape(-1, 2), axis=1) < 0.7
    if good.sum() < SURE:
        return 0.0
    way = np.linalg.norm((found - points).reshape(-1, 2)[good], axis=1)
    return float(np.quantile(way, MOST)) / a.shape[1]


def _texture(lightness: np.ndarray) -> np.ndarray:
    """(h, w) uint8 for (h, w) in [0, 100]: without the soft shadows that pass over things."""
    mean = cv2.GaussianBlur(lightness, (0, 0), 6)
    return np.clip(128 * (lightness + 3) / (mean + 3), 0, 255).astype(np.uint8)


def carried(regions: Regions, i: int, before: int, after: int, hand: np.ndarray) -> bool:
    """Another object that a hand (K, h, w) holds touches object i in between: a tool may push it."""
    part = slice(before, after + 1)
    labels = regions.labels[part]
    near = grown_all(labels == i + 1, 7)
    for label in np.flatnonzero(np.bincount(labels.ravel())):
        if label in (0, i + 1, HAND, UNKNOWN):
            continue
        other = labels == label
        held = pixels_of(other & hand[part]) > 8
        meets = pixels_of(other & near) > 3
        if (held & meets).any():
            return True
    return False
