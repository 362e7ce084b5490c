"""Where a hand first grips the actuator (paper, section 3.4, affordance)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lucibot.core.camera import Camera
from lucibot.core.geometry import matrix_np
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.task import Task
from lucibot.vision.draw import DrawMesh, draw_depth
from lucibot.vision.grid import resize_mask

AREA_M = 0.012
"""Radius of the area around a finger tip that counts as gripped."""

if TYPE_CHECKING:
    from lucibot.perception.grasp import Grasp
    from lucibot.providers.hand.base import HandDetector


def affordance_points(
    task: Task,
    view: SceneView,
    video: Video,
    tracks: Tracks,
    poses: np.ndarray,
    detector: HandDetector,
    actuator: str,
    contact_frame: int,
    *,
    count: int,
    seed: int,
    look_ahead: int = 5,
    grasp: Grasp | None = None,
) -> np.ndarray:
    """Points (count, 3) [m] on the actuator's surface, its own frame, under the finger tips.

    Tips are read in the contact frame and a few after it, until some lie on the object. NaN pads;
    all NaN where no finger tip is seen on it. Of a deformable these are the points of its `grasp`.
    """
    i = task.label(actuator) - 1
    obj = task.objects[i]
    if not obj.is_rigid:
        return _padded(np.zeros((0, 3)) if grasp is None else grasp.points, count, seed)
    mesh = DrawMesh.from_trimesh(task.mesh(obj), obj.T_world_object)
    height, width = video.frames.shape[1:3]
    camera = view.camera.resized(width, height)
    found: list[np.ndarray] = []
    for t in range(contact_frame, min(contact_frame + look_ahead, len(video))):
        hands = detector.detect(
            video.frames[t],
            resize_mask(tracks.hand[t], (width, height)),
            resize_mask(tracks.masks[t, i], (width, height)),
        )
        tips = [tip for hand in hands for tip in hand.tips_px]
        if tips:
            found.append(_under(mesh, poses[t, i], camera, np.array(tips)))
    return _padded(np.concatenate(found) if found else np.zeros((0, 3)), count, seed)


def _padded(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(count, 3) float32: some of the points (P, 3), or all of them and NaN."""
    out = np.full((count, 3), np.nan, np.float32)
    if len(points) > count:
        points = points[np.random.default_rng(seed).choice(len(points), count, replace=False)]
    out[: len(points)] = points
    return out


def _under(mesh: DrawMesh, pose: np.ndarray, camera: Camera, tips_px: np.ndarray) -> np.ndarray:
    """Surface points (P, 3), object frame, within AREA_M of where each tip meets the object.

    Tips a little beside the silhouette (behind its edge, or misread by some pixels) are moved to
    its nearest pixel; tips farther than twice the area are on something else.
    """
    T = matrix_np(pose)
    drawn_at = T.copy()
    drawn_at[:3, 3] += T[:3, :3] @ mesh.anchor_m
    depth = draw_depth(mesh, drawn_at[None], camera)[0].astype(float)
    v, u = np.nonzero(np.isfinite(depth))
    if len(u) == 0:
        return np.zeros((0, 3))
    surface = camera.unproject(np.where(np.isfinite(depth), depth, 0))[v, u]
    keep = np.zeros(len(u), bool)
    for tip in tips_px:
        apart = np.hypot(u + 0.5 - tip[0], v + 0.5 - tip[1])
        nearest = int(apart.argmin())
        if apart[nearest] * depth[v[nearest], u[nearest]] / camera.fx > 2 * AREA_M:
            continue
        keep |= np.linalg.norm(surface - surface[nearest], axis=1) < AREA_M
    return (surface[keep] - T[:3, 3]) @ T[:3, :3]
