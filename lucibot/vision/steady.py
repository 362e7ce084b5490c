"""The camera's own motion over a clip, read from the background and taken out frame by frame.

Points of the background are followed from the first frame to each other one. Where most of them agree on
a shift, scale and turn of the whole picture, that can be taken out, and what then comes in from beyond
the picture is not seen. A camera that travels shows near and far things shift apart: no such transform
fits, and nothing is taken out. Hands and moved things are outliers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lucibot.vision.registration import enlarged

WIDTH = 400
"""Pixels across at which points are followed, at most."""
POINTS = 300
FEWEST = 24
AGREE_PX = 1.0
"""How far a point may lie from the common transform; textures in generated videos swim by less."""
CERTAIN = 0.12
"""Least share of the points that must agree on it."""
CERTAIN_SEEN = 0.6
"""The same, of those that are found again: a hand hides some."""
MORE = 1.5
"""How many times as many points speak against a motion that few tell of."""
SAMPLES = 24
"""Frames that tell whether the camera moves at all."""
STANDS = 0.5
"""Share of these that must tell it."""
FREE = 0.0015
"""Mean displacement of the picture's corners that stands for none [picture widths]."""
MOST = 0.04
"""Up to here a camera's motion is taken out."""


@dataclass(frozen=True, kw_only=True)
class CameraMotion:
    """Where each frame's picture lies against the first one's."""

    A: np.ndarray
    """(T, 2, 3) maps the first frame's pixels to each frame's; in between where it is not known."""
    known: np.ndarray
    """(T,) bool: most of the background that is seen agrees on it."""
    displacement: np.ndarray
    """(T,) mean way of the picture's corners [picture widths]."""

    @property
    def largest(self) -> float:
        """The largest displacement that lasts for three frames that are known [picture widths]."""
        known = self.displacement[self.known]
        if len(known) < 3:
            return float(known.max(initial=0.0))
        return float(np.median(np.stack([known[:-2], known[1:-1], known[2:]]), axis=0).max())


def follow_camera(frames: np.ndarray, background: np.ndarray) -> CameraMotion:
    """The camera's motion over T frames.

    Args:
        frames: (T, H, W, 3) uint8.
        background: (H, W) bool, where the first frame shows what stands still and is seen.
    """
    count, height, width = frames.shape[:3]
    scale = min(WIDTH / width, 1.0)
    size = (round(width * scale), round(height * scale))
    still = np.tile(np.eye(2, 3), (count, 1, 1))
    motion = CameraMotion(A=still, known=np.ones(count, bool), displacement=np.zeros(count))
    first = _texture(frames[0], size)
    inside = cv2.resize(background.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    points = cv2.goodFeaturesToTrack(
        first, POINTS, 0.01, 7, mask=cv2.erode(inside, np.ones((9, 9), np.uint8))
    )
    if points is None or len(points) < FEWEST:
        return motion
    sampled = np.unique(np.linspace(1, count - 1, min(SAMPLES, count - 1)).round().astype(int))
    few = _follow(frames, sampled, first, points, size)
    if few.largest <= FREE and few.known.mean() >= STANDS:
        return motion
    return _follow(frames, np.arange(1, count), first, points, size)


def taken_out(frame: np.ndarray, A: np.ndarray) -> np.ndarray:
    """A frame (H, W, 3) as the camera saw it where it stood at first; its border goes on beyond."""
    h, w = frame.shape[:2]
    return cv2.warpAffine(
        frame, A, (w, h), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def _texture(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8: lightness over its surroundings, so that exposure and soft shadows are no motion."""
    gray = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    gray = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), 0.8)
    box = (size[0] // 16 | 1,) * 2
    mean = cv2.blur(gray, box)
    spread = np.sqrt(np.maximum(cv2.blur(gray * gray, box) - mean * mean, 0))
    return np.clip(128 + 48 * (gray - mean) / (spread + 4), 0, 255).astype(np.uint8)


def _between(A: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(n, 2, 3) with what lies between frames in which it is known."""
    at, flat = np.arange(len(A)), A.reshape(len(A), 6)
    columns = [np.interp(at, at[known], flat[known, k]) for k in range(6)]
    return np.stack(columns, 1).reshape(A.shape)


def _follow(frames, at: np.ndarray, first, points, size) -> CameraMotion:
    """The motion at the first frame and at frames `at`, ascending."""
    count, height, width = frames.shape[:3]
    s = width / size[0]
    A, last = np.tile(np.eye(2, 3), (count, 1, 1)), np.eye(2, 3)
    known, shares = np.zeros(count, bool), np.zeros(count)
    known[0], shares[0] = True, 1.0
    lk = {"winSize": (17, 17), "maxLevel": 3}
    for t in at:
        guess = points.reshape(-1, 2) @ last[:, :2].T + last[:, 2]
        guess = np.ascontiguousarray(guess[:, None], np.float32)
        now = _texture(frames[t], size)
        seen, ok, _ = cv2.calcOpticalFlowPyrLK(
            first, now, points, guess, flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **lk
        )
        back, ok_back, _ = cv2.calcOpticalFlowPyrLK(now, first, seen, points.copy(),
                                                    flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **lk)  # fmt: skip
        good = (ok & ok_back).ravel() > 0
        good &= np.linalg.norm((back - points).reshape(-1, 2), axis=1) < 0.7
        found, agree = None, np.zeros(0)
        if good.sum() >= FEWEST:
            found, agree = cv2.estimateAffinePartial2D(
                points[good], seen[good], method=cv2.RANSAC, ransacReprojThreshold=AGREE_PX
            )
        share = 0.0 if found is None else agree.sum() / len(points)
        known[t] = share >= CERTAIN and agree.sum() >= CERTAIN_SEEN * good.sum()
        shares[t] = share * known[t]
        last = found if known[t] else last
        A[t] = last
    looked = np.r_[0, at]
    A, known = A[looked], known[looked]
    known &= ~_astray(A, shares[looked], size)
    A = _between(A, known)
    A = enlarged(A, s)
    return CameraMotion(A=A, known=known, displacement=_ways(A, (width, height)))


def _ways(A: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n,) mean way of the corners of a picture of `size` through A (n, 2, 3) [picture widths]."""
    w, h = size
    corners = np.array([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]], float)
    moved = np.einsum("tij,cj->tci", A[:, :, :2], corners) + A[:, None, :, 2] - corners
    return np.linalg.norm(moved, axis=2).mean(1) / w


def _astray(A: np.ndarray, shares: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n,) bool: few points tell of a motion, and before and after it many more tell of less. An arm
    that covers most of the background has points of its own, and so have its reflections.

    Args:
        shares: (n,) of the points that agree on each of A (n, 2, 3).
    """
    way = _ways(A, size)
    out = np.zeros(len(A), bool)
    for t in np.flatnonzero(way > FREE):
        against = (shares > MORE * shares[t]) & (way < way[t] - FREE)
        out[t] = against[:t].any() and against[t:].any()
    return out
