"""Which objects touch: distances between posed meshes and the clouds of deformables."""

from __future__ import annotations

import numpy as np
import trimesh
from scipy.spatial import cKDTree

from lucibot.core.geometry import matrix_np
from lucibot.task import ObjectSpec, Task

SAMPLES = 1500


def contact_pairs(task: Task) -> tuple[tuple[str, str], ...]:
    """(object, target) pairs in task order; two targets make one pair."""
    pairs: list[tuple[str, str]] = []
    for target in task.targets:
        for o in task.objects:
            if o.name != target.name and (target.name, o.name) not in pairs:
                pairs.append((o.name, target.name))
    return tuple(pairs)


def surface_points(task: Task, obj: ObjectSpec, seed: int = 0) -> np.ndarray:
    """(SAMPLES + V, 3) points of an object's surface, its own frame; the vertices are in, so that
    edges are."""
    mesh = task.mesh(obj)
    points, _ = trimesh.sample.sample_surface(mesh, SAMPLES, seed=seed)
    return np.concatenate([np.asarray(points), np.asarray(mesh.vertices)[:SAMPLES]])


def posed(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Points (P, 3) of an object at a pose vector (6,)."""
    T = matrix_np(pose)
    return points @ T[:3, :3].T + T[:3, 3]


def nearest_m(a: np.ndarray, b: np.ndarray) -> float:
    """Smallest distance [m] between two clouds (P, 3) and (Q, 3); inf if one is empty."""
    if len(a) == 0 or len(b) == 0:
        return float("inf")
    low, high = b.min(0) - 0.05, b.max(0) + 0.05
    a = a[((a >= low) & (a <= high)).all(1)]
    if len(a) == 0:
        return float("inf")
    return float(cKDTree(b).query(a)[0].min())
