"""What a depth map tells: the table, and how high things reach above it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lucibot.core.camera import Camera
from lucibot.core.errors import UserError
from lucibot.twin.fit import View

NEAR_PLANE = 0.008
"""A point is on a plane if it is not further from it than this share of its depth."""
TRIES = 400


@dataclass(frozen=True, kw_only=True)
class Relief:
    """A depth map above a table."""

    view: View
    heights_m: np.ndarray
    """(H, W) above the table, NaN where nothing is known."""


def relief(
    depth_m: np.ndarray, objects: np.ndarray, fov_deg: float, principal=(0.5, 0.5)
) -> Relief:
    """The plane on which most of what is beside the objects lies, as the table.

    Args:
        depth_m: (H, W), NaN where nothing is known.
        objects: (H, W) bool.
        fov_deg: vertical field of view.

    Raises:
        UserError: no plane fits.
    """
    h, w = depth_m.shape
    f = 0.5 * h / np.tan(np.deg2rad(fov_deg) / 2)
    u, v = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    rays = np.stack([(u - principal[0] * w) / f, (v - principal[1] * h) / f, np.ones_like(u)], -1)
    points = rays * depth_m[..., None]
    beside = np.isfinite(depth_m) & ~cv2.dilate(objects.astype(np.uint8), np.ones((15, 15))).astype(
        bool
    )
    around = points[beside]
    if len(around) < 500:
        raise UserError("--depth: hardly anything is known of what lies beside the objects")
    rng = np.random.default_rng(0)
    some = around[rng.integers(len(around), size=min(6000, len(around)))]
    # Of what lies near the objects, for a wall may be larger than the table.
    best, count = None, -1
    for _ in range(TRIES):
        a, b, c = some[rng.integers(len(some), size=3)]
        n = np.cross(b - a, c - a)
        if np.linalg.norm(n) < 1e-9:
            continue
        n = n / np.linalg.norm(n)
        on = np.abs((some - a) @ n) < NEAR_PLANE * some[:, 2]
        if on.sum() > count:
            best, count = on, int(on.sum())
    on = some[best]
    for _ in range(3):
        middle = on.mean(0)
        n = np.linalg.svd(on - middle, full_matrices=False)[2][2]
        on = some[np.abs((some - middle) @ n) < NEAR_PLANE * some[:, 2]]
    share = len(on) / len(some)
    if share < 0.2:
        raise UserError(
            f"--depth: no plane to stand on, the best one holds {share:.0%} of what is beside the objects"
        )
    if n @ middle > 0:
        n = -n
    # World up in the camera's axes (right, down, forward) is (-cos p sin r, -cos p cos r, -sin p).
    pitch, roll = np.rad2deg(np.arcsin(np.clip(-n[2], -1, 1))), np.rad2deg(np.arctan2(-n[0], -n[1]))
    if abs(roll) > 60 and pitch > 70:
        # From straight above there is no roll: which way is away from the viewer is the picture's up.
        roll = 0.0
    view = View(fov_deg=fov_deg, pitch_deg=float(pitch), roll_deg=float(roll),
                height_m=float(-(n @ middle)))  # fmt: skip
    heights = (points - middle) @ n
    return Relief(view=view, heights_m=heights)


def top_m(heights_m: np.ndarray, mask: np.ndarray) -> tuple[float, float] | None:
    """How high an object reaches [m], and the spread of that; None where its depth is not known."""
    size = max(3, int(0.02 * np.sqrt(mask.sum())) | 1)
    inner = cv2.erode(mask.astype(np.uint8), np.ones((size, size), np.uint8)) > 0
    z = heights_m[inner & np.isfinite(heights_m)]
    if len(z) < 30:
        return None
    top = float(np.quantile(z, 0.96))
    return (top, 0.003) if top > 0.002 else None


def plane_of(
    heights_m: np.ndarray, mask: np.ndarray, camera: Camera
) -> tuple[np.ndarray, np.ndarray] | None:
    """A plane along the upper side of a flat thing: a point (3,) [m, world] and its normal, upwards;
    None where its depth is not known."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    v, u = np.nonzero(inner & np.isfinite(heights_m))
    if len(u) < 30:
        return None
    eye = camera.T_world_cam[:3, 3]
    d = camera.rays[v, u]
    points = eye + d * ((heights_m[v, u] - eye[2]) / d[:, 2])[:, None]
    for _ in range(4):
        middle = points.mean(0)
        n = np.linalg.svd(points - middle, full_matrices=False)[2][2]
        off = (points - middle) @ (n if n[2] > 0 else -n)
        # Its hollow lies below, what lies in it may lie above.
        keep = np.abs(off) < max(0.003, 1.5 * float(np.median(np.abs(off))))
        if keep.all():
            break
        points = points[keep]
    return middle, (n if n[2] > 0 else -n)


def as_metric(
    relative: np.ndarray, objects: np.ndarray, view: View, shape: tuple[int, int]
) -> np.ndarray:
    """A relative depth map (larger is nearer, up to a factor and an offset) in metres (H, W), by the
    table that is seen in it: there the inverse depth is known.

    Raises:
        UserError: the map does not fall off along the table as it must.
    """
    camera = view.camera(shape)
    down = camera.rays[..., 2]
    table = (down < -0.05) & ~objects & np.isfinite(relative)
    inverse = np.where(table, -down / view.height_m, 0.0)
    x, y = relative[table], inverse[table]
    for _ in range(6):
        A = np.stack([x, np.ones_like(x)], -1)
        (a, b), *_ = np.linalg.lstsq(A, y, rcond=None)
        off = np.abs(A @ (a, b) - y)
        keep = off < 2.0 * np.median(off) + 1e-9
        x, y = x[keep], y[keep]
    if a <= 0:
        raise UserError("--depth: a relative map must be larger where things are nearer")
    return 1 / np.maximum(a * relative + b, 1e-3)
