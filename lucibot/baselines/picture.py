"""Colour pictures of rollouts, from what was drawn of them: labels and depth on the observation grid.

Ray-tracing every rollout would cost more than simulating it. So what has not moved keeps the pixels of
the scene's first frame, what is uncovered takes those of the empty scene, and what has moved is painted
in its own colour with the shade of its slope. What is missing against a ray-traced picture: its
texture, its shadow and its reflections.
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.core.camera import Camera
from lucibot.core.scene_view import SceneView

STILL_M = 0.005
"""A pixel whose depth has changed by less than this, under the same label, shows what it showed: particles
are drawn as balls, whose surface is not as even as the first frame's."""
AMBIENT = 0.45
"""Light on a surface that is seen edge-on, as a share of that on one that faces the camera."""


class Painter:
    """Paints pictures (H, W) of one scene."""

    def __init__(self, view: SceneView, camera: Camera):
        """
        Args:
            camera: of the observation grid, a resized view of the scene's.
        """
        size = (camera.width, camera.height)
        self._camera = camera
        self._first = cv2.resize(view.first_frame, size, interpolation=cv2.INTER_AREA)
        self._labels = cv2.resize(view.labels, size, interpolation=cv2.INTER_NEAREST)
        self._depth = cv2.resize(view.depth_m, size, interpolation=cv2.INTER_NEAREST)
        self._colours = _colours(view)
        if view.background_frame is not None:
            self._empty = cv2.resize(view.background_frame, size, interpolation=cv2.INTER_AREA)
        else:
            mask = cv2.dilate((self._labels > 0).astype(np.uint8), np.ones((3, 3)), iterations=2)
            self._empty = cv2.inpaint(self._first, mask, 5, cv2.INPAINT_TELEA)

    def paint(self, label: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
        """Labels (P, H, W) uint8 and depth (P, H, W) [m] to pictures (P, H, W, 3) uint8 RGB."""
        return np.stack(
            [self._one(la, d.astype(np.float32)) for la, d in zip(label, depth_m, strict=True)]
        )

    def _one(self, label: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
        out = self._empty.copy()
        flat = self._colours[label] * self._shade(label, depth_m)[..., None]
        out[label > 0] = np.clip(flat, 0, 255).astype(np.uint8)[label > 0]
        same = (label == self._labels) & (np.abs(depth_m - self._depth) < STILL_M)
        # What differs by a pixel's width is drawn differently, and beside what has changed a pixel of
        # the first frame may show both.
        changed = cv2.morphologyEx((~same).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3)))
        still = cv2.dilate(changed, np.ones((5, 5))) == 0
        out[still] = self._first[still]
        return out

    def _shade(self, label: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
        """(H, W) light by how much the surface faces the camera."""
        c, depth_m = self._camera, cv2.medianBlur(depth_m, 5)
        dx = cv2.Sobel(depth_m, cv2.CV_32F, 1, 0, scale=1 / 8) * c.fx / depth_m
        dy = cv2.Sobel(depth_m, cv2.CV_32F, 0, 1, scale=1 / 8) * c.fy / depth_m
        facing = 1 / np.sqrt(1 + dx**2 + dy**2)
        # Across an outline depth jumps, which is no slope.
        rim = cv2.morphologyEx(label, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        return np.where(rim, 0.85, AMBIENT + (1 - AMBIENT) * facing).astype(np.float32)


def _colours(view: SceneView) -> np.ndarray:
    """(L + 1, 3) float32 of each label: the median of its pixels in the first frame, brightened by what
    the shade takes; grey where it is not seen there."""
    out = np.full((len(view.names) + 1, 3), 150, np.float32)
    for i, name in enumerate(view.names):
        mask = view.mask(name)
        if mask.any():
            out[i + 1] = np.median(view.first_frame[mask], 0) * 1.15
    return out
