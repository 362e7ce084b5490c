"""Finger tips from the hand's outline: no network, no weights.

Seen from where the arm enters the picture, finger tips are the places where the hand reaches
farthest: local maxima of the distance along the outline. Only those at the touched object count.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lucibot.providers.hand.base import Hand


@dataclass(frozen=True, kw_only=True)
class SilhouetteHand:
    """Reads finger tips from the hand layer."""

    near_share: float = 0.04
    """A tip is at the object when it is nearer than this share of the picture's width."""
    apart_share: float = 0.02
    """Two tips are farther apart than this share of the picture's width."""
    least_share: float = 1e-3
    """A smaller share of the picture is no hand."""

    def create(self) -> _Silhouette:
        return _Silhouette(self)


class _Silhouette:
    def __init__(self, config: SilhouetteHand):
        self.config = config

    def detect(
        self, frame: np.ndarray, hand_mask: np.ndarray, contact_mask: np.ndarray
    ) -> list[Hand]:
        """See `HandDetector`."""
        h, w = hand_mask.shape
        if not contact_mask.any():
            return []
        to_object = cv2.distanceTransform((~contact_mask).astype(np.uint8), cv2.DIST_L2, 5)
        count, part = cv2.connectedComponents(hand_mask.astype(np.uint8))
        hands = []
        for k in range(1, count):
            one = part == k
            if one.sum() < self.config.least_share * h * w:
                continue
            tips = self._tips(one, to_object)
            if len(tips):
                reach = to_object[tips[:, 1].astype(int), tips[:, 0].astype(int)]
                score = float(np.clip(1 - reach.mean() / (self.config.near_share * w), 0, 1))
                hands.append(Hand(tips_px=tips.astype(np.float32), score=score))
        return sorted(hands, key=lambda hand: -hand.score)

    def _tips(self, hand: np.ndarray, to_object: np.ndarray) -> np.ndarray:
        """(F, 2) pixel coordinates of at most five tips."""
        h, w = hand.shape
        near, apart = self.config.near_share * w, self.config.apart_share * w
        found, _ = cv2.findContours(hand.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        line = max(found, key=len)[:, 0].astype(float)
        reach = np.linalg.norm(line - _entry(hand), axis=1)
        size = max(3, round(apart) | 1)
        wrapped = np.concatenate([reach[-size:], reach, reach[:size]])
        smooth = np.convolve(wrapped, np.ones(size) / size, "same")[size:-size]
        inside = (line > 1).all(1) & (line[:, 0] < w - 2) & (line[:, 1] < h - 2)
        close = to_object[line[:, 1].astype(int), line[:, 0].astype(int)] < near
        order = np.argsort(-smooth)
        tips: list[np.ndarray] = []
        rolled = [np.roll(smooth, s) for s in range(-size, size + 1)]
        peak = smooth >= np.max(rolled, axis=0) - 1e-9
        for at in order[(peak & inside & close)[order]]:
            if all(np.linalg.norm(line[at] - t) > apart for t in tips):
                tips.append(line[at])
        if not tips and (inside & close).any():
            # No finger stands out: the hand's nearest point to the object is where it touches.
            at = np.flatnonzero(inside & close)
            gap = to_object[line[at, 1].astype(int), line[at, 0].astype(int)]
            tips.append(line[at[int(gap.argmin())]])
        return np.array(tips[:5]).reshape(-1, 2) + 0.5


def _entry(hand: np.ndarray) -> np.ndarray:
    """(2,) where the arm comes in: the middle of the hand's pixels at the border, or, for a hand
    that floats, the pixel farthest from its middle."""
    h, w = hand.shape
    v, u = np.nonzero(hand)
    border = (u <= 1) | (v <= 1) | (u >= w - 2) | (v >= h - 2)
    if border.any():
        return np.array([u[border].mean(), v[border].mean()])
    far = int(np.argmax(np.hypot(u - u.mean(), v - v.mean())))
    return np.array([u[far], v[far]], float)
