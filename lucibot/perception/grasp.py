"""Where a hand grasps a deformable, and where it takes what it holds.

A deformable has no pose. What a hand does with it is told by the place that it holds: known when the
hand takes it, since the first moment's depth is known, and from then on followed in the picture,
where the hand meets what is seen of the object. One view does not tell how far away the hand is.
What is let go must be held by something, so there it is taken to be as far away as what stands
beside it; if nothing does, or in between, the least is assumed: the hand moves up, down and across
the line of sight, and no nearer or farther away than these ends ask for, above the ground. Seen from
above it moves across the line of sight alone, as high as where it took hold.

Where no hand is seen, and none need be, the middle of what is seen of the object stands for that place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import median_filter
from scipy.spatial import cKDTree

from lucibot.core.camera import PLUMB, Camera
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.task import ObjectSpec, Task
from lucibot.vision.grid import resize_mask
from lucibot.vision.spans import runs

MOVED_SHARE = 0.15
"""Share of what is seen of an object beside its first place that says: it has been moved."""
REACH = 0.012
"""How near to the hand the object counts as meeting it, as a share of the picture's width."""
FEWEST_PIXELS = 4
NEAR_M = 0.03
"""What is let go is held by what stands nearer than this, if anything does."""


@dataclass(frozen=True, kw_only=True)
class Grasp:
    """One hold of a deformable."""

    hold: int
    """Which of the actuator's holds, from the video's start."""
    begin: int
    end: int
    """The first frame of the hold and the first after it."""
    path: np.ndarray
    """(end - begin, 6) float32 pose vectors of the grasped place; turned about the vertical with its
    direction from the object's first middle, from how it was taken on."""
    points: np.ndarray
    """(P, 3) [m] the surface about the grasped place when it was taken, in the frame in which the
    object lay at first."""


def find_grasps(
    task: Task,
    view: SceneView,
    tracks: Tracks,
    actuator: ObjectSpec,
    held: np.ndarray,
    depth_of: Callable[[np.ndarray], np.ndarray],
    area_m: float,
) -> list[Grasp]:
    """The holds of a deformable actuator on which a hand is seen, or none need be.

    Args:
        held: (T,) bool.
        depth_of: depth (F, H, W) [m] of frames (F,): where the object lies when it is taken again.
        area_m: radius of the surface about a grasped place.
    """
    found = []
    for hold, (begin, end) in enumerate(runs(held)):
        if hold == 0:
            lies, depth = view.labels == task.label(actuator.name), view.depth_m
        else:
            before = max(0, begin - 1)
            size = (view.camera.width, view.camera.height)
            lies = resize_mask(tracks.masks[before, task.label(actuator.name) - 1], size)
            depth = depth_of(np.array([before]))[0]
            lies = lies & np.isfinite(depth)
        grasp = _find_grasp(task, view, tracks, actuator, hold, begin, end, lies, depth, area_m)
        if grasp is not None:
            found.append(grasp)
    return found


def without_hands(task: Task, tracks: Tracks) -> bool:
    """Whether objects move alone, and the task says that they may."""
    return task.spec.hands != "expected" and not tracks.hand.any()


def joined_path(grasps: list[Grasp], frames: int) -> np.ndarray:
    """(frames, 6) float32 pose vectors of what is grasped: before its first hold where it was taken,
    after each where it was let go."""
    path = np.tile(grasps[0].path[0], (frames, 1))
    for grasp in grasps:
        path[grasp.begin : grasp.end] = grasp.path
        path[grasp.end :] = grasp.path[-1]
    return path


def _find_grasp(
    task, view, tracks, actuator, hold, begin, end, first, depth_m, area_m
) -> Grasp | None:
    """The hold of frames begin .. end of what lies at `first` (H, W) bool, `depth_m` (H, W) away."""
    i = task.label(actuator.name) - 1
    camera, size = view.camera, (view.camera.width, view.camera.height)
    if not first.any():
        return None
    masks = [resize_mask(m, size) for m in tracks.masks[:, i]]
    hands = [resize_mask(m, size) for m in tracks.hand]
    alone = without_hands(task, tracks)
    taken = begin if alone else _taken(first, masks, begin, end)
    surface = camera.unproject(np.where(first, depth_m, 0).astype(float))
    if alone:
        start_px = _middle(first)
    else:
        start_px = _covered(first, hands[taken]) if hands[taken].any() else None
    if start_px is None:
        return None
    v, u = np.nonzero(first)
    nearest = int(np.hypot(u + 0.5 - start_px[0], v + 0.5 - start_px[1]).argmin())
    start = surface[v[nearest], u[nearest]]
    meets = [
        _middle(masks[t]) if alone else _meeting(masks[t], hands[t], size[0])
        for t in range(taken, end)
    ]
    seen = np.flatnonzero([m is not None for m in meets])
    path = np.tile(start, (len(masks), 1))
    if len(seen):
        met = np.stack([meets[k] for k in seen])
        way = np.stack([np.interp(np.arange(end - taken), seen, met[:, d]) for d in range(2)], 1)
        way = median_filter(way, size=(3, 1), mode="nearest")
        # Both sides of a hand hide some of the object: only how its meeting moves is taken over.
        there = camera.project(start)[0] + way - way[0]
        path[taken:end] = _in_space(task, camera, there, start)
        path[end:] = path[end - 1]
    near = surface[v, u][np.linalg.norm(surface[v, u] - start, axis=1) < area_m]
    T = actuator.T_world_object
    turn = np.zeros_like(path)
    middle = T[:3, :3] @ task.mesh(actuator).vertices.mean(0) + T[:3, 3]
    arm = path[:, :2] - middle[:2]
    if not alone and np.linalg.norm(arm, axis=1).min() > area_m:
        turn[:, 2] = np.unwrap(np.arctan2(arm[:, 1], arm[:, 0]))
        turn[:, 2] -= turn[0, 2]
    return Grasp(
        hold=hold, begin=begin, end=end,
        path=np.concatenate([path, turn], 1)[begin:end].astype(np.float32),
        points=(near - T[:3, 3]) @ T[:3, :3],
    )  # fmt: skip


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


