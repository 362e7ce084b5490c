"""What the scripts that make a task's textures share: seeded noise that tiles without a seam."""

from __future__ import annotations

import cv2
import numpy as np


def noise(shape: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (H, W) in [0, 1] with about `cells` features a side, tileable."""
    coarse = np.pad(rng.random(cells).astype(np.float32), 3, mode="wrap")
    sy, sx = shape[0] / cells[0], shape[1] / cells[1]
    y, x = np.meshgrid(np.arange(shape[0]) / sy + 3, np.arange(shape[1]) / sx + 3, indexing="ij")
    return cv2.remap(coarse, x.astype(np.float32), y.astype(np.float32), cv2.INTER_CUBIC)


def octaves(shape, cells, rng, count: int, gain: float = 0.5) -> np.ndarray:
    """Sum of `count` octaves of noise, each twice as fine and `gain` as strong, mean about 0.5."""
    out, weight, total = np.zeros(shape, np.float32), 1.0, 0.0
    for k in range(count):
        out += weight * noise(shape, (cells[0] * 2**k, cells[1] * 2**k), rng)
        total, weight = total + weight, weight * gain
    return out / total
