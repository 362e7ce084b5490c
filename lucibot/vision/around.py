"""Whether something goes around upright things that stand still, seen in the picture.

A relation that a person would name at once, and that neither masks nor clouds show: a torn band
lies nearly where a whole one does. A video is asked as a person is, who does not see what the thing
hides (`goes_around`); a rollout can be drawn without the thing, so there nothing may be open
(`encloses`).
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.core.camera import Camera
from lucibot.task import BackgroundSpec, ObjectSpec, Task

HEIGHTS = np.linspace(0.1, 0.9, 7)
"""Shares of a thing's height at which it may be gone around."""


def outlines(task: Task, camera: Camera) -> list[np.ndarray]:
    """(H, W) bool of each mesh in the background: what may hide the middle of something that goes
    around it."""
    found = []
    for item in task.spec.background:
        if not item.solid or item.mesh is None:
            continue
        T = item.T_world_object
        uv, _ = camera.project(np.asarray(task.mesh(item).vertices) @ T[:3, :3].T + T[:3, 3])
        mask = np.zeros((camera.height, camera.width), np.uint8)
        cv2.fillConvexPoly(mask, cv2.convexHull(np.round(uv - 0.5).astype(np.int32)), 1)
        found.append(mask > 0)
    return found


def around_pairs(task: Task) -> tuple[tuple[str, str], ...]:
    """(target, thing) of every mesh that stands still in the background, in task order."""
    things = [b.name for b in task.spec.background if b.solid and b.mesh is not None]
    return tuple((target.name, name) for target in task.targets for name in things)


def axis_px(task: Task, thing: BackgroundSpec | ObjectSpec, camera: Camera) -> np.ndarray:
    """(7, 2) pixels of the middle line of an upright thing, where the task puts it."""
    T = thing.T_world_object
    vertices_m = np.asarray(task.mesh(thing).vertices) @ T[:3, :3].T + T[:3, 3]
    low, high = vertices_m.min(0), vertices_m.max(0)
    middle = vertices_m[:, :2].mean(0)
    points = np.column_stack(
        [np.tile(middle, (len(HEIGHTS), 1)), low[2] + HEIGHTS * (high[2] - low[2])]
    )
    return camera.project(points)[0]


def goes_around(mask: np.ndarray, axis: np.ndarray) -> bool:
    """What is seen of something, `mask` (h, w), reaches around the middle line `axis` (A, 2) of an
    upright thing, which hides some of it, at one height at least: a rope or a band has the thing
    between its strands."""
    if mask.sum() < 20:
        return False
    points = np.argwhere(mask)[:, ::-1].astype(np.float32) + 0.5
    hull = cv2.convexHull(points)
    free = [(float(x), float(y)) for x, y in axis if not _at(mask, x, y)]
    return any(cv2.pointPolygonTest(hull, at, False) > 0 for at in free)


def encloses(mask: np.ndarray, axis: np.ndarray) -> bool:
    """The whole of something, `mask` (h, w) with nothing in front of it, has a hole through which
    the middle line `axis` (A, 2) of an upright thing passes."""
    outside = np.pad((~mask).astype(np.uint8), 1, constant_values=1)
    _, region = cv2.connectedComponents(outside, connectivity=4)
    hole = (region != region[0, 0]) & (outside > 0)
    return any(_at(hole[1:-1, 1:-1], x, y) for x, y in axis)


def _at(mask: np.ndarray, x: float, y: float) -> bool:
    h, w = mask.shape
    return 0 <= x < w and 0 <= y < h and bool(mask[int(y), int(x)])
