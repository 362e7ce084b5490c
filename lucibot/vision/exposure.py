"""Taking a slow change of exposure and colour out of a frame, so that it can be compared with the first."""

from __future__ import annotations

from functools import cache

import cv2
import numba
import numpy as np

DARK = 40
"""Of 255; what is darker tells of light only where there is nothing else."""
LEAST_BRIGHT = 0.02
"""Share of the picture from which on what is brighter tells enough."""
BLOCKS = 6, 8
"""Rows and columns of the blocks in which light is compared."""
FILLED = 0.4
"""Share of a block that must show background."""
APART = 0.85, 1.18
"""How far the light of a block may be from the whole picture's, as a share of that."""


def same_light(rgb: np.ndarray, first_rgb: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Divide out a slow change of exposure and colour: median ratios over blocks of what is
    background, smoothed, and bounded so that no new thing is divided out.

    Args:
        rgb: (h, w, 3) uint8, a frame.
        first_rgb: (h, w, 3) float32 in [0, 255], the first one.
        background: (h, w) bool, where both show it.

    Returns:
        (h, w, 3) uint8.
    """
    # Every other pixel tells as much.
    first, now, background = first_rgb[::2, ::2], rgb[::2, ::2], background[::2, ::2]
    # What is nearly black says little of light, and coding changes it by a large share.
    bright = background & (np.maximum(np.maximum(*first.T[:2]), first.T[2]).T > DARK)
    if bright.mean() > LEAST_BRIGHT:
        background = bright
    ratio = (now + np.float32(8)) / (first + 8)
    # Channel by channel, and beyond the last pixel a value for those that do not count.
    ratio = np.where(background.ravel(), ratio.reshape(-1, 3).T, np.inf)
    ratio = np.pad(ratio, ((0, 0), (0, 1)), constant_values=np.inf)
    whole, share = _medians(ratio, _pixels_of(background.shape, 1, 1))
    whole = whole[0, 0] if share.any() else np.ones(3, np.float32)
    gain, share = _medians(ratio, _pixels_of(background.shape, *BLOCKS))
    gain = np.clip(gain, *(np.float32(a) * whole for a in APART))
    gain = np.where((share > FILLED)[..., None], gain, whole)
    size = rgb.shape[1::-1]
    gain = cv2.resize(cv2.blur(gain, (3, 3)), size, interpolation=cv2.INTER_LINEAR)
    return _divided(rgb, gain)


@cache
def _pixels_of(shape: tuple[int, int], rows: int, columns: int) -> np.ndarray:
    """(rows, columns, most) which pixels of a picture (h, w) are in each block, filled up with one
    beyond the last."""
    pixels = np.arange(shape[0] * shape[1]).reshape(shape)
    y, x = (
        np.linspace(0, n, m + 1).astype(int) for n, m in zip(shape, (rows, columns), strict=True)
    )
    out = np.full((rows, columns, np.diff(y).max() * np.diff(x).max()), pixels.size)
    for i, j in np.ndindex(rows, columns):
        block = pixels[y[i] : y[i + 1], x[j] : x[j + 1]]
        out[i, j, : block.size] = block.ravel()
    return out


def _medians(ratio: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns, 3) medians of `ratio` (3, n + 1) over what is finite in each block of `pixels`,
    and (rows, columns) which share of the block that is."""
    values = np.sort(ratio[:, pixels], axis=-1)
    count = np.isfinite(values[0]).sum(-1)
    low, high = (
        np.take_along_axis(values, np.maximum(k, 0)[None, ..., None], -1)[..., 0]
        for k in ((count - 1) // 2, count // 2)
    )
    size = (pixels < ratio.shape[1] - 1).sum(-1)
    return np.moveaxis((low + high) / 2, 0, -1), count / size


@numba.njit(cache=True, nogil=True)
def _divided(rgb, gain):
    out = np.empty(rgb.shape, np.uint8)
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            for c in range(3):
                v = (np.float32(rgb[y, x, c]) + np.float32(8)) / gain[y, x, c] - np.float32(8)
                out[y, x, c] = np.uint8(min(max(v, np.float32(0)), np.float32(255)))
    return out
