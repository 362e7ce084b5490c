"""From all that was perceived to `Supervision`, in the evaluator's own layout."""

from __future__ import annotations

import cv2
import numpy as np
from lucibot_kernels import even_ranks

from lucibot.core.answers import Answers
from lucibot.core.camera import Camera
from lucibot.core.events import Events
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.objective.supervision import Affordance, Supervision
from lucibot.perception.config import SuperviseConfig
from lucibot.perception.keyframes import held_on_the_way
from lucibot.perception.parts import find_parts
from lucibot.task import Task
from lucibot.vision.draw import fit_camera
from lucibot.vision.grid import resize_mask

HARDLY = 0.1
"""Share of frames that are not counted."""


def build_supervision(
    task: Task,
    view: SceneView,
    video: Video,
    tracks: Tracks,
    poses: np.ndarray,
    confidence: np.ndarray,
    events: Events,
    answers: Answers,
    keyframes: np.ndarray,
    depth_m: np.ndarray,
    affordance: Affordance,
    config: SuperviseConfig,
) -> Supervision:
    """Puts everything on the observation grid.

    Args:
        poses: (T, N, 6) object pose vectors.
        confidence: (T, N), 0 where lost.
        keyframes: (K,) frames, the goal last.
        depth_m: (K, H, W) depth of the keyframes.
        affordance: tips on the observation grid.
    """
    camera = fit_camera(view.camera, config.width)
    size = (camera.width, camera.height)
    actuators = [task.label(o.name) - 1 for o in task.actuators]
    targets = [task.label(o.name) - 1 for o in task.targets]
    masks = np.stack(
        [
            [resize_mask(m, size) & ~gone for m, gone in zip(ms, lost, strict=True)]
            for ms, lost in zip(tracks.masks[keyframes], tracks.lost[keyframes], strict=True)
        ]
    )  # fmt: skip
    valid = np.stack([~_grown(resize_mask(tracks.hand[t], size)) for t in keyframes])
    if tracks.unseen is not None:
        valid &= np.stack([~_grown(resize_mask(tracks.unseen[t], size)) for t in keyframes])
    depth = np.stack([_shrunk(d, size) for d in depth_m])
    parts = find_parts(task, view, video, tracks, int(keyframes[-1]), size)
    target_masks = masks[:, targets].any(1)
    clouds = []
    for i in actuators:
        seen = np.flatnonzero(masks[:, i].sum((1, 2)) >= 20)
        k = int(seen[-1]) if len(seen) else len(keyframes) - 1
        clouds.append(_cloud(camera, depth[k], masks[k, i], config.cloud_points))
    # Parts are a majority over frames; depth is the goal frame's, so its own mask counts as well.
    part_clouds = [
        _cloud(camera, depth[-1], m & target_masks[-1], config.cloud_points) for m in parts.masks
    ]
    return Supervision(
        camera=camera,
        actuators=tuple(task.objects[i].name for i in actuators),
        targets=tuple(task.objects[i].name for i in targets),
        contact_pairs=answers.contact_pairs,
        keyframes=np.asarray(keyframes, np.int64),
        waypoints=poses[keyframes][:, actuators].astype(np.float32),
        waypoint_confidence=confidence[keyframes][:, actuators].astype(np.float32),
        held=held_on_the_way(events.held, keyframes, answers.first_contact),
        actuator_masks=masks[:, actuators],
        target_masks=target_masks,
        valid=valid,
        actuator_clouds=np.stack(clouds),
        target_cloud=_cloud(camera, depth[-1], target_masks[-1], config.cloud_points),
        contact=answers.contact,
        around_pairs=answers.around_pairs,
        around=answers.around,
        affordance=affordance,
        part_masks=parts.masks,
        part_clouds=np.stack(part_clouds) if part_clouds else np.zeros(
            (0, config.cloud_points, 3), np.float32),
        part_valid=parts.valid & valid[-1],
        goal_lasts=goal_lasts(
            events, targets, int(keyframes[-1]), max(1, round(config.lasting_s * video.fps))
        ),
    )  # fmt: skip


def goal_lasts(events: Events, targets: list[int], goal: int, least: int) -> bool:
    """Whether hands hold on to something after the goal frame, for `least` frames at least and to the
    end of the video, and in hardly any of them one of the `targets` moves."""
    held, moving = events.held[goal + 1 :], events.moving[goal + 1 :, targets].any(1)
    if len(held) < least:
        return False
    still_held = events.held[goal] & (held.mean(0) > 1 - HARDLY)
    return bool(still_held.any() and moving.mean() < HARDLY)


def _grown(mask: np.ndarray) -> np.ndarray:
    """A pixel more on every side: a hand's edge is blurred."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _shrunk(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth on a smaller grid by picking pixels: a mean across an edge is on neither side."""
    h, w = depth.shape
    rows = ((np.arange(size[1]) + 0.5) * h / size[1]).astype(int)
    cols = ((np.arange(size[0]) + 0.5) * w / size[0]).astype(int)
    return depth[rows[:, None], cols]


def _cloud(camera: Camera, depth: np.ndarray, mask: np.ndarray, count: int) -> np.ndarray:
    """(count, 3) float32 [m, world] of a mask's pixels, thinned as a rollout's are; NaN pads."""
    out = np.full((count, 3), np.nan, np.float32)
    known = np.isfinite(depth)
    points = camera.unproject(np.where(known, depth, 0).astype(float))[mask & known]
    points = points[even_ranks(len(points), count)]
    out[: len(points)] = points
    return out
