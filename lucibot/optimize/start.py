"""Waypoints at random: a search that was told nothing of how the task is done (paper, section 4.2)."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from lucibot.core.geometry import pose_np
from lucibot.optimize.config import RandomStart
from lucibot.task import Task


def random_start(
    task: Task, waypoints: np.ndarray, held: np.ndarray, config: RandomStart, *, seed: int
) -> np.ndarray:
    """Waypoints (K, A, 6) float32 with the held ones at random: uniform in `scene_bounds`, and turned
    from the actuator's first pose by an angle that is uniform, about an axis that is.

    Of a deformable actuator, whose waypoints are where the grasped patch goes, the turn is from none.

    Args:
        waypoints: (K, A, 6), of which those stay that are not held.
        held: (K, A) bool.
    """
    rng = np.random.default_rng([seed, 7])
    low, high = scene_bounds(task, config.room_m)
    out = np.array(waypoints, np.float32)
    for a, actuator in enumerate(task.actuators):
        rest = pose_np(actuator.T_world_object)[3:] if actuator.is_rigid else np.zeros(3)
        for k in range(len(out)):
            place, axis = rng.uniform(low, high), rng.normal(size=3)
            angle = np.deg2rad(config.turn_deg) * rng.uniform()
            if not held[k, a]:
                continue
            turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis))
            out[k, a, :3] = place
            out[k, a, 3:] = (turn * Rotation.from_rotvec(rest)).as_rotvec()
    return out


def scene_bounds(task: Task, room_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners (3,) [m, world] of the box around all objects as the scene begins, grown by `room_m` to
    the sides and upwards."""
    corners = []
    for obj in task.objects:
        T = obj.T_world_object
        vertices = np.asarray(task.mesh(obj).vertices) @ T[:3, :3].T + T[:3, 3]
        corners += [vertices.min(0), vertices.max(0)]
    low, high = np.min(corners, 0), np.max(corners, 0)
    return low - [room_m, room_m, 0], high + room_m
