"""Rings of particles, and what they go around: geometry for the success predicates."""

from __future__ import annotations

import numpy as np


def loop_of(initial_m: np.ndarray, now_m: np.ndarray, axis: np.ndarray, count: int) -> np.ndarray:
    """(S, 3) [m]: where the stretches of a ring are now, in order.

    Args:
        initial_m: (N, 3) the ring's particles at first.
        now_m: (N, 3) the same particles now.
        axis: (3,) about which the ring went at first.
        count: stretches that it is divided into; those without particles are left out.
    """
    arm = initial_m - initial_m.mean(0)
    across = np.linalg.svd(np.asarray(axis, float)[None])[2][1:]
    angle = np.arctan2(arm @ across[1], arm @ across[0])
    number = np.minimum(((angle / (2 * np.pi) + 0.5) * count).astype(int), count - 1)
    held = np.bincount(number, minlength=count)
    sums = np.stack([np.bincount(number, now_m[:, d], count) for d in range(3)], 1)
    return sums[held > 0] / held[held > 0, None]


def longest_step(loop_m: np.ndarray) -> float:
    """The longest [m] of the steps around a closed loop (S, 3)."""
    return float(np.linalg.norm(loop_m - np.roll(loop_m, 1, axis=0), axis=1).max())


def windings(loop_m: np.ndarray, centre: np.ndarray) -> int:
    """How often a closed loop (S, 2) goes around a point (2,), counter-clockwise."""
    arm = loop_m - centre
    after = np.roll(arm, -1, axis=0)
    turn = np.arctan2(
        arm[:, 0] * after[:, 1] - arm[:, 1] * after[:, 0], (arm * after).sum(1)
    )  # fmt: skip
    return int(np.round(turn.sum() / (2 * np.pi)))


def enclosed(loop_m: np.ndarray, feet_m: np.ndarray, tops_m: np.ndarray) -> np.ndarray:
    """(F,) in [0, 1]: whether a closed loop (S, 3) goes around each of F upright things, as the
    share below the thing's top of what is nearer to it than to the others.

    Args:
        feet_m: (F, 2) where they stand.
        tops_m: (F,) height of their tops.
    """
    nearest = np.linalg.norm(loop_m[:, None, :2] - feet_m[None], axis=-1).argmin(1)
    out = np.zeros(len(feet_m))
    for i, (foot, top) in enumerate(zip(feet_m, tops_m, strict=True)):
        mine = loop_m[nearest == i]
        if len(mine) and windings(loop_m[:, :2], foot):
            out[i] = (mine[:, 2] < top).mean()
    return out
