"""Keyframes: a set rate between the first hand contact and the goal (paper, section 3.3)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lucibot.perception.config import KeyframeConfig


def sample_keyframes(
    first_contact: int, goal: int, held: np.ndarray, quality: np.ndarray, fps: float,
    config: KeyframeConfig,
) -> np.ndarray:  # fmt: skip
    """Frame indices (K,) int64, increasing, after `first_contact` and ending with `goal`.

    The first contact itself is no keyframe: objects are then still where the scene has them. The
    frames in which a hold begins (later than the first) or ends are keyframes, because the
    simulation switches between holding an object and leaving it alone at keyframes only.

    Args:
        held: (T, A) bool.
        quality: (T,) in [0, 1], how well the actuators are seen.
    """
    span = goal - first_contact
    count = round(span / fps * config.rate_hz) if config.rate_hz > 0 else config.count
    count = int(np.clip(count, 1, max(1, span)))
    spacing = span / count
    regular = [
        _seen_better(round(first_contact + spacing * k), spacing * config.snap, quality,
                     first_contact + 1, goal - 1)
        for k in range(1, count)
    ]  # fmt: skip
    switches = _merged(_switches(held, first_contact, goal), 0.3 * spacing)
    # The goal stays the goal: a release just before it keeps a frame of its own, since what
    # happens after it (settling) must be simulated as let go.
    kept = [s for s in switches if s < goal]
    for frame in regular:
        if all(abs(frame - s) > 0.4 * spacing for s in [*switches, goal]):
            kept.append(frame)
    return np.array(sorted({*kept, goal}), np.int64)


def follow_path(
    keyframes: np.ndarray, first_contact: int, paths_m: np.ndarray, held: np.ndarray,
    touching: np.ndarray, config: KeyframeConfig,
) -> np.ndarray:  # fmt: skip
    """Keyframes (K',) such that the straight lines between them follow the path.

    Frames are added where the path is farthest from the lines. When no more may be added, one that
    the lines hardly need gives its place; the goal and the switches of `held` stay. While objects
    touch each other a shortcut changes what happens, so there it counts more.

    Args:
        paths_m: (T, A, 3) positions of the actuators [m]; NaN where one is not known.
        held: (T, A) bool.
        touching: (T,) bool, whether any two objects touch.
    """
    weight = np.where(touching, config.touching_weight, 1.0)

    def farthest(begin: int, end: int) -> tuple[float, int]:
        return _farthest(paths_m, weight, begin, end)

    frames = [first_contact, *(int(k) for k in keyframes)]
    fixed = {first_contact, frames[-1], *_switches(held, first_contact, frames[-1])}
    most = len(frames) + config.most_added
    for _ in range(len(paths_m)):
        gaps = [(*farthest(begin, end), end) for begin, end in pairwise(frames)]
        worst, at, _ = max(gaps)
        if worst <= config.straight_m:
            break
        if len(frames) >= most:
            spare = [
                (farthest(before, after)[0], frame)
                for before, frame, after in zip(frames, frames[1:], frames[2:], strict=False)
                if frame not in fixed
            ]
            if not spare or min(spare)[0] > 0.5 * worst:
                break
            frames.remove(min(spare)[1])
        frames = sorted([*frames, at])
    return np.array(frames[1:], np.int64)


def _farthest(paths_m: np.ndarray, weight: np.ndarray, begin: int, end: int) -> tuple[float, int]:
    """How far [m], weighted, the path goes from the straight line between two frames, and where; 0
    where there is no room for another frame."""
    if end - begin < 4:
        return 0.0, begin
    away = _from_segment(paths_m[begin + 1 : end], paths_m[begin], paths_m[end])
    away = away * weight[begin + 1 : end]
    k = int(np.argmax(away))
    return float(away[k]), begin + 1 + k


def _from_segment(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Largest distance [m] of the actuators (n, A, 3) from their segments a-b (A, 3): (n,)."""
    along = b - a
    length2 = np.maximum((along**2).sum(-1), 1e-12)
    t = np.clip(((points - a) * along).sum(-1) / length2, 0, 1)
    distance = np.linalg.norm(points - a - t[..., None] * along, axis=-1)
    return np.nan_to_num(distance, nan=0.0).max(-1)


def _switches(held: np.ndarray, first_contact: int, goal: int) -> list[int]:
    """Last frames of the state before, for every change of hold after the first contact."""
    out = []
    for column in held.T:
        changes = np.flatnonzero(column[1:] != column[:-1])
        out += [int(t) for t in changes if first_contact + 1 < t < goal]
    return sorted(out)


def _merged(frames: list[int], apart: float) -> list[int]:
    """Frames closer than `apart` become one, the last of them."""
    out: list[int] = []
    for frame in frames:
        if out and frame - out[-1] <= apart:
            out[-1] = frame
        else:
            out.append(frame)
    return out


def _seen_better(frame: int, reach: float, quality: np.ndarray, low: int, high: int) -> int:
    """The nearest frame within `reach` that is clearly seen better, else `frame`."""
    around = np.arange(max(low, round(frame - reach)), min(high, round(frame + reach)) + 1)
    if len(around) == 0:
        return frame
    # Distance is a small price: of equally good frames the nearest wins.
    worth = quality[around] - 0.1 * np.abs(around - frame) / max(reach, 1.0)
    best = around[int(np.argmax(worth))]
    return int(best) if quality[best] > quality[frame] + 0.05 else frame


def held_on_the_way(held: np.ndarray, keyframes: np.ndarray, first_contact: int) -> np.ndarray:
    """(K, A) bool: held in most frames from the keyframe before (or the contact) to this one."""
    out = np.zeros((len(keyframes), held.shape[1]), bool)
    before = first_contact
    for k, frame in enumerate(keyframes):
        out[k] = held[before + 1 : frame + 1].mean(0) > 0.5 if frame > before else held[frame]
        before = frame
    return out
