"""Pictures as they are sent to a model, within a budget of pixels."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

import cv2
import numpy as np

PICTURE_TOKENS = 85
"""That a picture costs beside its pixels."""
QUALITY = 92
"""Of JPEG: frames of a video are compressed more than this before."""


def sizes(pictures: Sequence[np.ndarray], *, side_px: int, megapixels: float) -> list[tuple]:
    """(width, height) with which each (H, W, 3) is sent: no side longer than `side_px`, and all
    together no more than `megapixels`; where they would be, all shrink by the same factor."""
    fitted = []
    for picture in pictures:
        h, w = picture.shape[:2]
        scale = min(1.0, side_px / max(h, w))
        fitted.append((w * scale, h * scale))
    total = sum(w * h for w, h in fitted)
    shrink = min(1.0, math.sqrt(megapixels * 1e6 / total)) if total else 1.0
    # Down where the budget binds, so that it is kept; else to the nearest pixel.
    whole = math.floor if shrink < 1 else round
    return [(max(whole(w * shrink), 1), max(whole(h * shrink), 1)) for w, h in fitted]


def data_url(picture: np.ndarray, size: tuple[int, int]) -> str:
    """A picture (H, W, 3) uint8 RGB as JPEG in a data URL."""
    if size != picture.shape[1::-1]:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    bgr = np.ascontiguousarray(picture[..., ::-1])
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


def tokens_of(pictures: int, pixels: float, px_per_token: float) -> int:
    """More tokens than servers make of so many pictures with so many pixels in all."""
    return pictures * PICTURE_TOKENS + math.ceil(pixels / px_per_token)
