"""What is poured into a vessel, in colours that nobody has seen of it before.

A first frame may show no more of a drink than a can's opening. In the vessel it then passes for a hand,
for it hangs together with one across the can, or for a new object. As a hand is what comes in over the
picture's border, so a hand in a vessel comes in over the rim. What does not, and fills the
vessel from where the fluid's own vessel was, and stays, is the fluid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from lucibot.vision.appearance import ColourModel, colour_bins
from lucibot.vision.scene_model import (
    CHROMA,
    DARKEST,
    HAND,
    LIT,
    UNKNOWN,
    as_bytes,
    grown,
    relit,
)

LEAST = 0.0012
"""Least share of the picture that a pool covers in the end."""
WITHIN = 0.75
"""Share of a part from which on it lies in a vessel and does not reach into it."""
STAYS_S = 0.6
"""How long it must be there in the end [s]."""
USUALLY = 0.7
"""Share of these samples in which it is there."""
NEAR = 0.1
"""How near the fluid or what held it is, as the vessel begins to fill [picture widths]."""
AWAY = 0.1
"""How far from all objects what passes for a hand is one for certain [picture widths]."""
UNLIKE = np.log(5.0)
"""How much less likely the hand's colours must make it than they make a hand [nats]."""
SEEN = 0.1
"""Share of it that a hand model may take for a hand."""
DIFFERS = 0.5
"""Share of it that is not the vessel in another light."""


def with_poured(
    labels: np.ndarray, lab: np.ndarray, certain: np.ndarray, seconds: np.ndarray,
    fluids: Iterable[int], vessels: Sequence[np.ndarray],
) -> np.ndarray:  # fmt: skip
    """Labels (K, h, w) in which what was poured is the fluid's.

    Args:
        lab: (K, h, w, 3) float32 CIE Lab, light-compensated.
        certain: (K, h, w) bool, what a hand model takes for hands.
        seconds: (K,) [s] of the samples.
        fluids: labels of objects that flow.
        vessels: (h, w) bool each: what stands still and may hold a fluid.
    """
    for fluid in fluids:
        first = labels[0] == fluid
        sources = [i for i in np.unique(labels[0][grown(first, 5)]) if 0 < i < HAND]
        for vessel in vessels:
            # What holds it at first is no place where it comes to.
            if not (vessel & first).any():
                pools = _pools(labels, lab, certain, seconds, vessel, sources)
                labels = np.where(pools, np.uint8(fluid), labels)
    return labels


def _pools(
    labels: np.ndarray, lab: np.ndarray, certain: np.ndarray, seconds: np.ndarray,
    vessel: np.ndarray, sources: list[int],
) -> np.ndarray:  # fmt: skip
    """(K, h, w) bool: what fills a vessel (h, w) from its beginning to the end of the video."""
    out = np.zeros(labels.shape, bool)
    last = seconds > seconds[-1] - STAYS_S
    parts = np.stack([_not_over_rim(x, vessel) for x in labels[last]])
    pool = parts.mean(0) >= USUALLY
    if pool.sum() < LEAST * pool.size or seconds[-1] < STAYS_S:
        return out
    if (certain[last] & pool).sum((1, 2)).max() > SEEN * pool.sum() or _like_hand(
        labels, lab, pool
    ):
        return out
    ratio, hue = relit(lab[-1][pool], lab[0][pool])
    if ((hue > CHROMA) | (ratio < DARKEST) | (ratio > LIT)).mean() < DIFFERS:
        return out
    begun = len(labels) - 1
    for k in range(len(labels) - 1, -1, -1):
        part = _not_over_rim(labels[k], vessel) & grown(pool, 3)
        if part.any():
            out[k], pool, begun = part, part, k
        elif (labels[k][pool] > 0).mean() < DIFFERS:
            break
    near = 2 * round(NEAR * labels.shape[2]) + 1
    begins = slice(begun, begun + int((seconds[begun:] <= seconds[begun] + STAYS_S).sum()))
    beside = np.stack([grown(m, near) for m in out[begins]])
    return out & (np.isin(labels[begins], sources) & beside).any()


def _not_over_rim(labels: np.ndarray, vessel: np.ndarray) -> np.ndarray:
    """(h, w) bool: what is no background and no known object, in a vessel, and hardly goes on
    beyond it."""
    foreign = ((labels == HAND) | (labels == UNKNOWN)).astype(np.uint8)
    foreign = cv2.morphologyEx(foreign, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    _, parts, stats, _ = cv2.connectedComponentsWithStats(foreign)
    inside = np.bincount(parts[vessel], minlength=len(stats))
    lies = inside >= WITHIN * stats[:, cv2.CC_STAT_AREA]
    lies[0] = False
    return lies[parts] & vessel


def _like_hand(labels: np.ndarray, lab: np.ndarray, pool: np.ndarray) -> bool:
    """Whether what is at a pool (h, w) in the end has the colours of what is a hand for certain; it
    does where nothing is."""
    reach = 2 * round(AWAY * labels.shape[2]) + 1
    away = np.stack([(x == HAND) & ~grown((x > 0) & (x < HAND), reach) for x in labels]) & ~pool
    if not away.any():
        return True
    hand = colour_bins(as_bytes(lab[away][None]))[0]
    model = ColourModel(hand, outliers=0.05, shading=0.15)
    own = colour_bins(as_bytes(lab[-1][pool][None]))[0]
    usual, here = (float(np.median(np.log(model.density(bins)))) for bins in (hand, own))
    return here > usual - UNLIKE