def _middle(mask: np.ndarray) -> np.ndarray | None:
    """(2,) middle of a mask; None where too little of it is seen."""
    return np.argwhere(mask)[:, ::-1].mean(0) + 0.5 if mask.sum() >= FEWEST_PIXELS else None


def _meeting(mask: np.ndarray, hand: np.ndarray, width: int) -> np.ndarray | None:
    """(2,) middle of the places at which what is seen of an object goes under a hand, each counting
    as one; None where they do not meet."""
    reach = max(2, round(REACH * width))
    near = cv2.dilate(hand.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)) > 0
    _, _, stats, centres = cv2.connectedComponentsWithStats((mask & near).astype(np.uint8))
    found = centres[1:][stats[1:, cv2.CC_STAT_AREA] >= FEWEST_PIXELS]
    return found.mean(0) + 0.5 if len(found) else None


def _in_space(task: Task, camera: Camera, pixels: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(P, 3) [m, world] of pixels (P, 2) on the way from `start`."""
    facing = _facing(camera)
    eye, ray = _rays(camera, pixels)
    lower = start[2] - eye[2]
    meets = lower * ray[:, 2] > 0
    down = np.divide(lower, ray[:, 2], out=np.zeros(len(ray)), where=meets)
    ground = eye + down[:, None] * ray
    if (ray @ facing < PLUMB * np.linalg.norm(ray, axis=1)).any():
        return ground
    beside = _beside(task, eye, ray[-1], down[-1] if meets[-1] else np.inf, start)
    begin = facing @ start
    end = begin if beside is None else facing @ beside
    steps = np.linalg.norm(np.diff(pixels, axis=0), axis=1)
    done = np.r_[0.0, steps.cumsum()] / max(steps.sum(), 1e-9)
    along = (begin + done * (end - begin) - facing @ eye) / np.maximum(ray @ facing, 1e-6)
    points = eye + along[:, None] * ray
    return np.where((meets & (points[:, 2] < start[2]))[:, None], ground, points)


def _beside(
    task: Task, eye: np.ndarray, ray: np.ndarray, down: float, start: np.ndarray
) -> np.ndarray | None:
    """(3,) middle of what stands nearest to a line of sight, from `eye` (3,) [m, world] along `ray` (3,),
    which is as low as `start` (3,) at `down` times its length; None where nothing is near."""
    things = []
    for item in task.spec.background:
        T = item.T_world_object
        things.append((item, np.asarray(task.mesh(item).vertices) @ T[:3, :3].T + T[:3, 3]))
    length = np.linalg.norm(ray)
    far = max((np.linalg.norm(c - eye, axis=1).max() for _, c in things), default=0.0) / length
    # What is near to the eye is not meant. A line that comes down behind all things, if ever, ends with them.
    end, skip = down, 0.3
    if down > far:
        end, skip = far, min(0.5 * np.linalg.norm(start - eye) / max(far * length, 1e-9), 0.9)
    count = max(200, int(np.ceil(2 * end * length / NEAR_M)))
    sight = np.linspace(eye, eye + end * ray, count)[int(skip * count) :]
    found = []
    for item, corners in things:
        if item.solid and corners[:, 2].max() > start[2]:
            away = float(cKDTree(corners).query(sight)[0].min())
            found.append((away, tuple(0.5 * (corners.min(0) + corners.max(0)))))
    if not found or min(found)[0] > NEAR_M:
        return None
    return np.array(min(found)[1])


def _facing(camera: Camera) -> np.ndarray:
    """(3,) unit: level, away from the camera."""
    ahead = np.array([*camera.T_world_cam[:2, 2], 0.0])
    return ahead / max(np.linalg.norm(ahead), 1e-9)


def _rays(camera: Camera, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3,) where lines of sight start, and their directions (P, 3)."""
    T = camera.T_world_cam
    at = (pixels - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    return T[:3, 3], np.column_stack([at, np.ones(len(at))]) @ T[:3, :3].T
