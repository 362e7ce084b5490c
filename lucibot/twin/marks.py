"""How a user tells which object is meant: clicks, a box, an outline or a mask, in the photo's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.errors import UserError

HOW = "x,y for a click, x0,y0,x1,y1 for a box, or three corners of an outline and more"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is known of where an object is, before it is segmented."""

    clicks: tuple[tuple[float, float], ...] = ()
    outside: tuple[tuple[float, float], ...] = ()
    """Clicks on what does not belong to it."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom."""
    mask: np.ndarray | None = None
    """(H, W) bool: nothing is left to find out."""


def read_mark(
    name: str, texts: list[str], shape: tuple[int, int], outside: tuple[str, ...] = ()
) -> Mark:
    """Marks as they are written on the command line: numbers with commas between them.

    Args:
        texts: one or more; several clicks are on one object, outlines are joined.
        outside: clicks on what does not belong to it.
        shape: (H, W) of the photo.

    Raises:
        UserError: no such numbers, or they lie outside of the photo.
    """
    clicks, box, mask = [], None, None
    for text in texts:
        points = _points(f"--object {name}={text}", text, shape)
        if len(points) == 1:
            clicks.append(tuple(points[0].tolist()))
        elif len(points) == 2:
            (x0, y0), (x1, y1) = points.min(0), points.max(0)
            if x1 - x0 < 3 or y1 - y0 < 3:
                raise UserError(f"--object {name}={text}: the box is smaller than three pixels")
            box = (float(x0), float(y0), float(x1), float(y1))
        else:
            part = np.zeros(shape, np.uint8)
            cv2.fillPoly(part, [np.round(points).astype(np.int32)], 1)
            mask = part > 0 if mask is None else mask | (part > 0)
    beside = []
    for text in outside:
        points = _points(f"--not {name}={text}", text, shape)
        beside += [tuple(p) for p in points.tolist()]
    return Mark(clicks=tuple(clicks), outside=tuple(beside), box=box, mask=mask)


def _points(what: str, text: str, shape: tuple[int, int]) -> np.ndarray:
    """(N, 2)"""
    try:
        v = [float(n) for n in text.split(",")]
    except ValueError:
        v = []
    if len(v) < 2 or len(v) % 2:
        raise UserError(f"{what}: expected {HOW}")
    points = np.array(v).reshape(-1, 2)
    if (points < 0).any() or (points > shape[::-1]).any():
        raise UserError(f"{what} lies outside of the photo's {shape[1]}x{shape[0]} pixels")
    return points


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool from a picture: opaque where an alpha channel tells something, else bright, which is
    more than half of 1, 255 or 65535, whichever white is.

    Raises:
        UserError: it cannot be read, has another shape than the photo, or shows nothing.
    """
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None:
        raise UserError(f"--mask {path} is no picture that can be read")
    if raw.ndim == 3:
        cut_out = raw.shape[2] == 4 and np.ptp(raw[..., 3]) > 0
        raw = raw[..., 3] if cut_out else raw[..., :3].max(2)
    h, w = raw.shape
    if abs(w / h / (shape[1] / shape[0]) - 1) > 0.01:
        raise UserError(f"--mask {path} has {w}x{h} pixels, another shape than the photo's")
    white = next((v for v in (1, 255) if raw.max() <= v), 65535)
    mask = cv2.resize(raw, shape[::-1], interpolation=cv2.INTER_NEAREST) > white / 2
    if not mask.any():
        raise UserError(f"--mask {path} is black all over")
    return mask
