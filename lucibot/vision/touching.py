"""Which objects touch: distances between posed meshes and the clouds of deformables.

Videos and rollouts are asked alike: two things touch when their surfaces come within the task's
`contact_m`. A gap, not a force: a video shows that things are together, not how hard they press. A
mesh's surface is the points of `surface_points` on both sides; that of a deformable is what is seen of
it in a video, and in a rollout half a particle's size around each of its particles.
"""

from __future__ import annotations

import numpy as np
import trimesh
from lucibot_kernels import even_ranks
from scipy.spatial import cKDTree

from lucibot.core.geometry import matrix_np
from lucibot.task import ObjectSpec, Task

SPACING = 1 / 3
"""Of a surface's points, as a share of the distance at which things touch: between clouds gaps are
larger than between the surfaces, the less the denser they are."""
FEWEST, MOST = 500, 4000
"""Points of a surface, its corners not counted."""


def contact_pairs(task: Task) -> tuple[tuple[str, str], ...]:
    """(object, target) pairs in task order; two targets make one pair."""
    pairs: list[tuple[str, str]] = []
    for target in task.targets:
        for o in task.objects:
            if o.name != target.name and (target.name, o.name) not in pairs:
                pairs.append((o.name, target.name))
    return tuple(pairs)


def surface_points(task: Task, obj: ObjectSpec) -> np.ndarray:
    """(P, 3) [m] points of an object's surface, its own frame: at least as dense as `SPACING` asks
    for, if `MOST` are enough; corners are in, so that edges are."""
    mesh = task.mesh(obj)
    count = int(np.clip(mesh.area / (SPACING * task.spec.contact_m) ** 2, FEWEST, MOST))
    points, _ = trimesh.sample.sample_surface(mesh, count, seed=0)
    corners = np.asarray(mesh.vertices)
    return np.concatenate([np.asarray(points), corners[even_ranks(len(corners), MOST)]])


def posed(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Points (P, 3) of an object at a pose vector (6,)."""
    T = matrix_np(pose)
    return points @ T[:3, :3].T + T[:3, 3]


def nearer(a: np.ndarray, b: np.ndarray, than_m: float) -> bool:
    """Whether two clouds (P, 3) and (Q, 3) come nearer to each other; an empty one is near to nothing."""
    if len(a) == 0 or len(b) == 0:
        return False
    low, high = b.min(0) - than_m, b.max(0) + than_m
    a = a[((a >= low) & (a <= high)).all(1)]
    return bool((cKDTree(b).query(a)[0] < than_m).any())
