"""Spoons, ladles and spatulas: a handle and a hollow along an outline that is read from the mask."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import trimesh

from lucibot.core.camera import Camera
from lucibot.twin.shapes import closed

STATIONS = 40
ACROSS = 13
"""Points across the upper and the under side."""
HANDLE_M = 0.009
"""Thickness of a handle."""
WALL_M = 0.003


@dataclass(frozen=True, kw_only=True)
class Ladle:
    """In its own frame x runs along the handle to the bowl, y across, z out of the hollow; z = 0 is
    the rim's plane, and x = 0 the middle."""

    x_m: list[float]
    left_m: list[float]
    """y of its left edge at each x."""
    right_m: list[float]
    depth_m: float
    """Of the hollow, from the rim's plane."""
    handle_m: float = HANDLE_M
    wall_m: float = WALL_M

    @property
    def _half(self) -> np.ndarray:
        return (np.array(self.left_m) - np.array(self.right_m)) / 2

    @property
    def _middle(self) -> np.ndarray:
        return (np.array(self.left_m) + np.array(self.right_m)) / 2

    @property
    def bowl(self) -> np.ndarray:
        """(N,) how much of a bowl it is at each x: 0 along the handle, 1 where it is widest."""
        half = self._half
        handle = float(np.median(half[: len(half) // 3]))
        share = np.clip((half - 1.15 * handle) / max(half.max() - 1.15 * handle, 1e-6), 0, 1)
        share[: int(half.argmax())][half[: int(half.argmax())] < 1.15 * handle] = 0
        return np.sqrt(share)

    def floor_m(self, xy: np.ndarray) -> np.ndarray:
        """z of the hollow's floor (...) at (..., 2), 0 beside it."""
        x = np.asarray(self.x_m)
        hollow = np.interp(xy[..., 0], x, self.depth_m * self.bowl, left=0, right=0)
        half = np.maximum(np.interp(xy[..., 0], x, self._half) - self.wall_m, 1e-4)
        across = np.clip((xy[..., 1] - np.interp(xy[..., 0], x, self._middle)) / half, -1, 1)
        return -hollow * np.sqrt(1 - across**2)

    def mesh(self) -> trimesh.Trimesh:
        """A closed mesh."""
        theta = np.linspace(0, np.pi, ACROSS)
        rings = []
        for x, half, middle, bowl in zip(
            self.x_m, self._half, self._middle, self.bowl, strict=True
        ):
            under = (
                min(self.handle_m, 1.2 * half) * (1 - bowl) + (self.depth_m + self.wall_m) * bowl
            )
            inner = max(half - self.wall_m, 0.3 * half)
            down = self.depth_m * bowl + 2e-4
            y = np.r_[middle + half * np.cos(theta), middle - inner * np.cos(theta)]
            z = np.r_[-max(under, down + 8e-4) * np.sin(theta), -down * np.sin(theta)]
            rings.append(np.stack([np.full_like(y, x), y, z], -1))
        rings = np.array(rings)
        n, r, _ = rings.shape
        i = np.arange(n - 1)[:, None] * r
        a, b = i + np.arange(r), i + (np.arange(r) + 1) % r
        sides = np.concatenate([np.stack([a, a + r, b], -1), np.stack([b, a + r, b + r], -1)])
        # Each end is a strip between the upper and the under side.
        caps = []
        for start in (0, (n - 1) * r):
            for k in range(ACROSS - 1):
                p, q = start + k, start + k + 1
                s, t = start + r - 1 - k, start + r - 2 - k
                quad = [[p, q, s], [q, t, s]]
                caps += quad if start else [f[::-1] for f in quad]
        return closed(rings.reshape(-1, 3), np.concatenate([sides.reshape(-1, 3), caps]))


def along(
    mask: np.ndarray, camera: Camera, point_m: np.ndarray, normal: np.ndarray, gaps: np.ndarray
) -> tuple[Ladle, np.ndarray]:
    """A ladle whose outline is the mask's, laid on a plane.

    Args:
        mask: (H, W) bool.
        point_m: (3,) [m, world] on the plane of its rim.
        normal: (3,) of that plane, upwards.
        gaps: (H, W) bool: what lies on it and hides parts of it.

    Returns:
        the ladle, and (4, 4) world from its frame.
    """
    filled = (mask | (gaps & _within(mask))).astype(np.uint8)
    found, _ = cv2.findContours(filled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    uv = np.concatenate(found)[:, 0] + 0.5
    d = np.stack([(uv[:, 0] - camera.cx) / camera.fx, (uv[:, 1] - camera.cy) / camera.fy,
                  np.ones(len(uv))], -1) @ camera.T_world_cam[:3, :3].T  # fmt: skip
    eye = camera.T_world_cam[:3, 3]
    edge = eye + d * (((point_m - eye) @ normal) / (d @ normal))[:, None]
    middle = edge.mean(0)
    axis = np.linalg.svd(edge - middle, full_matrices=False)[2][0]
    across = np.cross(normal, axis)
    t = (edge - middle) @ axis
    y = (edge - middle) @ across
    width_high, width_low = (np.ptp(y[t > np.quantile(t, 0.7)]), np.ptp(y[t < np.quantile(t, 0.3)]))
    if width_high < width_low:
        axis, across, t, y = -axis, -across, -t, -y
    # Pixel centres lie half a pixel inside of the outline.
    half_px = 0.5 * float(np.median(np.linalg.norm(edge - eye, axis=1))) / camera.fx
    low, high = t.min() - half_px, t.max() + half_px
    x = 0.5 * (low + high) + 0.5 * (high - low) * np.sin(np.linspace(-1.5, 1.5, STATIONS))
    left, right = _edges(t, y, x, high - low)
    offset = 0.5 * (low + high)
    T = np.eye(4)
    T[:3, :3] = np.stack([axis, across, normal], 1)
    T[:3, 3] = middle + offset * axis
    ladle = Ladle(
        x_m=[float(v) for v in x - offset], left_m=[float(v) for v in left + half_px],
        right_m=[float(v) for v in right - half_px],
        depth_m=0.42 * float((left - right).max() / 2) + 0.002,
    )  # fmt: skip
    return ladle, T


def _within(mask: np.ndarray) -> np.ndarray:
    """The mask with its holes filled, and its hull's narrow gaps."""
    size = max(3, int(0.2 * np.sqrt(mask.sum())) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0


def _edges(t, y, x, length: float) -> tuple[np.ndarray, np.ndarray]:
    """The outermost y to both sides near each x, smoothed."""
    reach = 0.6 * length / STATIONS
    middle = np.polyval(np.polyfit(t, y, 1), x)
    left, right = np.empty(len(x)), np.empty(len(x))
    for k, at in enumerate(x):
        near = np.abs(t - at) < max(reach, np.sort(np.abs(t - at))[3])
        above, below = y[near & (y >= middle[k])], y[near & (y < middle[k])]
        left[k] = np.median(above) if len(above) else middle[k]
        right[k] = np.median(below) if len(below) else middle[k]
    thin = left - right < 2e-3
    left[thin], right[thin] = left[thin] + 1e-3, right[thin] - 1e-3
    return left, right
