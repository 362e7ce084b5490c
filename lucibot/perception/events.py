"""When hands touch and hold objects, when these move, and when they touch each other."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from lucibot.core.camera import Camera
from lucibot.core.events import Events
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.perception.config import EventConfig
from lucibot.task import Task
from lucibot.vision.draw import DrawMesh, draw_depth
from lucibot.vision.grid import Grid
from lucibot.vision.rest import picture_points, touched_by_hand
from lucibot.vision.spans import drop_short, fill_gaps, runs
from lucibot.vision.touching import contact_pairs, nearer, posed, surface_points
from lucibot.vision.trajectory import Trajectory

UNSEEN_TOUCHES = 6
"""What touches before and after touches all the while, if it is not so many times as long as a touch and
nothing is seen to part."""
LEAST_PX = 12
"""Fewer pixels of a soft thing show nothing."""


def read_events(
    task: Task,
    view: SceneView,
    tracks: Tracks,
    poses: np.ndarray,
    fps: float,
    depth_of: Callable[[np.ndarray], np.ndarray],
    config: EventConfig,
) -> Events:
    """
    Args:
        poses: (T, N, 6) refined pose vectors; NaN for deformables.
        depth_of: depth (F, H, W) [m] of frames (F,); asked where a deformable is seen.
    """
    grid = Grid.from_tracks(view, tracks, config.width, hand_margin=0)
    count = len(task.objects)
    steady = max(2, round(config.touch_s * fps))
    masks = np.stack([grid.masks(i) for i in range(count)], 1)
    margin_px = max(1, config.width // 200)
    touched = touched_by_hand(masks, grid.hand, tracks.lost, margin_px=margin_px)
    touched = np.stack(
        [drop_short(fill_gaps(touched[:, i], 2 * steady), steady) for i in range(count)], 1
    )
    shift = _shift(task, grid, poses, masks)
    still = [config.still_px if o.is_rigid else config.still_share for o in task.objects]
    moving = shift > np.array(still)
    touched = _gripped(task, grid, poses, touched, moving, fps, config)
    pairs = contact_pairs(task)
    return Events(
        touched=touched, moving=moving, held=_held(task, touched, moving, steady),
        contact_pairs=pairs,
        contact=_contact(task, grid, view.camera, masks, poses, tracks, pairs, depth_of, steady),
    )  # fmt: skip


def held_reasons(task: Task, events: Events) -> dict[str, str]:
    """What `Events.held` says, one sentence for each actuator by "held NAME"."""
    reasons = {}
    for k, o in enumerate(task.actuators):
        spans = ", ".join(f"{a} to {b - 1}" for a, b in runs(events.held[:, k]))
        touched = events.touched[:, task.label(o.name) - 1].any()
        says = f"A hand lies on or beside {o.name} while it moves: frames {spans}."
        if not touched:
            says = f"{o.name} moves with no hand near: frames {spans}."
        reasons[f"held {o.name}"] = says if spans else f"No hand stays on {o.name} while it moves."
    return reasons


def _gripped(task, grid, poses, touched, moving, fps, config: EventConfig) -> np.ndarray:
    """(T, N) bool: `touched`, cut down to the time from grip to release.

    A hand comes over an object before it takes it, and leaves after it has let go. While it
    holds, either the object moves, or the hand rests on it: its layer over the object's
    silhouette hardly changes within a tenth of a second. A run without either is kept whole.
    """
    c, out = config, touched.copy()
    span = max(1, round(0.1 * fps))
    steady = max(2, round(c.touch_s * fps))
    kernel = np.ones((9, 9), np.uint8)
    for i, o in enumerate(task.objects):
        if not o.is_rigid:
            continue
        mesh = DrawMesh.from_trimesh(task.mesh(o), o.T_world_object)
        for a, b in runs(fill_gaps(touched[:, i], 5 * steady)):
            T = Trajectory.from_poses(poses[a:b, i].astype(float), mesh.anchor_m).T_world_object
            rests = np.zeros(b - a, bool)
            for k in range(b - a):
                drawn = np.isfinite(draw_depth(mesh, T[k : k + 1], grid.camera)[0])
                near = cv2.dilate(drawn.astype(np.uint8), kernel) > 0
                now = grid.hand[a + k] & near
                later = grid.hand[min(a + k + span, len(grid) - 1)] & near
                changed = (now ^ later).sum() / max(1, (now | later).sum())
                rests[k] = (now & drawn).sum() >= c.grip_px and changed < c.grip_change
            grip = np.flatnonzero(drop_short(rests, steady) | moving[a:b, i])
            if len(grip):
                out[a : a + grip[0], i] = False
                out[a + grip[-1] + 1 : b, i] = False
    return out


def _shift(task: Task, grid: Grid, poses: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(T, N) how much each object changes in the picture around a frame: pixels for rigid
    objects, share of the mask for deformables."""
    frames, count = masks.shape[:2]
    out = np.zeros((frames, count))
    span = 2
    before = np.maximum(np.arange(frames) - span, 0)
    after = np.minimum(np.arange(frames) + span, frames - 1)
    for i, o in enumerate(task.objects):
        if o.is_rigid:
            mesh = DrawMesh.from_trimesh(task.mesh(o), o.T_world_object)
            p = picture_points(
                mesh, Trajectory.from_poses(poses[:, i].astype(float), mesh.anchor_m),
                grid.camera,
            )  # fmt: skip
            # The common shift: spin of a round thing about its axis is not seen.
            out[:, i] = np.linalg.norm((p[after] - p[before]).mean(1), axis=-1)
            continue
        for t in range(frames):
            a, b = before[t], after[t]
            open_ = (grid.label[a] == 0) | masks[a, i]
            open_ &= (grid.label[b] == 0) | masks[b, i]
            area = max(1, int(masks[a, i].sum()))
            out[t, i] = ((masks[a, i] ^ masks[b, i]) & open_).sum() / area
    return out


