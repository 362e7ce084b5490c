"""The stationary pinhole camera of a task (paper, section 3.1).

Everywhere: OpenCV axes (x right, y down, z forward), world z up, metres. Pixel (u, v) covers
[u, u + 1) x [v, v + 1), so its centre is (u + 0.5, v + 0.5). Depth is the z coordinate in the
camera frame, not the length of the ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

PLUMB = 0.25
"""A line of sight whose level part is a smaller share of it looks down by more than 75 degrees: so near
to a plumb line, how far away something is to the side does not tell how high it is."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Intrinsics [pixels] and pose of a pinhole camera."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    T_world_cam: np.ndarray
    """(4, 4) float64, maps camera coordinates to world coordinates."""

    @classmethod
    def look_at(
        cls,
        *,
        position: tuple[float, float, float],
        target: tuple[float, float, float],
        up: tuple[float, float, float] = (0.0, 0.0, 1.0),
        vertical_fov_deg: float,
        width: int,
        height: int,
        principal_point: tuple[float, float] = (0.5, 0.5),
    ) -> Camera:
        """A camera at `position` [m, world] that looks at `target` [m, world]; square pixels.

        Args:
            principal_point: where the optical axis meets the picture, as shares of its width from
                the left and of its height from the top; off the middle in a picture that was cut
                out of another.
        """
        eye, goal = np.asarray(position, float), np.asarray(target, float)
        forward = goal - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, np.asarray(up, float))
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        T_world_cam = np.eye(4)
        T_world_cam[:3, :3] = np.stack([right, down, forward], axis=1)
        T_world_cam[:3, 3] = eye
        f = 0.5 * height / np.tan(0.5 * np.deg2rad(vertical_fov_deg))
        return cls(
            width=width, height=height, fx=f, fy=f, cx=width * principal_point[0],
            cy=height * principal_point[1],
            T_world_cam=T_world_cam,
        )  # fmt: skip

    @property
    def T_cam_world(self) -> np.ndarray:
        """(4, 4) float64, maps world coordinates to camera coordinates."""
        R, t = self.T_world_cam[:3, :3], self.T_world_cam[:3, 3]
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = R.T, -R.T @ t
        return T

    @property
    def vertical_fov_deg(self) -> float:
        return float(np.rad2deg(2 * np.arctan(0.5 * self.height / self.fy)))

    def resized(self, width: int, height: int) -> Camera:
        """The same view on another pixel grid."""
        if (width, height) == (self.width, self.height):
            return self
        sx, sy = width / self.width, height / self.height
        return Camera(
            width=width, height=height, fx=self.fx * sx, fy=self.fy * sy,
            cx=self.cx * sx, cy=self.cy * sy, T_world_cam=self.T_world_cam,
        )  # fmt: skip

    def centred(self) -> tuple[Camera, tuple[int, int]]:
        """A camera that sees at least as much and has its principal point in the middle, and where
        this one's first column and row lie in its picture."""
        left, right = self.cx, self.width - self.cx
        above, below = self.cy, self.height - self.cy
        x, y = max(0, round(right - left)), max(0, round(below - above))
        wider = max(0, round(left - right)) + x
        higher = max(0, round(above - below)) + y
        width, height = self.width + wider, self.height + higher
        camera = Camera(
            width=width, height=height, fx=self.fx, fy=self.fy, cx=width / 2, cy=height / 2,
            T_world_cam=self.T_world_cam,
        )  # fmt: skip
        return camera, (x, y)

    def project(self, points_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points (..., 3) [m] to pixel coordinates (..., 2) and depth (...) [m]."""
        T = self.T_cam_world
        p = np.asarray(points_m, float) @ T[:3, :3].T + T[:3, 3]
        z = p[..., 2]
        safe = np.where(np.abs(z) < 1e-9, 1e-9, z)
        uv = np.stack(
            [self.fx * p[..., 0] / safe + self.cx, self.fy * p[..., 1] / safe + self.cy], -1
        )
        return uv, z

    @cached_property
    def rays(self) -> np.ndarray:
        """(H, W, 3) [m, world]: from the eye to the points at depth 1 m behind pixel centres."""
        u, v = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        p = np.stack([(u - self.cx) / self.fx, (v - self.cy) / self.fy, np.ones_like(u)], -1)
        return p @ self.T_world_cam[:3, :3].T

    def unproject(self, depth_m: np.ndarray, at=...) -> np.ndarray:
        """A depth image (H, W) [m] to world points [m] of the pixels `at` an index: (P, 3), or
        (H, W, 3) of all by default."""
        rays = self.resized(*depth_m.shape[::-1]).rays
        return self.T_world_cam[:3, 3] + rays[at] * depth_m[at][..., None]

    def to_dict(self) -> dict:
        """Plain numbers for json and toml."""
        return {
            "width": self.width, "height": self.height, "fx": self.fx, "fy": self.fy,
            "cx": self.cx, "cy": self.cy, "T_world_cam": self.T_world_cam.tolist(),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, d: dict) -> Camera:
        return cls(**{**d, "T_world_cam": np.asarray(d["T_world_cam"], float)})
