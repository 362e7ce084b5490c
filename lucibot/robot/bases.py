"""Where an arm may stand: on the height of the table, about the middle of what it has to follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lucibot.robot.holds import Hold
from lucibot.task import Task

DISTANCES_M, WAYS = (0.45, 0.6), 12
ROOM_M = 0.12
"""What the base keeps from things, about its middle."""
HIDES = 0.3
"""What a place counts that would hide the scene from the camera."""


def bases(task: Task, holds: Sequence[Hold]) -> Iterator[np.ndarray]:
    """(4, 4) places about the middle of all ways, each facing it, on which nothing stands."""
    middle = np.concatenate([h.frames[:, :2, 3] for h in holds]).mean(0)
    for distance in DISTANCES_M:
        for angle in 2 * np.pi * np.arange(WAYS) / WAYS:
            T = np.eye(4)
            way = np.array([np.cos(angle), np.sin(angle)])
            T[:2, 3] = middle - distance * way
            T[:2, :2] = [[way[0], -way[1]], [way[1], way[0]]]
            if _is_free(task, T):
                yield T


def _is_free(task: Task, base: np.ndarray) -> bool:
    """Whether nothing that rises above the base's floor stands where the base is to stand."""
    ring = 2 * np.pi * np.arange(12) / 12
    points = base[:2, 3] + ROOM_M * np.stack([np.cos(ring), np.sin(ring)], 1)
    for thing in (*task.spec.background, *task.objects):
        T = thing.T_world_object
        v = task.mesh(thing).vertices @ T[:3, :3].T + T[:3, 3]
        low, high = v.min(0), v.max(0)
        if high[2] < base[2, 3] + 0.01 or low[2] > base[2, 3] + 0.3:
            continue
        # Boxes along the axes: things on a table are small, and walls are straight.
        if ((points > low[:2]) & (points < high[:2])).all(1).any():
            return False
        if (low[:2] < base[:2, 3]).all() and (high[:2] > base[:2, 3]).all():
            return False
    return True


def hides(task: Task, holds: Sequence[Hold], base: np.ndarray) -> bool:
    """Whether an arm there would stand between the camera and what is done."""
    middle = np.concatenate([h.frames[:, :3, 3] for h in holds]).mean(0)
    eye = task.camera.T_world_cam[:3, 3]
    sight = middle - eye
    along = (base[:3, 3] - eye)[:2] @ sight[:2] / (sight[:2] @ sight[:2])
    aside = np.linalg.norm((base[:2, 3] - eye[:2]) - along * sight[:2])
    return bool(along < 0.85 and aside < 0.35)