def _held(task, touched, moving, steady) -> np.ndarray:
    """(T, A) bool: runs of touch within which the actuator moves."""
    held = np.zeros((len(touched), len(task.actuators)), bool)
    for k, o in enumerate(task.actuators):
        i = task.label(o.name) - 1
        if not touched[:, i].any():
            held[:, k] = fill_gaps(drop_short(moving[:, i], steady), 10 * steady)
            continue
        for a, b in runs(fill_gaps(touched[:, i], 5 * steady)):
            if moving[a:b, i].sum() >= steady:
                held[a:b, k] = True
    return held


def _contact(task, grid, camera, masks, poses, tracks, pairs, depth_of, steady) -> np.ndarray:
    """(T, pairs) bool."""
    frames = len(grid)
    out = np.zeros((frames, len(pairs)), bool)
    names = [o.name for o in task.objects]
    surface = {i: surface_points(task, o) for i, o in enumerate(task.objects) if o.is_rigid}

    def cloud(i: int, t: int, depth: np.ndarray | None) -> np.ndarray:
        """(P, 3) [m, world] what is known of object i's surface in frame t."""
        if i in surface:
            return posed(surface[i], poses[t, i])
        return soft_cloud(depth, tracks.masks[t, i], camera)

    for k, pair in enumerate(pairs):
        i, j = (names.index(n) for n in pair)
        soft = [o for o in (i, j) if o not in surface]
        todo = np.flatnonzero(masks[:, soft].any((2, 3)).all(1))
        # In batches, so that a depth model sets up once for many frames and memory stays.
        for part in np.array_split(todo, max(1, -(-len(todo) // 16))):
            depth = depth_of(part) if soft and len(part) else [None] * len(part)
            for t, d in zip(part, depth, strict=True):
                out[t, k] = nearer(cloud(i, t, d), cloud(j, t, d), task.spec.contact_m)
        out[:, k] = drop_short(fill_gaps(out[:, k], steady), steady)
        if len(soft) == 1 and out[:, k].any():
            rigid = j if soft == [i] else i
            apart = drop_short(_seen_apart(task, grid, masks, poses, rigid, soft[0]), steady)
            if out[0, k]:
                out[: int(np.argmax(apart)) if apart.any() else frames, k] = True
            for a, b in runs(fill_gaps(out[:, k], UNSEEN_TOUCHES * steady) & ~out[:, k]):
                out[a:b, k] = not apart[a:b].any()
    return out


def _seen_apart(task, grid, masks, poses, rigid: int, soft: int) -> np.ndarray:
    """(T,) bool: the picture shows a gap between a rigid thing and all that is seen of a soft one.

    How far along the view a soft thing is that has no place of its own, such as a jet, cannot be told.
    What lay in or on a thing at first, out of sight or not, is there until it is seen to be elsewhere.
    """
    mesh = DrawMesh.from_trimesh(task.mesh(task.objects[rigid]), task.objects[rigid].T_world_object)
    T = Trajectory.from_poses(poses[:, rigid].astype(float), mesh.anchor_m).T_world_object
    out = np.zeros(len(grid), bool)
    for t in np.flatnonzero(masks[:, soft].sum((1, 2)) >= LEAST_PX):
        drawn = draw_depth(mesh, T[t : t + 1], grid.camera)[0]
        there = np.isfinite(drawn)
        if not there.any():
            continue
        reach_px = task.spec.contact_m * grid.camera.fx / float(np.median(drawn[there]))
        # A hand may hide what joins them.
        away = cv2.distanceTransform((~(there | grid.hand[t])).astype(np.uint8), cv2.DIST_L2, 5)
        out[t] = away[masks[t, soft]].min() > reach_px
    return out


def soft_cloud(depth: np.ndarray, mask: np.ndarray, camera: Camera, step: int = 3) -> np.ndarray:
    """(P, 3) [m, world] of a mask's visible surface under `depth` (H, W) [m], every `step`-th
    pixel."""
    if mask.shape != depth.shape:
        mask = cv2.resize(mask.astype(np.uint8), depth.shape[::-1]) > 0
    rows, columns = np.nonzero((mask & np.isfinite(depth))[::step, ::step])
    return camera.unproject(depth, (step * rows, step * columns))
