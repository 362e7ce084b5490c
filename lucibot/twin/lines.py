"""Which way the photo's camera looks, by straight edges: three directions at right angles of which one
is the vertical (a Manhattan frame), and the field of view in which they are at right angles."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import least_squares

FOV_DEG, FOV_SPREAD = 48.0, 0.16
"""Of the vertical field of view before anything was seen, and the spread of its logarithm: phones
have about 50 degrees held level, webcams and depth cameras 42."""
SHORTEST = 0.035
"""Edges shorter than this share of the picture's width are left out."""
MOST = 60
TOLERANCE_DEG = 1.2
"""How far an edge's direction may be from where it is taken to point."""
ROLL_SPREAD_DEG = 3.0


@dataclass(frozen=True, kw_only=True)
class Gaze:
    """How a camera looks at a horizontal world: world x is to the right, y away from the viewer, z up,
    turned about z so that the room's edges run along x and y."""

    vertical_fov_deg: float
    pitch_deg: float
    """How far it looks down."""
    roll_deg: float
    yaw_deg: float
    """Of the room's x axis against the camera's right, counter-clockwise from above."""
    support: tuple[float, float, float]
    """Length of the edges along x, y and z [share of the picture's width]."""

    @property
    def R_world_cam(self) -> np.ndarray:
        """(3, 3), with the world's x the camera's right (the yaw left out)."""
        return rotation(self.pitch_deg, self.roll_deg)


def rotation(pitch_deg: float, roll_deg: float) -> np.ndarray:
    """(3, 3) world from camera: camera axes right, down, forward in a world whose x is to the right,
    y away from the viewer and z up."""
    p, r = np.deg2rad([pitch_deg, roll_deg])
    forward = np.array([0, np.cos(p), -np.sin(p)])
    right, down = np.array([1.0, 0, 0]), np.array([0, -np.sin(p), -np.cos(p)])
    right, down = np.cos(r) * right + np.sin(r) * down, np.cos(r) * down - np.sin(r) * right
    return np.stack([right, down, forward], 1)


def edges(picture: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The longest straight edges (N, 4), x0 y0 x1 y1 [pixels], but those on what is `hidden` (H, W)."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    found = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD).detect(grey)[0]
    if found is None:
        return np.zeros((0, 4))
    found = found.reshape(-1, 4).astype(float)
    h, w = grey.shape
    middle = np.clip((0.5 * (found[:, :2] + found[:, 2:])).astype(int), 0, (w - 1, h - 1))
    length = np.hypot(*(found[:, 2:] - found[:, :2]).T)
    keep = (length > SHORTEST * w) & ~hidden[middle[:, 1], middle[:, 0]]
    found, length = found[keep], length[keep]
    return found[np.argsort(-length)[:MOST]]


def from_axis(segments: np.ndarray, shape: tuple[int, int], principal=(0.5, 0.5)) -> np.ndarray:
    """(N, 2, 2) the ends of edges (N, 4) [pixels] from where the optical axis meets the picture
    [half its height]."""
    h, w = shape
    return (segments.reshape(-1, 2, 2) - np.multiply(principal, (w, h))) / (h / 2)


def gaze(
    segments: np.ndarray, shape: tuple[int, int], fov_deg: float | None, principal=(0.5, 0.5)
) -> Gaze | None:
    """The gaze that explains most edges; None where there are too few.

    Args:
        segments: (N, 4) [pixels].
        shape: (H, W) of the picture.
        fov_deg: the vertical field of view where it is known.
        principal: where the optical axis meets the picture, as shares of width and height.
    """
    if len(segments) < 3:
        return None
    h, w = shape
    ends = from_axis(segments, shape, principal)
    length = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1) * h / 2 / w
    fovs = [fov_deg] if fov_deg else [34.0, 40.0, 46.0, 52.0, 60.0]
    best, score = None, -np.inf
    for fov in fovs:
        prior = 0.0 if fov_deg else 0.5 * (np.log(fov / FOV_DEG) / FOV_SPREAD) ** 2
        for pitch, roll in itertools.product(np.arange(4, 90, 3.0), np.arange(-6, 6.1, 2.0)):
            error = errors(ends, fov, pitch, roll, np.arange(-45, 45, 3.0))
            explained = length @ np.exp(-0.5 * (error.min(-1) / 2.0) ** 2)
            # An edge or two along the vertical would be explained by any pitch near 90 degrees.
            value = explained - 0.05 * prior - 0.05 * 0.5 * (roll / ROLL_SPREAD_DEG) ** 2
            k = int(value.argmax())
            if value[k] > score:
                score, best = value[k], (fov, pitch, roll, float(np.arange(-45, 45, 3.0)[k]))
    return _refined(ends, length, best, fov_deg)


def errors(ends, fov, pitch, roll, yaws) -> np.ndarray:
    """(N, Y, 3) degrees between each edge and the way to each of the three vanishing points."""
    f = 1 / np.tan(np.deg2rad(fov) / 2)
    R = rotation(pitch, roll)
    yaw = np.deg2rad(np.atleast_1d(yaws))
    zero = np.zeros_like(yaw)
    axes = np.stack([
        np.stack([np.cos(yaw), np.sin(yaw), zero], -1), np.stack([-np.sin(yaw), np.cos(yaw), zero], -1),
        np.stack([zero, zero, zero + 1], -1),
    ], 1)  # fmt: skip
    d = axes @ R  # (Y, 3, 3) in the camera.
    middle, way = ends.mean(1), ends[:, 1] - ends[:, 0]
    # From the edge's middle m to the vanishing point f d_xy / d_z, without the division.
    to = f * d[None, ..., :2] - middle[:, None, None, :] * d[None, ..., 2:]
    cross = way[:, None, None, 0] * to[..., 1] - way[:, None, None, 1] * to[..., 0]
    dot = (way[:, None, None] * to).sum(-1)
    return np.rad2deg(np.arctan2(np.abs(cross), np.abs(dot)))


def _refined(ends, length, start, fov_deg: float | None) -> Gaze:
    def unpack(x):
        return (fov_deg or FOV_DEG * np.exp(x[3])), x[0], x[1], x[2]

    def residuals(x):
        fov, pitch, roll, yaw = unpack(x)
        error = errors(ends, fov, pitch, roll, yaw)[:, 0].min(-1)
        weight = np.sqrt(length / length.sum() * 40)
        capped = np.minimum(error, 4) / TOLERANCE_DEG
        return np.r_[
            weight * np.sqrt(np.log1p(capped**2)), roll / ROLL_SPREAD_DEG, x[3] / FOV_SPREAD
        ]

    fov, pitch, roll, yaw = start
    x0 = np.array([pitch, roll, yaw, np.log(fov / FOV_DEG)])
    found = least_squares(residuals, x0, x_scale=[1, 1, 1, 0.05], diff_step=1e-4)
    fov, pitch, roll, yaw = unpack(found.x)
    error = errors(ends, fov, pitch, roll, yaw)[:, 0]
    mine, near = error.argmin(-1), error.min(-1) < 2 * TOLERANCE_DEG
    support = tuple(float(length[(mine == k) & near].sum()) for k in range(3))
    return Gaze(vertical_fov_deg=float(fov), pitch_deg=float(pitch), roll_deg=float(roll),
                yaw_deg=float(yaw), support=support)  # fmt: skip
