"""Smoothing of path-tracing noise: an edge-avoiding a-trous wavelet filter.

Dammertz et al., "Edge-avoiding a-trous wavelet transform for fast global illumination filtering"
(2010). The surface's colour is divided out first, so textures stay sharp and only the light on them
is smoothed.
"""

from __future__ import annotations

import cv2
import numba
import numpy as np

_TAPS = np.array([1, 4, 6, 4, 1], np.float32) / 16
SPECK = 0.3
"""A pixel whose light differs from the median around it by more than this share is a speck."""


def denoise(
    color: np.ndarray,
    *,
    albedo: np.ndarray,
    normal: np.ndarray,
    depth: np.ndarray,
    levels: int = 4,
    sigma_light: float = 0.45,
) -> np.ndarray:
    """Smooth `color` (H, W, 3) linear RGB.

    Args:
        albedo: (H, W, 3) surface colour; normal: (H, W, 3); depth: (H, W) [m].
        levels: each doubles the reach: 4 reach 30 pixels.
        sigma_light: how large a relative step in light counts as an edge at the first level.
    """
    base = np.maximum(albedo, 0.02).astype(np.float32)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = (normal / np.maximum(length, 1e-6)).astype(np.float32)
    depth = np.ascontiguousarray(depth, np.float32)
    light = _without_specks((color / base).astype(np.float32))
    slope = (np.hypot(*np.gradient(depth)) + 1e-4).astype(np.float32)
    for level in range(levels):
        tone = np.log1p(light.mean(-1)).astype(np.float32)
        light = _smooth(light, tone, normal, depth, slope, 2**level, sigma_light / 2**level)
    return light * base


def _without_specks(light: np.ndarray) -> np.ndarray:
    """Few paths a pixel leave single pixels far off, most of all at edges, where no neighbour is
    alike enough to be averaged with."""
    around = cv2.medianBlur(light, 3)
    off = np.abs(light - around).max(-1) > SPECK * np.maximum(around.max(-1), 0.05)
    return np.where(off[..., None], around, light)


@numba.njit(cache=True)
def _smooth(light, tone, normal, depth, slope, step, sigma):
    """One level: each pixel's mean over 5 x 5 others `step` pixels apart, as far as they lie on the
    same surface in the same light."""
    H, W, _ = light.shape
    out = np.empty_like(light)
    for y in range(H):
        for x in range(W):
            total, r, g, b = 0.0, 0.0, 0.0, 0.0
            for i in range(5):
                v = min(max(y + (i - 2) * step, 0), H - 1)
                for j in range(5):
                    u = min(max(x + (j - 2) * step, 0), W - 1)
                    w = _TAPS[i] * _TAPS[j]
                    if i != 2 or j != 2:
                        facing = (
                            normal[v, u, 0] * normal[y, x, 0]
                            + normal[v, u, 1] * normal[y, x, 1]
                            + normal[v, u, 2] * normal[y, x, 2]
                        )
                        if facing <= 0.8:
                            continue
                        reach = step * (abs(i - 2) + abs(j - 2)) + 1
                        apart = abs(depth[v, u] - depth[y, x]) / (slope[y, x] * reach + 1e-3)
                        edge = (tone[v, u] - tone[y, x]) / sigma
                        w *= min(facing, 1.0) ** 64 * np.exp(-apart - edge * edge)
                    total += w
                    r += w * light[v, u, 0]
                    g += w * light[v, u, 1]
                    b += w * light[v, u, 2]
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = r / total, g / total, b / total
    return out
