"""Whether something goes around upright things that stand still, seen in the picture."""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.core.camera import Camera
from lucibot.task import Task

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


def axis_px(camera: Camera, vertices_m: np.ndarray) -> np.ndarray:
    """(7, 2) pixels of an upright thing's middle line, from its vertices (V, 3) [m, world]."""
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
    return any(cv2.pointPolygonTest(hull, (float(x), float(y)), False) > 0 for x, y in axis)
