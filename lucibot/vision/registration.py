"""Where a scene's picture lies in another picture of it: shift, scale and turn, by what both show.

Patches of the scene are looked for in the other picture, each by the correlation of its contrast,
which a change of exposure, colours or style leaves standing. A similarity transform that most of
them agree on is the answer; if they do not agree there is none, and that is said.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

COARSE = 160
"""Pixels across at which the rough shift is looked for."""
REACH = 0.12
"""Largest rough shift [picture widths]."""
FINE = 640
"""Pixels across at which patches are compared, at most."""
PATCH = 0.075
"""Side of a patch [picture widths]."""
PLAY = 0.022
"""How far a patch may lie from where the rough shift puts it [picture widths]: scale and turn."""
ALIKE = 0.5
"""Least correlation of a patch that counts as found."""
AGREE_PX = 1.5
"""How far a patch may lie from the common transform, at the fine size."""
FEWEST = 8
"""Patches that a transform is read from, at least."""
CERTAIN = 0.5
"""Share of the patches with contrast that must agree."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A scene's picture found in another one on the same grid."""

    A: np.ndarray
    """(2, 3) maps scene pixels to the other picture's; the unit map if nothing was found."""
    agreeing: int
    """Patches that agree with it."""
    patches: int
    """Patches with contrast enough to be looked for."""
    alike: float
    """Median correlation of the agreeing patches."""
    displacement_px: float
    """Mean way of the picture's corners [pixels]."""

    @property
    def certain(self) -> bool:
        return self.agreeing >= max(FEWEST, CERTAIN * self.patches)

    @property
    def shift_px(self) -> tuple[float, float]:
        """How far the scene lies to the right and down, at the middle of what was compared."""
        return float(self.middle[0]), float(self.middle[1])

    middle: np.ndarray
    """(2,) shift of the picture's centre [pixels]."""

    @property
    def scale(self) -> float:
        return float(np.hypot(self.A[0, 0], self.A[1, 0]))

    @property
    def turn_deg(self) -> float:
        """Clockwise on the screen."""
        return float(np.rad2deg(np.arctan2(self.A[1, 0], self.A[0, 0])))


def register(scene: np.ndarray, picture: np.ndarray, *, ignore: np.ndarray | None = None):
    """Find `scene` (H, W, 3) uint8 RGB in `picture` of the same shape.

    Args:
        ignore: (H, W) bool on the picture, where it shows nothing, such as black bars.

    Returns:
        the `Registration`; ask it whether it is `certain`.
    """
    h0, w0 = scene.shape[:2]
    w = min(FINE, w0)
    h = max(round(h0 * w / w0), 1)
    small = [cv2.resize(p, (w, h), interpolation=cv2.INTER_AREA) for p in (scene, picture)]
    a, b = (_contrast(p) for p in small)
    seen = np.ones((h, w), np.uint8)
    if ignore is not None and ignore.any():
        seen = 1 - cv2.resize(ignore.astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST)
        b = np.where(seen > 0, b, 0).astype(np.float32)
    rough = _rough_shift(a, b)
    side = round(PATCH * w)
    found = _patches(a, b, seen, rough, side, round(PLAY * w))
    at, to, alike, patches = found
    A, agreeing = _common(at, to, alike)
    if agreeing is None:
        A, count, level = np.eye(2, 3), 0, 0.0
    else:
        count, level = int(agreeing.sum()), float(np.median(alike[agreeing]))
    A = enlarged(A, w0 / w)
    corners = np.array([[0, 0], [w0 - 1, 0], [0, h0 - 1], [w0 - 1, h0 - 1]], float)
    moved = corners @ A[:, :2].T + A[:, 2] - corners
    return Registration(
        A=A, agreeing=count, patches=patches, alike=level, middle=moved.mean(0),
        displacement_px=float(np.linalg.norm(moved, axis=1).mean()),
    )  # fmt: skip


def enlarged(A: np.ndarray, times: float) -> np.ndarray:
    """Maps between pictures, (..., 2, 3) [pixels], as maps between the same pictures so many times as
    large. Pixel n of a picture lies at n, and its edge half a pixel before it."""
    linear = A[..., :2]
    centre = 0.5 - 0.5 * linear.sum(-1)
    shift = times * (A[..., 2] + centre) - centre
    return np.concatenate([linear, shift[..., None]], axis=-1)


