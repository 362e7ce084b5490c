"""What makes foreign pixels a hand: they hang together with an arm that comes in over the border.

A hand, arm, glove or gripper is no known object and no background, and it is held by something out
of the picture. Nothing here knows what one looks like.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from lucibot.vision.labelling import dilate

STRETCH = 0.03
"""Least stretch of the border that an arm crosses, as a share of the picture's width: a speck of
noise only touches it."""
ARM = 0.0005
"""Least share of the picture that an arm covers."""
HAND_SEEN = 0.004
"""Share of the picture from which on a hand counts as seen."""
FINGER = 0.00016
"""Least share of the picture of a part that is cut off from its arm."""
GAP = 0.1
"""How far from its arm the rest of a hand may lie [picture widths]."""
EDGE_PX = 6
"""How far an arm may end before what hides the rest of it: edges are blurred, and there is shade."""
KEPT = 0.5
"""Share of a part that a hand covered a moment ago from which on it may go on being one."""
PALM = (0, 1, 5, 9, 13, 17)
"""Key points around the palm, the wrist first."""
FINGER_WIDTH = 0.2
"""Width to which fingers are drawn, as a share of the palm's."""
_OPENING = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


def narrow(things: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Those of `things` (H, W) bool that are narrow enough for a hand to show on both sides."""
    return [m for m in things if 0 < np.count_nonzero(m.any(0)) <= 2 * GAP * m.shape[1]]


def border_of(size: tuple[int, int], width_px: int = 3) -> np.ndarray:
    """(H, W) bool: the picture's outermost pixels."""
    out = np.ones(size, bool)
    out[width_px:-width_px, width_px:-width_px] = False
    return out


def covered_by(keypoints_px: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: what a hand with these key points (21, 2) [px] covers at least: palm and fingers.

    The fingers are drawn thin: what they hold must not be taken for them.
    """
    out = np.zeros(size, np.uint8)
    points = np.round(keypoints_px).astype(np.int32)
    palm = np.linalg.norm(keypoints_px[5] - keypoints_px[17])
    cv2.fillConvexPoly(out, cv2.convexHull(points[list(PALM)]), 1)
    thick = max(1, round(FINGER_WIDTH * palm))
    for first in (1, 5, 9, 13, 17):
        cv2.polylines(out, [points[first : first + 4]], False, 1, thick)
    return out > 0


def held_from_outside(
    foreign: np.ndarray,
    border: np.ndarray,
    objects: np.ndarray,
    certain: np.ndarray | None = None,
    posts: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """(H, W) bool: the parts of `foreign` (H, W) bool that are hands.

    Fingers before or behind an object are cut off from their arm; they hang together with it across
    `objects` (H, W) bool, or lie close to it, behind a post or a shadow. Without any arm there is no
    hand: what has stayed of it is something else.

    Args:
        border: (H, W) bool, where an arm may come in.
        certain: (H, W) bool, what a hand model takes for one: it needs no arm.
        posts: (H, W) bool each, narrow things that stand still: a hand goes on beyond one that its arm is at.
    """
    # Mixed colours along an object's edge can pass for a hand, but only as a line.
    core = cv2.morphologyEx(foreign.astype(np.uint8), cv2.MORPH_OPEN, _OPENING) > 0
    foreign = foreign & dilate(core, 1)
    n, labels, stats, _ = cv2.connectedComponentsWithStats(foreign.astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA] / foreign.size
    crossing = np.bincount(labels[border], minlength=n)
    # Of a border three pixels wide.
    arms = (crossing >= 3 * STRETCH * foreign.shape[1]) & (area >= ARM)
    if certain is not None:
        arms |= np.bincount(labels[certain], minlength=n) > 0.25 * certain.sum()
    arms[0] = False
    if not arms.any():
        return np.zeros_like(foreign)
    together = cv2.connectedComponents((foreign | dilate(objects, 2)).astype(np.uint8))[1]
    reached = np.zeros(together.max() + 1, bool)
    reached[np.unique(together[arms[labels]])] = True
    reached[0] = False
    part = arms | (area >= FINGER)
    keep = part[labels] & reached[together]
    apart = ~arms & (area >= ARM)
    apart[0] = False
    if apart.any():
        reach = round(GAP * foreign.shape[1])
        near, at = dilate(arms[labels], reach), dilate(arms[labels], EDGE_PX)
        for post in posts:
            if (post & at).any():
                near |= dilate(post, reach)
        beside = np.zeros(n, bool)
        beside[np.unique(labels[near])] = True
        keep |= (beside & apart)[labels]
    return foreign & keep


def still_held(
    foreign: np.ndarray, before: np.ndarray, differs: np.ndarray, border: np.ndarray
) -> np.ndarray:
    """(H, W) bool: the parts of `foreign` (H, W) bool that go on being hands where no arm is seen any more.

    An arm may get the colours of what is behind it, in the shade. What it held stays held as long as it hangs
    together with the border by whatever `differs` (H, W) bool from the first frame.

    Args:
        before: (H, W) bool, the hand a moment ago, after its motion.
    """
    n, labels, stats, _ = cv2.connectedComponentsWithStats(foreign.astype(np.uint8), connectivity=8)
    stays = np.bincount(labels[before], minlength=n) > KEPT * stats[:, cv2.CC_STAT_AREA]
    stays &= stats[:, cv2.CC_STAT_AREA] >= ARM * foreign.size
    stays[0] = False
    if not stays.any():
        return np.zeros_like(foreign)
    return stays[labels] & held_through(foreign, differs, border)


def held_through(foreign: np.ndarray, differs: np.ndarray, border: np.ndarray) -> np.ndarray:
    """(H, W) bool: the parts of `foreign` (H, W) bool that hang together with the border by whatever `differs`
    (H, W) bool from the first frame: an arm or its shadow."""
    together = cv2.connectedComponents((foreign | differs).astype(np.uint8))[1]
    reached = np.unique(together[border])
    return foreign & np.isin(together, reached[reached > 0])
