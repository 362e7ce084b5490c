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
    """Waypoints (K, A, 6) float32 with the held ones on a random walk within `scene_bounds`, which begins
    at the actuator's first pose: each uniform among the places that are near enough to the one before,
    and turned likewise.

    Of a deformable actuator, whose waypoints are where the grasped patch goes, the turn is from none.

    Args:
        waypoints: (K, A, 6), of which those stay that are not held.
        held: (K, A) bool.
    """
    rng = np.random.default_rng([seed, 7])
    low, high = scene_bounds(task, config.room_m)
    out = np.array(waypoints, np.float32)
    for a, actuator in enumerate(task.actuators):
        first = pose_np(actuator.T_world_object)
        rest = Rotation.from_rotvec(first[3:] if actuator.is_rigid else np.zeros(3))
        place, turn = np.clip(first[:3], low, high), Rotation.identity()
        for k in np.flatnonzero(held[:, a]):
            place = rng.uniform(
                np.maximum(low, place - config.step_m), np.minimum(high, place + config.step_m)
            )
            turn = _within(_random_turn(rng, config.step_deg) * turn, config.turn_deg)
            out[k, a] = [*place, *(turn * rest).as_rotvec()]
    return out


def _random_turn(rng: np.random.Generator, most_deg: float) -> Rotation:
    axis = rng.normal(size=3)
    return Rotation.from_rotvec(np.deg2rad(most_deg) * rng.uniform() * axis / np.linalg.norm(axis))


def _within(turn: Rotation, most_deg: float) -> Rotation:
    """The same turn, or as much of it as is allowed."""
    most = np.deg2rad(most_deg)
    return Rotation.from_rotvec(turn.as_rotvec() * min(1.0, most / max(turn.magnitude(), 1e-9)))


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
