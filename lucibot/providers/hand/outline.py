"""Finger tips from the hand layer alone: where its outline is round and juts out.

Without a network there are no key points of a hand. But what the affordance needs (paper, section 3.4) is
only where fingers meet the object, and a finger tip is a place where the outline of the hand turns
by half a circle within a finger's width, close to the object that is touched.
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.core.errors import UserError
from lucibot.providers.hand.base import KEYPOINTS, TIPS, Hand
from lucibot.providers.hand.config import OutlineHand


class HandByOutline:
    """Colours play no part. Of a hand's key points it fills the tips near the touched objects, and
    cannot tell which finger each belongs to: the nearest to an object comes first."""

    def __init__(self, config: OutlineHand):
        self.config = config

    def detect(
        self,
        frames: np.ndarray,
        *,
        hand_layer: np.ndarray | None = None,
        contact_masks: np.ndarray | None = None,
    ) -> list[list[Hand]]:
        """See `HandDetector`; one hand for each connected part of the layer near an object."""
        if hand_layer is None or contact_masks is None:
            raise UserError(
                "OutlineHand finds hands on the outline of the hand layer, near the objects that "
                "they touch: it needs both masks"
            )
        shape = frames.shape[:3]
        if hand_layer.shape != shape or (len(contact_masks), *contact_masks.shape[2:]) != shape:
            raise UserError(
                f"hand layer {hand_layer.shape} and contact masks {contact_masks.shape} must have "
                f"the number and size of the frames {shape}"
            )
        return [self._in_frame(h, c) for h, c in zip(hand_layer, contact_masks, strict=True)]

    def _in_frame(self, hand_mask: np.ndarray, contact_masks: np.ndarray) -> list[Hand]:
        """Hands of (H, W) near any of (N, H, W)."""
        W = hand_mask.shape[1]
        things = [m for m in contact_masks if m.any()]
        if not hand_mask.any() or not things:
            return []
        reach, finger = self.config.reach * W, self.config.finger * W
        away = np.min([_away(m, hand_mask) for m in things], axis=0)
        n, labels, stats, _ = cv2.connectedComponentsWithStats(hand_mask.astype(np.uint8))
        hands = []
        for i in range(1, n):
            here = labels == i
            if stats[i, cv2.CC_STAT_AREA] < finger**2 or away[here].min() > reach:
                continue
            tips, sharpness = _tips(here, away, reach, finger)
            touching = float((here & (away <= 2)).sum())
            if len(tips) == 0:
                # A fist shows no tip: the middle of where it meets the object stands in for them.
                near = here & (away <= away[here].min() + 2)
                tips = np.argwhere(near)[:, ::-1].mean(0, keepdims=True) + 0.5
                sharpness = 0.0
            contact = touching / (touching + finger)
            keypoints = np.full((KEYPOINTS, 2), np.nan, np.float32)
            keypoints[list(TIPS[: len(tips)])] = tips
            x, y, w, h = stats[i, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP, cv2.CC_STAT_WIDTH,
                                   cv2.CC_STAT_HEIGHT]]  # fmt: skip
            hands.append(
                Hand(
                    keypoints_px=keypoints,
                    keypoints_m=np.full((KEYPOINTS, 3), np.nan, np.float32), side="unknown",
                    box_px=np.array([x, y, x + w, y + h], np.float32),
                    score=float(np.clip((0.35 + 0.65 * sharpness) * contact, 0, 1)),
                )
            )  # fmt: skip
        return sorted(hands, key=lambda h: -h.score)


def _away(contact_mask: np.ndarray, hand_mask: np.ndarray) -> np.ndarray:
    """(H, W) pixels to an object."""
    away = cv2.distanceTransform((~contact_mask).astype(np.uint8), cv2.DIST_L2, 5)
    # A finger before the object lies within its outline, where the mask has a bay or a hole.
    away[_hull(contact_mask) & hand_mask] = 0
    return away


def _hull(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool, the convex hull of a mask."""
    points = np.argwhere(mask)[:, ::-1].astype(np.int32)
    out = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(out, cv2.convexHull(points), 1)
    return out > 0


def _tips(hand: np.ndarray, away: np.ndarray, reach: float, finger: float):
    """Tips (F, 2) [px] of one hand near the object and their mean sharpness in [0, 1].

    A point of the outline is a tip when the chords to the points one finger's width before and
    after it enclose a narrow angle that opens into the hand.
    """
    H, W = hand.shape
    outlines, _ = cv2.findContours(hand.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=len)[:, 0, :].astype(np.float32)
    n, step = len(outline), max(round(1.2 * finger), 3)
    if n < 4 * step:
        return np.zeros((0, 2)), 0.0
    k = max(step // 3, 1) | 1
    ring = np.concatenate([outline[-k:], outline, outline[:k]])
    kernel = np.ones(2 * k + 1) / (2 * k + 1)
    smooth = np.stack([np.convolve(ring[:, c], kernel, mode="valid") for c in (0, 1)], -1)
    back, ahead = np.roll(smooth, step, 0) - smooth, np.roll(smooth, -step, 0) - smooth
    cosine = (back * ahead).sum(-1) / np.maximum(
        np.linalg.norm(back, axis=1) * np.linalg.norm(ahead, axis=1), 1e-6
    )
    middle = smooth + 0.25 * (back + ahead)
    x, y = (np.clip(middle[:, c].round().astype(int), 0, m - 1) for c, m in ((0, W), (1, H)))
    convex = hand[y, x]
    ox, oy = outline[:, 0].astype(int), outline[:, 1].astype(int)
    inner = (ox > 2) & (oy > 2) & (ox < W - 3) & (oy < H - 3)
    sharp = np.where(convex & inner & (away[oy, ox] <= reach), (cosine + 1) / 2, 0)
    tips, found = [], []
    while len(tips) < len(TIPS):
        best = int(sharp.argmax())
        # Straight outlines have 0, a half turn has 1; a right angle has one half.
        if sharp[best] < 0.3:
            break
        inward = 0.15 * (back[best] + ahead[best])
        tips.append(outline[best] + inward + 0.5)
        found.append(float(sharp[best]))
        sharp[np.linalg.norm(outline - outline[best], axis=1) < 1.5 * finger] = 0
    if not tips:
        return np.zeros((0, 2)), 0.0
    order = np.argsort([away[int(t[1]), int(t[0])] for t in tips], kind="stable")
    return np.stack(tips)[order], float(np.mean(found))
