"""Where a hand grasps a deformable, and where it takes what it holds.

A deformable has no pose. What a hand does with it is told by the place that it holds: known when the
hand takes it, since the first moment's depth is known, and from then on followed in the picture,
where the hand meets what is seen of the object. One view does not tell how far away the hand is, so
the least is assumed: it moves up, down and across the line of sight, but neither nearer nor farther
away, as long as that is above the ground that it started from.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import median_filter

from lucibot.core.camera import Camera
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.perception.affordance import AREA_M
from lucibot.perception.grid import resize_mask
from lucibot.task import ObjectSpec, Task

MOVED_SHARE = 0.15
"""Share of what is seen of an object beside its first place that says: it has been moved."""
REACH = 0.012
"""How near to the hand the object counts as meeting it, as a share of the picture's width."""
FEWEST_PIXELS = 4


@dataclass(frozen=True, kw_only=True)
class Grasp:
    """One hold of a deformable."""

    path: np.ndarray
    """(T, 6) float32 pose vectors of the grasped place, before and after the hold where it was at
    first and at last; not turned."""
    points: np.ndarray
    """(P, 3) [m] the surface about the grasped place, in the object's frame."""


def find_grasp(
    task: Task, view: SceneView, tracks: Tracks, actuator: ObjectSpec, held: np.ndarray
) -> Grasp | None:
    """The first hold of a deformable actuator.

    Args:
        held: (T,) bool.

    Returns:
        None where no hand is seen on it.
    """
    i = task.label(actuator.name) - 1
    camera, size = view.camera, (view.camera.width, view.camera.height)
    if not held.any():
        return None
    begin = int(np.argmax(held))
    end = begin + int(np.argmin(np.append(held[begin:], False)))
    masks = [resize_mask(m, size) for m in tracks.masks[:, i]]
    hands = [resize_mask(m, size) for m in tracks.hand]
    first = view.labels == i + 1
    taken = _taken(first, masks, begin, end)
    surface = camera.unproject(np.where(first, view.depth_m, 0).astype(float))
    start_px = _covered(first, hands[taken]) if hands[taken].any() else None
    if start_px is None:
        return None
    v, u = np.nonzero(first)
    nearest = int(np.hypot(u + 0.5 - start_px[0], v + 0.5 - start_px[1]).argmin())
    start = surface[v[nearest], u[nearest]]
    meets = [_meeting(masks[t], hands[t], size[0]) for t in range(taken, end)]
    seen = np.flatnonzero([m is not None for m in meets])
    path = np.tile(start, (len(masks), 1))
    if len(seen):
        met = np.stack([meets[k] for k in seen])
        way = np.stack([np.interp(np.arange(end - taken), seen, met[:, d]) for d in range(2)], 1)
        way = median_filter(way, size=(3, 1), mode="nearest")
        # Both sides of a hand hide some of the object: only how its meeting moves is taken over.
        there = camera.project(start)[0] + way - way[0]
        path[taken:end] = _upright(camera, there, start)
        path[end:] = path[end - 1]
    T = actuator.T_world_object
    near = surface[v, u][np.linalg.norm(surface[v, u] - start, axis=1) < AREA_M]
    return Grasp(
        path=np.concatenate([path, np.zeros_like(path)], 1).astype(np.float32),
        points=(near - T[:3, 3]) @ T[:3, :3],
    )


def _taken(first: np.ndarray, masks: list[np.ndarray], begin: int, end: int) -> int:
    """The last frame of a hold in which the object still lies where it lay."""
    home = cv2.dilate(first.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    for t in range(begin, end):
        if (masks[t] & ~home).sum() > MOVED_SHARE * max(1, masks[t].sum()):
            return max(begin, t - 1)
    return begin


def _covered(first: np.ndarray, hand: np.ndarray) -> np.ndarray | None:
    """(2,) middle of what a hand hides of an object at rest; of what is nearest, if it hides
    nothing."""
    hidden = first & hand
    if hidden.sum() < FEWEST_PIXELS:
        away = cv2.distanceTransform((~hand).astype(np.uint8), cv2.DIST_L2, 5)
        hidden = first & (away <= away[first].min() + 2)
    return np.argwhere(hidden)[:, ::-1].mean(0) + 0.5 if hidden.any() else None


def _meeting(mask: np.ndarray, hand: np.ndarray, width: int) -> np.ndarray | None:
    """(2,) middle of what is seen of an object beside a hand; None where they do not meet."""
    reach = max(2, round(REACH * width))
    near = cv2.dilate(hand.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)) > 0
    both = mask & near
    return np.argwhere(both)[:, ::-1].mean(0) + 0.5 if both.sum() >= FEWEST_PIXELS else None


def _upright(camera: Camera, pixels: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(P, 3) [m, world] of pixels (P, 2) in the upright plane through `start` that faces the camera,
    or, where that would be lower than `start`, at its height."""
    T = camera.T_world_cam
    eye, facing = T[:3, 3], np.array([*T[:2, 2], 0.0])
    at = (pixels - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    ray = np.column_stack([at, np.ones(len(at))]) @ T[:3, :3].T
    along = ((start - eye) @ facing) / np.maximum(ray @ facing, 1e-6)
    points = eye + along[:, None] * ray
    down = (start[2] - eye[2]) / np.minimum(ray[:, 2], -1e-6)
    return np.where((points[:, 2] < start[2])[:, None], eye + down[:, None] * ray, points)
