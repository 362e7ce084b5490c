"""The poses of all rigid objects in one frame, the nearest to the camera first."""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.providers.tracker.config import EmbeddedTracker
from lucibot.providers.tracker.evidence import Evidence
from lucibot.providers.tracker.objects import Followed, RigidObject
from lucibot.vision.appearance import UNIFORM
from lucibot.vision.labelling import dilate

_FLOOR = 1e-12
HIDDEN = 0.02
"""What a hidden pixel of an object costs [log-likelihood]. More than a little draws what is mostly
hidden away from the camera, where it covers less."""
MIXED = 0.15
"""The most that a pixel on an occluder's outline may say against an object."""


def fit_rigid(
    objects: list[Followed],
    seen: Evidence,
    hand: np.ndarray,
    guesses: dict[int, np.ndarray],
    near: dict[int, np.ndarray],
    edge: np.ndarray,
    config: EmbeddedTracker,
    count: int,
) -> None:
    """Move every rigid object to where this frame shows it.

    Args:
        hand: (h, w) bool, the last frame's hand.
        guesses: of each rigid object the change of pose that flow suggests.
        near: (h, w) bool of each object: where it may be now.
        edge: (h, w) edges that the background does not have, see `BackgroundPlate.new_edges`.
        count: frames before this one.
    """
    rigid = [i for i, o in enumerate(objects) if isinstance(o, RigidObject)]
    rigid.sort(key=lambda i: objects[i].track.pose.centre[2])
    w_hand = np.exp(seen.log_hand) * seen.hand
    # Something that is neither background nor known: hands in odd light, sleeves.
    w_unknown = 0.05 * 0.5 * UNIFORM
    like = [parts.max(0) for parts in seen.parts]
    for n, i in enumerate(rigid):
        o = objects[i]
        others = np.zeros(seen.hand.shape, np.float32)
        for j in range(len(objects)):
            if j != i:
                others = np.maximum(others, 0.5 * near[j] * like[j])
        own = like[i]
        occluder = w_hand + w_unknown + others
        hidden = occluder / (occluder + 0.5 * seen.background + 0.5 * own + _FLOOR)
        # What a nearer object explains says nothing about this one.
        claimed = np.zeros_like(hidden)
        for j in rigid[:n]:
            claimed = np.maximum(claimed, 0.95 * objects[j].claimed)
        hidden = np.maximum(hidden, claimed)
        # Along the outline of what hides it colours are mixed.
        mixed = dilate(hidden > 0.8, 1)
        gain = np.empty_like(seen.parts[i])
        for p in range(len(gain)):
            rest = seen.background + 0.2 * np.delete(seen.parts[i], p, 0).max(0, initial=0.0)
            # Whatever may hide it may do so where it is drawn and where it is not.
            ratio = np.log((occluder + seen.open * seen.parts[i][p] + _FLOOR)
                           / (occluder + seen.open * rest + _FLOOR))  # fmt: skip
            evidence = np.clip(ratio, np.where(mixed, -MIXED, -3), 3)
            gain[p] = (1 - claimed) * evidence - HIDDEN * hidden
        # A hand's outline must not pull, so edges count only where none is near.
        open_ = 1 - cv2.dilate(hidden.astype(np.float32), np.ones((3, 3), np.uint8))
        beside = [q for j, q in enumerate(objects) if j != i and isinstance(q, RigidObject)]
        _move(
            o, beside, gain, config.edge_weight * edge * open_, guesses[i], hand, seen.flow,
            count, config.lost_below,
        )  # fmt: skip
        o.claimed = ((o.track.part >= 0) & (own > seen.background) & (own > w_hand)).astype(
            np.float32
        )
        near[i] = dilate(o.track.part >= 0, 3)


def _move(
    o: RigidObject, beside: list[RigidObject], gain: np.ndarray, edge: np.ndarray,
    guess: np.ndarray, hand: np.ndarray, flow: np.ndarray, count: int, lost_below: float,
) -> None:  # fmt: skip
    track = o.track
    drawn = track.part >= 0
    touched = (dilate(drawn, 5) & hand).any() or any(
        not q.track.resting and (dilate(drawn, 4) & (q.track.part >= 0)).any() for q in beside
    )
    # Rest is checked now and then, and more often once something is near.
    if track.resting and count % (2 if touched else 4):
        track.accept(None)
    else:
        pose, value = track.search(gain, edge, guess, [_hand_motion(drawn, hand, flow)])
        # A resting object does not move for the little that noise can gain.
        positive = np.maximum(gain.max(0), 0)[drawn].sum()
        share = 0.0 if not track.resting else 0.015 if touched else 0.04
        hold = track.hold_value(gain, edge)
        track.accept(pose if value > hold + share * positive + 2.0 else None)
    o.confidence = agreement(track, gain)
    track.lost_for = track.lost_for + 1 if o.confidence < lost_below else 0


def agreement(track, gain: np.ndarray) -> float:
    """In [0, 1]: the share of the drawn pixels that speak for the pose (gain (P, h, w)), less where
    little of the object speaks at all."""
    part = track.part
    shown = part >= 0
    g = np.take_along_axis(gain, np.maximum(part, 0)[None].astype(np.int64), 0)[0]
    open_ = shown & (np.abs(g) > 0.3)
    n = int(open_.sum())
    agree = float((g[open_] > 0).mean()) if n else 0.0
    seen = n / max(int(shown.sum()), 1)
    return agree * min(1.0, seen / 0.15)


def _hand_motion(drawn: np.ndarray, hand: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The (7,) change of an object that moves along with the hand around it."""
    d = np.zeros(7)
    holding = hand & dilate(drawn, 8)
    if holding.sum() > 20:
        d[:2] = np.median(flow[holding], axis=0)
    return d
