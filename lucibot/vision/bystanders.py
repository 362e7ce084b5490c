"""What comes in over the picture's border and is no hand: it stands where it came to, and does nothing.

Whatever hangs together with the border may be a hand, of any colour. A thing that somebody has put, or
a video model has invented, at the border does so too. It is told by what it does: it is alone and
still for a while, looks like nothing of what the hand shows elsewhere, no hand model ever sees a hand in
it, and the hand reaches the objects without it.
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.vision.appearance import UNIFORM, ColourModel, colour_bins
from lucibot.vision.hands import HAND_SEEN, border_of, held_from_outside
from lucibot.vision.scene_model import HAND, LIT, SHADED, UNKNOWN, as_bytes, grown, relit

STILL_S = 0.6
"""How long it must stand alone [s]."""
ALIKE = 10.0
"""Difference in look from one sample to the next that is none [CIE76]."""
LEAST = 0.0012
"""Least share of the picture that it covers."""
ALONE = 0.75
"""Share of a part of the hand layer that is still, where nothing in it moves."""
HANDS_OWN = 0.12
"""Share of it that may be in the hand's colours."""
WITHOUT = 0.3
"""Share of the samples with a hand in which that comes in without it and is at an object."""
TOUCHES = 12
"""Least pixels of a hand that are at an object."""
SEEN = 0.1
"""Share of it that a hand model may take for a hand, as it reaches over it."""


def without_bystanders(
    labels: np.ndarray, lab: np.ndarray, certain: np.ndarray, seconds: np.ndarray
) -> np.ndarray:
    """Labels (K, h, w) in which what only stands at the border is `UNKNOWN` instead of `HAND`.

    Args:
        lab: (K, h, w, 3) float32 CIE Lab, light-compensated.
        certain: (K, h, w) bool, what a hand model takes for hands.
        seconds: (K,) [s] of the samples.
    """
    for still, k in _still(labels, lab, seconds):
        there = _seen(labels, lab, still, k)
        if _is_hand(labels, lab, certain, still, there):
            continue
        labels = labels.copy()
        around = grown(still, 5)
        for found, alike in zip(labels, there, strict=True):
            hand = found == HAND
            found[hand & grown(alike, 3) & around] = UNKNOWN
            # While it comes in, and at its blurred edge, it looks otherwise.
            _, parts = cv2.connectedComponents((found == HAND).astype(np.uint8))
            size = np.bincount(parts.ravel())
            within = np.bincount(parts[around], minlength=len(size)) >= 0.9 * size
            within[0] = False
            found[within[parts]] = UNKNOWN
    return labels


def _still(labels: np.ndarray, lab: np.ndarray, seconds: np.ndarray):
    """Parts (h, w) bool of the hand layer that stand still at the border, alone or while the rest of
    it moves, each with the sample of the longest such stay that shows most of it."""
    h, w = labels.shape[1:]
    border = border_of((h, w))
    since = np.zeros((h, w), np.float32)
    best: list[tuple[float, np.ndarray, int]] = []
    for k in range(1, len(labels)):
        hand = labels[k] == HAND
        alike = np.linalg.norm(lab[k] - lab[k - 1], axis=-1) < ALIKE
        since = np.where(
            hand & (labels[k - 1] == HAND) & alike, since + seconds[k] - seconds[k - 1], 0
        ).astype(np.float32)
        stays = since >= STILL_S
        if stays.sum() < LEAST * stays.size:
            continue
        _, parts, stats, _ = cv2.connectedComponentsWithStats(hand.astype(np.uint8))
        for p in np.unique(parts[stays & border]):
            part = parts == p
            still = part & stays
            if _opened(part & ~grown(still, 5)).any():
                found = _at(border, _opened(still))
            elif still.sum() >= ALONE * stats[p, cv2.CC_STAT_AREA]:
                found = [still]
            else:
                continue
            best += [
                (float(np.median(since[f])), f, k) for f in found if f.sum() >= LEAST * part.size
            ]
    out: list[tuple[np.ndarray, int]] = []
    for _, still, k in sorted(best, key=lambda b: -b[0]):
        if not any(_same(lab, still, k, *other) for other in out):
            out.append((still, k))
    return [_fullest(labels, lab, still, k) for still, k in out]


def _at(border: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    """The connected parts of `mask` (h, w) that reach the border, (h, w) bool each."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return [parts == p for p in np.unique(parts[border & (mask > 0)])]


def _same(lab: np.ndarray, still: np.ndarray, k: int, other: np.ndarray, then: int) -> bool:
    """Whether two things that stood still, at samples `k` and `then`, are one."""
    both = still & other
    if both.sum() <= 0.5 * min(still.sum(), other.sum()):
        return False
    return bool(np.median(np.linalg.norm(lab[k][both] - lab[then][both], axis=-1)) < ALIKE)


def _fullest(
    labels: np.ndarray, lab: np.ndarray, still: np.ndarray, k: int
) -> tuple[np.ndarray, int]:
    """What has stood still up to sample `k`, (h, w) bool, and the sample of that stay in which most of
    it is seen: later something may come before it."""
    best, when, born = still, k, ColourModel(colour_bins(as_bytes(lab[k][still][None]))[0])
    for j in range(k, -1, -1):
        if np.median(np.linalg.norm(lab[j][still] - lab[k][still], axis=-1)) >= ALIKE:
            break
        own = born.density(colour_bins(as_bytes(lab[j]))) > UNIFORM
        _, parts = cv2.connectedComponents((still | (own & (labels[j] == HAND))).astype(np.uint8))
        all_of_it = np.isin(parts, np.unique(parts[still]))
        if all_of_it.sum() > best.sum():
            best, when = all_of_it, j
    return best, when


def _seen(labels: np.ndarray, lab: np.ndarray, still: np.ndarray, k: int) -> np.ndarray:
    """(K, h, w) bool: where what stood still at sample k is to be seen as it was then,
    or in the shade."""
    out = np.zeros(labels.shape, bool)
    ratio, hue = relit(lab[:, still], lab[k][still])
    alike = (hue < ALIKE) & (ratio > SHADED) & (ratio < LIT)
    out[:, still] = alike & (labels[:, still] == HAND)
    return out


def _is_hand(
    labels: np.ndarray, lab: np.ndarray, certain: np.ndarray, still: np.ndarray, there: np.ndarray
) -> bool:
    area, around = still.sum(), grown(still, 9)
    seen = there[:, still]
    if (certain[:, still] & seen).sum(1).max() > SEEN * area:
        return True
    others = (labels == HAND) & ~around
    enough = others.sum((1, 2)) >= HAND_SEEN * still.size
    if not enough.any():
        # All that is seen of a hand: the rest of it may look like the shaded table.
        return True
    border, alone = border_of(still.shape), []
    for k in np.flatnonzero(enough):
        known = (labels[k] > 0) & (labels[k] < HAND)
        held = held_from_outside(others[k], border, known)
        alone.append((held & grown(known, 5)).sum() >= TOUCHES)
    if np.mean(alone) < WITHOUT:
        return True
    model = ColourModel(colour_bins(as_bytes(lab[others][None]))[0], outliers=0.05, shading=0.15)
    shown = there.reshape(len(there), -1).sum(1).argmax()
    own = colour_bins(as_bytes(lab[shown][still][None]))[0]
    return bool((model.density(own) > UNIFORM).mean() > HANDS_OWN)


def _opened(mask: np.ndarray) -> np.ndarray:
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
