"""Estimates of depth put in metres by what is known of the scene.

A network's depth is right up to a scale and a shift, which differ from frame to frame. The background,
whose depth is known, tells both wherever nothing is before it; where it is flat and level with the
picture, it cannot tell the scale, and the objects of the first frame, whose depth is known as well,
do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from lucibot.core.errors import RunFailed
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.vision.grid import resize_mask

Gives = Literal["depth", "disparity"]
"""What an estimate is up to scale and shift: depth, or one over it (larger is nearer)."""

MARGIN = 0.008
"""How far from objects and hands background counts as such, as a share of the picture's width: there
lie shadows and soft edges."""
LEAST_KNOWN = 500
"""Pixels of background that are needed to align a frame by itself."""
SAMPLES = 6000
ANCHORS = 0.05
"""Weight of all the first frame's objects, as a share of the background's."""
TRIES = 200
WORST = 0.15
"""Where the middle known pixel is off by more than this share of its depth, the estimate is none."""
NEAREST_M = 0.05


@dataclass(frozen=True, kw_only=True)
class Affine:
    """Known = scale * estimated + shift, in depth [m] or disparity [1/m]."""

    scale: float
    shift: float
    gives: Gives

    def depth_m(self, estimate: np.ndarray) -> np.ndarray:
        """Float32 [m]; where disparity comes out as none, far away."""
        value = self.scale * estimate.astype(np.float64) + self.shift
        if self.gives == "disparity":
            value = 1 / np.maximum(value, 1e-4)
        return np.maximum(value, NEAREST_M).astype(np.float32)


def known_background(view: SceneView, tracks: Tracks, t: int) -> np.ndarray:
    """(H, W) bool on the view's grid: pixels of frame t that show background of known depth."""
    size = (view.camera.width, view.camera.height)
    near = resize_mask(tracks.hand[t] | tracks.masks[t].any(0), size)
    reach = 2 * max(1, round(MARGIN * size[0])) + 1
    known = cv2.dilate(near.astype(np.uint8), np.ones((reach, reach), np.uint8)) == 0
    known &= np.isfinite(view.background_depth_m) & (view.background_depth_m > 0)
    if tracks.unseen is not None:
        known &= ~resize_mask(tracks.unseen[t], size)
    return known


def put_back(depth_m: np.ndarray, view: SceneView, tracks: Tracks, t: int) -> np.ndarray:
    """Depth (H, W) float32 [m] of frame t with the known background in its place, nothing of an object
    behind it, and hands unknown (NaN)."""
    size = (view.camera.width, view.camera.height)
    thing = resize_mask(tracks.masks[t].any(0), size)
    behind = np.where(view.background_depth_m > 0, view.background_depth_m, np.inf)
    out = np.where(thing, np.minimum(depth_m, behind), view.background_depth_m).astype(np.float32)
    out[resize_mask(tracks.hand[t], size)] = np.nan
    return out


class Aligner:
    """Puts estimates (H, W) of a video's frames in metres, one after the other."""

    def __init__(self, view: SceneView, tracks: Tracks, gives: Gives, model: str):
        """
        Args:
            model: its name, for messages.
        """
        self._view, self._tracks, self._gives, self._model = view, tracks, gives, model
        self._anchors = (np.zeros(0), np.zeros(0))
        self._last: Affine | None = None
        self._rng = np.random.default_rng(0)

    def first(self, estimate: np.ndarray) -> None:
        """What the model says of the first frame: there the objects' depth is known, too."""
        things = self._view.labels > 0
        # Edges are where an estimate is blurred.
        inner = cv2.erode(things.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        inner &= ~resize_mask(self._tracks.hand[0], things.shape[::-1])
        inner &= np.isfinite(self._view.depth_m) & (self._view.depth_m > 0)
        self._anchors = self._some(estimate, self._view.depth_m, inner, SAMPLES // 4)

    def __call__(self, estimate: np.ndarray, t: int) -> np.ndarray:
        """(H, W) float32 [m], of frame t.

        Raises:
            RunFailed: the estimate has nothing to do with what is known.
        """
        known = known_background(self._view, self._tracks, t) & np.isfinite(estimate)
        if known.sum() >= LEAST_KNOWN:
            x, y = self._some(estimate, self._view.background_depth_m, known, SAMPLES)
            self._last = self._fitted(x, y, t)
        elif self._last is None:
            raise RunFailed(
                f"{self._model}: too little background is seen in frame {t + 1} to put its depth in "
                "metres; another member needs none: --perceive.depth fill"
            )
        return self._last.depth_m(estimate)

    def _some(self, estimate, depth_m, where, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Up to `count` pairs of an estimate and what is known."""
        at = np.flatnonzero(where & np.isfinite(estimate))
        at = self._rng.choice(at, min(count, len(at)), replace=False) if len(at) else at
        y = depth_m.reshape(-1)[at].astype(np.float64)
        return estimate.reshape(-1)[at].astype(np.float64), (
            1 / y if self._gives == "disparity" else y
        )

    def _fitted(self, x: np.ndarray, y: np.ndarray, t: int) -> Affine:
        ax, ay = self._anchors
        weight = np.ones(len(x) + len(ax))
        if len(ax):
            weight[len(x) :] = ANCHORS * len(x) / len(ax)
        scale, shift = fit_affine(
            np.concatenate([x, ax]), np.concatenate([y, ay]), weight, self._rng
        )
        found = Affine(scale=scale, shift=shift, gives=self._gives)
        true = 1 / y if self._gives == "disparity" else y
        given = found.depth_m(x)
        off = float(np.median(np.abs(given - true) / true))
        if scale <= 0 or off > WORST:
            how = "falls where the known one rises" if scale <= 0 else f"is off by {off:.0%}"
            raise RunFailed(
                f"{self._model}: its depth has nothing to do with the known depth of the background "
                f"(frame {t + 1}: brought into line with it, it {how}); is the checkpoint a trained "
                "one? Another member needs none: --perceive.depth fill"
            )
        return found


def fit_affine(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Scale and shift with y = scale * x + shift for most pairs (n,), whatever the others say.

    Lines through random pairs of points, then least squares in which what is off by more than the
    middle one counts for less and less (Cauchy's weights).
    """
    share = weight / weight.sum()
    i, j = rng.choice(len(x), (2, TRIES), p=share)
    spread = np.ptp(x) or 1.0
    apart = np.abs(x[i] - x[j]) > 1e-3 * spread
    i, j = i[apart], j[apart]
    if len(i) == 0:
        return 0.0, float(np.median(y))
    scales = (y[i] - y[j]) / (x[i] - x[j])
    shifts = y[i] - scales * x[i]
    some = rng.choice(len(x), min(len(x), 1000), p=share)
    off = np.abs(scales[:, None] * x[some] + shifts[:, None] - y[some])
    best = int(np.median(off, axis=1).argmin())
    scale, shift = float(scales[best]), float(shifts[best])
    for _ in range(20):
        residual = scale * x + shift - y
        middle = max(1.4826 * _weighted_median(np.abs(residual), weight), 1e-9)
        w = weight / (1 + (residual / (2 * middle)) ** 2)
        mx, my = np.average(x, weights=w), np.average(y, weights=w)
        variance = np.average((x - mx) ** 2, weights=w)
        if variance < 1e-18:
            break
        before = scale
        scale = float(np.average((x - mx) * (y - my), weights=w) / variance)
        shift = float(my - scale * mx)
        if abs(scale - before) <= 1e-9 * abs(scale):
            break
    return scale, shift


def _weighted_median(values: np.ndarray, weight: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])