def _contrast(rgb: np.ndarray) -> np.ndarray:
    """(h, w) float32 lightness over its surroundings: without exposure and soft shadows."""
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    gray = cv2.GaussianBlur(gray, (0, 0), 1.0)
    wide = rgb.shape[1] / 40
    mean = cv2.GaussianBlur(gray, (0, 0), wide)
    spread = np.sqrt(cv2.GaussianBlur((gray - mean) ** 2, (0, 0), wide))
    # Where hardly anything is to be seen, noise is not to be made into something.
    return (gray - mean) / (spread + 3.0)


def _rough_shift(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(2,) whole shift (x, y) of b against a with the best correlation over the whole picture."""
    h, w = a.shape
    s = COARSE / w
    size = (COARSE, max(round(h * s), 1))
    small = [cv2.resize(np.abs(p), size, interpolation=cv2.INTER_AREA) for p in (a, b)]
    rx, ry = (round(REACH * COARSE), round(REACH * COARSE * h / w))
    middle = small[0][ry : size[1] - ry, rx : size[0] - rx]
    match = cv2.matchTemplate(small[1], middle, cv2.TM_CCOEFF_NORMED)
    y, x = np.unravel_index(int(match.argmax()), match.shape)
    return np.array([x - rx, y - ry]) / s


def _patches(a, b, seen, rough, side: int, play: int):
    """Where patches of `a` lie in `b`: (n, 2) centres in each, correlations (n,), and how many had
    contrast enough to be looked for where `b` shows something."""
    h, w = a.shape
    dx, dy = (int(v) for v in np.round(rough))
    at, to, alike, patches = [], [], [], 0
    step = max(side * 2 // 3, 1)
    for y in range(play, h - side - play + 1, step):
        for x in range(play, w - side - play + 1, step):
            x0, y0 = x + dx - play, y + dy - play
            x1, y1 = x0 + side + 2 * play, y0 + side + 2 * play
            if x0 < 0 or y0 < 0 or x1 > w or y1 > h or not seen[y0:y1, x0:x1].all():
                continue
            patch = a[y : y + side, x : x + side]
            # Both ways: an edge that runs straight through says nothing of its own direction.
            gx, gy = np.gradient(patch)[::-1]
            xx, yy, xy = (gx * gx).mean(), (gy * gy).mean(), (gx * gy).mean()
            least = 0.5 * (xx + yy - np.hypot(xx - yy, 2 * xy))
            if least < 2e-3:
                continue
            patches += 1
            match = cv2.matchTemplate(b[y0:y1, x0:x1], patch, cv2.TM_CCOEFF_NORMED)
            py, px = np.unravel_index(int(match.argmax()), match.shape)
            if match[py, px] < ALIKE or not (0 < px < 2 * play and 0 < py < 2 * play):
                continue
            peak = match[py - 1 : py + 2, px - 1 : px + 2]
            centre = np.array([x, y]) + 0.5 * (side - 1)
            at.append(centre)
            summit = np.array([px + _summit(peak[1]), py + _summit(peak[:, 1])]) - play
            to.append(centre + np.array([dx, dy]) + summit)
            alike.append(match[py, px])
    return np.array(at).reshape(-1, 2), np.array(to).reshape(-1, 2), np.array(alike), patches


def _summit(three: np.ndarray) -> float:
    """Where a parabola through three values, the middle one the largest, is highest [-0.5, 0.5]."""
    bend = three[0] - 2 * three[1] + three[2]
    return (
        0.0 if abs(bend) < 1e-9 else float(np.clip(0.5 * (three[0] - three[2]) / bend, -0.5, 0.5))
    )


def _common(at, to, alike):
    """The similarity transform (2, 3) that most patches agree on, and which ones do (n,) bool."""
    if len(at) < FEWEST:
        return np.eye(2, 3), None
    A, inliers = cv2.estimateAffinePartial2D(
        at, to, method=cv2.RANSAC, ransacReprojThreshold=AGREE_PX, maxIters=2000, confidence=0.999
    )
    if A is None or inliers.sum() < FEWEST:
        return np.eye(2, 3), None
    return A, inliers.ravel() > 0
