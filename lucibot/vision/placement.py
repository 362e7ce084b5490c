"""Which part of a file's picture goes where on a camera's grid: bars off, bars on, or cropped."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from lucibot.core.camera import Camera

BAR_LEVEL = 24
"""Bars are at most this bright, of 255."""
BAR_LEAST = 0.01
"""Narrower bars are left to the registration [of the picture's size]."""
ASPECT_TOLERANCE = 0.01
"""Relative difference of two aspect ratios up to which a picture is resized without bars."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A box of the file's picture, and the box of the grid that it fills."""

    crop: tuple[int, int, int, int]
    """x0, y0, x1, y1 in the file's picture [pixels]."""
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 on the grid [pixels]; what is left over is black."""
    bars: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Black bars that are taken off: left, top, right, bottom [pixels of the file's picture]."""
    stretched: bool = False
    """The aspects differ and it is resized all the same."""

    def apply(self, rgb: np.ndarray, camera: Camera) -> np.ndarray:
        """The file's picture (h, w, 3) uint8 on the camera's grid (H, W, 3)."""
        x0, y0, x1, y1 = self.crop
        u0, v0, u1, v1 = self.box
        part, size = rgb[y0:y1, x0:x1], (u1 - u0, v1 - v0)
        if part.shape[1::-1] != size:
            shrinks = size[0] < x1 - x0
            part = cv2.resize(
                part, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            )
        if size == (camera.width, camera.height):
            return np.ascontiguousarray(part)
        out = np.zeros((camera.height, camera.width, 3), np.uint8)
        out[v0:v1, u0:u1] = part
        return out

    def empty(self, camera: Camera) -> np.ndarray:
        """(H, W) bool: pixels of the grid that the file says nothing of."""
        out = np.ones((camera.height, camera.width), bool)
        u0, v0, u1, v1 = self.box
        out[v0:v1, u0:u1] = False
        return out

    def scaled(self, sx: float, sy: float) -> Placement:
        """The same for the file's picture at another size."""

        def at(box):
            return tuple(round(v * s) for v, s in zip(box, (sx, sy, sx, sy), strict=True))

        return replace(self, crop=at(self.crop), bars=at(self.bars))


def placements(rgb: np.ndarray, camera: Camera) -> list[Placement]:
    """How a picture (h, w, 3) uint8 may lie on the grid, the plainest first: as a whole, with bars
    or cropped where the aspects differ, or squeezed; and the same without its own black bars."""
    h, w = rgb.shape[:2]
    out = _of((0, 0, w, h), camera)
    left, top, right, bottom = bars = black_bars(rgb)
    if any(bars):
        inner = _of((left, top, w - right, h - bottom), camera)
        out += [replace(p, bars=bars) for p in inner]
    return out


def _of(crop: tuple[int, int, int, int], camera: Camera) -> list[Placement]:
    x0, y0, x1, y1 = crop
    w, h, W, H = x1 - x0, y1 - y0, camera.width, camera.height
    whole = Placement(crop=crop, box=(0, 0, W, H))
    if abs((w / h) / (W / H) - 1) <= ASPECT_TOLERANCE:
        return [whole]
    small = min(W / w, H / h)
    u, v = max(round(w * small), 1), max(round(h * small), 1)
    left, top = (W - u) // 2, (H - v) // 2
    with_bars = Placement(crop=crop, box=(left, top, left + u, top + v))
    large = max(W / w, H / h)
    m, n = min(round(W / large), w), min(round(H / large), h)
    x, y = x0 + (w - m) // 2, y0 + (h - n) // 2
    cropped = Placement(crop=(x, y, x + m, y + n), box=(0, 0, W, H))
    return [with_bars, cropped, replace(whole, stretched=True)]


def black_bars(rgb: np.ndarray) -> tuple[int, int, int, int]:
    """Widths of the black bars of a picture (h, w, 3): left, top, right, bottom [pixels].

    A bar is black all along and ends at a straight edge; 0 where there is none, or next to nothing.
    """
    bright = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    out = []
    for axis in (0, 1):
        # What blocks and ringing leave in a bar's last rows is no picture.
        lines = np.percentile(bright, 98, axis=axis)
        lit = np.flatnonzero(lines > BAR_LEVEL)
        size = len(lines)
        first, last = (int(lit[0]), size - 1 - int(lit[-1])) if len(lit) else (0, 0)
        out.append([n if BAR_LEAST * size <= n < 0.4 * size else 0 for n in (first, last)])
    (left, right), (top, bottom) = out
    return left, top, right, bottom


def fit_to_camera(rgb: np.ndarray, camera: Camera) -> np.ndarray:
    """A picture (h, w, 3) uint8 on the camera's grid as a whole: resized, with black bars where the
    aspect differs by more than one percent."""
    h, w = rgb.shape[:2]
    return _of((0, 0, w, h), camera)[0].apply(rgb, camera)


def layout(p: Placement, size: tuple[int, int], camera: Camera) -> list[str]:
    """What was done to the picture's frame, in words."""
    out = []
    if any(p.bars):
        left, top, right, bottom = p.bars
        out.append(
            f"its black bars are taken off (left {left}, top {top}, right {right}, bottom {bottom} "
            "pixels)"
        )
    inner = (size[0] - p.bars[0] - p.bars[2], size[1] - p.bars[1] - p.bars[3])
    aspects = f"it is {inner[0]}x{inner[1]}, the camera {camera.width}x{camera.height}"
    if p.stretched:
        out.append(f"{aspects}: it is squeezed onto the other aspect")
    elif (p.crop[2] - p.crop[0], p.crop[3] - p.crop[1]) != inner:
        out.append(f"{aspects}: its sides are cropped")
    elif p.box != (0, 0, camera.width, camera.height):
        out.append(f"{aspects}: it gets black bars")
    return out
