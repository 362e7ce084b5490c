"""Giving every pixel to one class: background, hand, or an object.

Evidence per class comes from colours and from where each thing is expected; neighbours of similar
colour are drawn to the same class by a few rounds of mean-field inference, which is what GrabCut's
graph cut does for two classes.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numba
import numpy as np


@numba.njit(cache=True, fastmath=True, nogil=True)
def _mean_field(unary, lab, strength, contrast, rounds, box):
    C, H, W = unary.shape
    y0, y1, x0, x1 = box
    q = np.empty((H, W, C), np.float32)
    wr = np.zeros((H, W), np.float32)
    wd = np.zeros((H, W), np.float32)
    # What no neighbours can change, to the last bit, is left as it is.
    sure = np.zeros((H, W), np.bool_)
    for y in range(H):
        for x in range(W):
            best, top, second = 0, unary[0, y, x], np.float32(-1e9)
            for c in range(1, C):
                u = unary[c, y, x]
                if u > top:
                    best, top, second = c, u, top
                else:
                    second = max(second, u)
            if top - second > 4 * strength + 17:
                sure[y, x] = True
                q[y, x] = 0
                q[y, x, best] = 1
                continue
            total = 0.0
            for c in range(C):
                q[y, x, c] = np.exp(unary[c, y, x] - top)
                total += q[y, x, c]
            for c in range(C):
                q[y, x, c] /= total
    k = 1.0 / (2.0 * contrast * contrast)
    for y in range(max(y0 - 1, 0), y1):
        for x in range(max(x0 - 1, 0), x1):
            if x + 1 < W and not (sure[y, x] and sure[y, x + 1]):
                d = 0.0
                for c in range(3):
                    e = lab[y, x, c] - lab[y, x + 1, c]
                    d += e * e
                wr[y, x] = 0.15 + 0.85 * np.exp(-d * k)
            if y + 1 < H and not (sure[y, x] and sure[y + 1, x]):
                d = 0.0
                for c in range(3):
                    e = lab[y, x, c] - lab[y + 1, x, c]
                    d += e * e
                wd[y, x] = 0.15 + 0.85 * np.exp(-d * k)
    m = np.empty(C, np.float32)
    for _ in range(rounds):
        # Red and black pixels in turn: updates see their neighbours' newest beliefs.
        for colour in range(2):
            for y in range(y0, y1):
                for x in range(x0 + (y + colour + x0) % 2, x1, 2):
                    if sure[y, x]:
                        continue
                    top = -1e9
                    for c in range(C):
                        s = 0.0
                        if x > 0:
                            s += wr[y, x - 1] * q[y, x - 1, c]
                        if x + 1 < W:
                            s += wr[y, x] * q[y, x + 1, c]
                        if y > 0:
                            s += wd[y - 1, x] * q[y - 1, x, c]
                        if y + 1 < H:
                            s += wd[y, x] * q[y + 1, x, c]
                        m[c] = unary[c, y, x] + strength * s
                        top = max(top, m[c])
                    total = 0.0
                    for c in range(C):
                        m[c] = np.exp(m[c] - top)
                        total += m[c]
                    for c in range(C):
                        q[y, x, c] = m[c] / total
    return q


def mean_field(unary: np.ndarray, lab: np.ndarray, where: np.ndarray, *, strength: float = 1.3,
               contrast: float = 10.0, rounds: int = 3) -> np.ndarray:  # fmt: skip
    """Smoothed class beliefs.

    Args:
        unary: (C, H, W) float32 log-likelihoods plus log-priors.
        lab: (H, W, 3) uint8, whose edges may separate classes.
        where: (H, W) bool; only its bounding box is smoothed.

    Returns:
        (H, W, C) float32 probabilities.
    """
    ys, xs = np.nonzero(where.any(1))[0], np.nonzero(where.any(0))[0]
    box = (int(ys[0]), int(ys[-1]) + 1, int(xs[0]), int(xs[-1]) + 1) if len(ys) else (0, 0, 0, 0)
    return _mean_field(np.ascontiguousarray(unary, np.float32), lab.astype(np.float32), strength,
                       contrast, rounds, box)  # fmt: skip


@numba.njit(cache=True, nogil=True)
def most_likely(belief):
    """(H, W) uint8 class of the largest belief; `belief` is (H, W, C)."""
    H, W, C = belief.shape
    out = np.zeros((H, W), np.uint8)
    for y in range(H):
        for x in range(W):
            best = belief[y, x, 0]
            for c in range(1, C):
                if belief[y, x, c] > best:
                    best = belief[y, x, c]
                    out[y, x] = c
    return out


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """(H, W) float32 [px]: positive inside `mask`, negative outside, zero on the boundary."""
    m = mask.astype(np.uint8)
    if not m.any():
        return np.full(m.shape, -1e3, np.float32)
    inside = cv2.distanceTransform(m, cv2.DIST_L2, 3)
    outside = cv2.distanceTransform(1 - m, cv2.DIST_L2, 3)
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)


def distance_to(mask: np.ndarray) -> np.ndarray:
    """(H, W) float32 [px]: how far outside of `mask` each pixel is, 0 inside."""
    if not mask.any():
        return np.full(mask.shape, 1e3, np.float32)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    return np.maximum(outside - np.float32(0.5), 0)


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0


def erode(mask: np.ndarray, radius: int) -> np.ndarray:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    return cv2.erode(mask.astype(np.uint8), kernel, borderValue=1) > 0


def warp(image: np.ndarray, flow: np.ndarray, at=...) -> np.ndarray:
    """Carry an image (H, W) along a forward flow (h, w, 2) [px], taken as locally constant, to the pixels
    `at` an index: all, (H, W), by default."""
    return cv2.remap(image.astype(np.float32), _places(image.shape)[at] - flow.astype(np.float32, copy=False), None,
                     cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # fmt: skip


@lru_cache(maxsize=16)
def _places(shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 2) float32: column and row of each pixel."""
    h, w = shape
    gx, gy = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    return np.stack([gx, gy], -1)


def box_around(mask: np.ndarray, margin: int) -> tuple[slice, slice] | None:
    """The box around what is set in `mask` (H, W), `margin` pixels wider; None if nothing is."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return tuple(slice(max(n[0] - margin, 0), n[-1] + margin + 1) for n in (rows, columns))
