"""Smoothing of path-tracing noise: an edge-avoiding a-trous wavelet filter.

Dammertz et al., "Edge-avoiding a-trous wavelet transform for fast global illumination filtering"
(2010). The surface's colour is divided out first, so textures stay sharp and only the light on them
is smoothed.
"""

from __future__ import annotations

import numpy as np

_TAPS = np.array([1, 4, 6, 4, 1]) / 16


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
    base = np.maximum(albedo, 0.02)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = (normal / np.maximum(length, 1e-6)).astype(np.float32)
    light = (color / base).astype(np.float32)
    slope = np.hypot(*np.gradient(depth.astype(np.float32))) + 1e-4
    for level in range(levels):
        light = _level(light, normal, depth, slope, 2**level, sigma_light / 2**level)
    return (light * base).astype(np.float32)


def _level(light, normal, depth, slope, step: int, sigma: float) -> np.ndarray:
    tone = np.log1p(light.mean(-1))
    total = np.zeros_like(light)
    weights = np.zeros(light.shape[:2], np.float32)
    for i, wy in enumerate(_TAPS):
        for j, wx in enumerate(_TAPS):
            dy, dx = (i - 2) * step, (j - 2) * step
            near_light, near_tone, near_normal, near_depth = (
                _shifted(a, dy, dx) for a in (light, tone, normal, depth)
            )
            if dy == dx == 0:
                total += (wy * wx) * light
                weights += wy * wx
                continue
            facing = np.clip((near_normal * normal).sum(-1), 0, 1) ** 64
            apart = np.abs(near_depth - depth) / (slope * (abs(dy) + abs(dx) + 1) + 1e-3)
            edge = np.abs(near_tone - tone) / sigma
            w = (wy * wx) * facing * np.exp(-apart - edge**2)
            total += w[..., None] * near_light
            weights += w
    return total / weights[..., None]


def _shifted(a: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """`a[y + dy, x + dx]` with the border repeated."""
    h, w = a.shape[:2]
    ys = np.clip(np.arange(h) + dy, 0, h - 1)
    xs = np.clip(np.arange(w) + dx, 0, w - 1)
    return a[ys][:, xs]
