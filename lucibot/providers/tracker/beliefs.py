"""Which of background, hand and objects each pixel of one frame belongs to."""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.providers.tracker.evidence import Evidence
from lucibot.providers.tracker.objects import Followed, RigidObject
from lucibot.vision.appearance import UNIFORM
from lucibot.vision.labelling import (
    box_around,
    dilate,
    mean_field,
    most_likely,
    signed_distance,
)


def beliefs(
    objects: list[Followed],
    seen: Evidence,
    hand: np.ndarray,
    hosts: dict[int, list[int]],
    handled: list[bool],
) -> np.ndarray:
    """(h, w, 2 + N) probabilities: background, hand, objects.

    Args:
        hand: (h, w) bool, the last frame's hand.
        hosts: of each deformable the rigid objects that it may come out of.
        handled: of each object whether it is a deformable that a hand moves as it likes.
    """
    N, size = len(objects), seen.hand.shape
    unary = np.empty((2 + N, *size), np.float32)
    unary[0] = np.log(seen.open * seen.background + 0.02 * UNIFORM)
    odd = 0.3 * UNIFORM * (seen.deviation > 9)
    unary[1] = np.log(seen.hand + odd) + seen.log_hand
    hidden = np.log(2 * seen.open)
    where = hand.copy()
    nearest = np.full(size, np.inf, np.float32)
    for o in objects:
        if isinstance(o, RigidObject):
            nearest = np.minimum(nearest, o.track.depth)
    for i, (o, parts) in enumerate(zip(objects, seen.parts, strict=True)):
        if isinstance(o, RigidObject):
            density, prior = parts.max(0), np.full(size, -30, np.float32)
            around = box_around(o.track.part >= 0, 8)
            if around is not None:
                part = o.track.part[around]
                shown, nearby = part >= 0, density[around]
                d = signed_distance(shown)
                index = np.maximum(part, 0)[None].astype(int)
                drawn = np.take_along_axis(parts[:, *around], index, 0)[0]
                nearby[shown] = (0.85 * drawn + 0.15 * nearby)[shown]
                expected = np.where(d > 0, np.minimum(0.6 * d, 1.5), 1.6 * d) - 0.7
                # Depth along the ray is weakly known, so it only tips the balance.
                behind = o.track.depth[around][shown] - nearest[around][shown]
                expected[shown] -= np.clip(behind / 0.02, 0, 1.5)
                prior[around] = np.where(d < -4, -30, expected)
                # The inside of a silhouette is not background, whatever it looks like.
                unary[0][around] -= np.clip(2 * d - 3, 0, 6)
                where[around] |= d > -6
            unary[2 + i] = np.log(np.maximum(density, 0.3 * UNIFORM)) + prior + hidden
        else:
            source = np.zeros(size, bool)
            for j in hosts[i]:
                source |= dilate(objects[j].track.part >= 0, 4)
            if handled[i]:
                own = parts[0]
                source |= (own > 8 * seen.background) & (own > 2 * seen.hand) & (own > 8 * UNIFORM)
            prior = o.log_prior(source)
            unary[2 + i] = np.log(np.maximum(parts[0], 0.1 * UNIFORM)) + prior + hidden
            where |= dilate(o.whole > 0.5, 6) | source
    where |= unary.argmax(0) > 0
    return mean_field(unary, seen.lab, where)


def without_holes(belief: np.ndarray, objects: list[Followed]) -> np.ndarray:
    """(h, w) classes, after closing small holes in rigid objects whose meshes have none there, in
    `belief` (h, w, 2 + N) as well.

    Shading inside a cup can look like another cup or the table. A hole that shows a hand, or
    most of what is seen of another object, stays open.
    """
    label = most_likely(belief)
    for i, o in enumerate(objects):
        if not isinstance(o, RigidObject):
            continue
        around = box_around(label == 2 + i, 1)
        if around is None:
            continue
        here, drawn = label[around], o.track.part[around] >= 0
        mine = here == 2 + i
        area, (height, width) = int(mine.sum()), mine.shape
        n, parts, stats, _ = cv2.connectedComponentsWithStats(
            (~mine).astype(np.uint8), connectivity=4
        )
        for k in range(1, n):
            x, y, w, h, size = stats[k]
            if size > 0.2 * area or x == 0 or y == 0 or x + w == width or y + h == height:
                continue
            hole = parts == k
            counts = np.bincount(here[hole], minlength=belief.shape[-1])
            what = int(counts.argmax())
            if what == 1 or drawn[hole].mean() < 0.9:
                continue
            if what >= 2 and counts[what] > 0.3 * (label == what).sum():
                continue
            here[hole] = 2 + i
            belief[around][hole] = 0
            belief[around][hole, 2 + i] = 1
    return label
