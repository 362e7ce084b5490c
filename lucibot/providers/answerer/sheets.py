"""Numbered frames, several to a picture: how a model is shown what happens when."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

GAP_PX = 4
"""Between frames; dark, so that none is taken for a part of its neighbour."""


def sheets(
    frames: np.ndarray, numbers: Sequence[int], *, a_sheet: int, tile_px: int
) -> list[np.ndarray]:
    """Pictures (h, w, 3) uint8 RGB with up to `a_sheet` frames each, from left to right and from top to
    bottom, as square as can be.

    Args:
        frames: (F, H, W, 3) uint8 RGB.
        numbers: one for each frame, written in its upper left corner.
        tile_px: width of a frame; never more than it has.
    """
    columns = math.ceil(math.sqrt(a_sheet))
    tiles = [_tile(f, n, tile_px) for f, n in zip(frames, numbers, strict=True)]
    return [_joined(tiles[i : i + a_sheet], columns) for i in range(0, len(tiles), a_sheet)]


def _tile(frame: np.ndarray, number: int, width: int) -> np.ndarray:
    h, w = frame.shape[:2]
    width = min(width, w)
    size = (width, max(round(h * width / w), 1))
    out = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    scale = max(size[0] / 400, 0.4)
    text, thick = str(number), max(round(2 * scale), 1)
    (tw, th), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    pad = round(6 * scale)
    cv2.rectangle(out, (0, 0), (tw + 2 * pad, th + below + 2 * pad), (0, 0, 0), -1)
    cv2.putText(out, text, (pad, th + pad), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thick,
                cv2.LINE_AA)  # fmt: skip
    return out


def _joined(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    h, w = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    out = np.zeros((rows * (h + GAP_PX) - GAP_PX, columns * (w + GAP_PX) - GAP_PX, 3), np.uint8)
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * (h + GAP_PX), (i % columns) * (w + GAP_PX)
        out[y : y + h, x : x + w] = tile
    return out
