"""Ways that pass through nothing that stands still.

Particle tasks simulate no contact between rigid bodies, so a tool would pass through the board, and
waypoints that lie too low would "solve" the task from below. Each actuator is therefore followed from
where it stands at first along the way that the rollout makes: straight, with the shortest turn, from
waypoint to waypoint. A waypoint that penetrates something, or to which the straight way does, is moved
by the shortest shift found that clears both: along the surfaces' normals, which is how it leaves what
it hardly penetrates, or straight up, or along the axes of what is in the way, which is how it gets past
what it would have passed through. The waypoint before may be shifted with it. Where something can be
reached from decides the side, so what was put below a table comes up and what was put under a shelf
stays there. No waypoint is added, since the search's dimension is fixed: what no shift clears stops on
its way, before the first thing that it would meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from lucibot.core.solids import Solids
from lucibot.optimize._clearance_kernels import Desk, distances, repair
from lucibot.task import ObjectSpec, Task

SPACING_M = 0.004
"""Of the points that stand for an actuator's surface, unless there were more than `MOST_POINTS`."""
MOST_POINTS = 1000
LEAF = 8
"""Surface points that are bounded by one ball."""


class Tool(NamedTuple):
    """An actuator's surface as a tree of balls in preorder, packed for numba."""

    points_m: np.ndarray
    """(n, 3) in the actuator's frame."""
    centre_m: np.ndarray
    """(m, 3) of each ball."""
    radius_m: np.ndarray
    """(m,)."""
    reach_m: np.ndarray
    """(m,) distance from the frame's origin to the ball's far side."""
    points: np.ndarray
    """(m, 2) int64 first and last + 1 of a leaf's points; an inner ball has none."""
    next: np.ndarray
    """(m,) int64 the ball that follows when nothing in this one matters."""

    @classmethod
    def of(cls, points_m: np.ndarray) -> Tool:
        order, balls = [], []

        def add(index: np.ndarray) -> None:
            p = points_m[index]
            centre = (p.min(0) + p.max(0)) / 2
            ball = len(balls)
            balls.append([centre, np.linalg.norm(p - centre, axis=1).max(), (0, 0), 0])
            if len(index) <= LEAF:
                balls[ball][2] = (len(order), len(order) + len(index))
                order.extend(index)
            else:
                along = index[np.argsort(p[:, np.ptp(p, axis=0).argmax()], kind="stable")]
                add(along[: len(along) // 2])
                add(along[len(along) // 2 :])
            balls[ball][3] = len(balls)

        add(np.arange(len(points_m)))
        centre, radius = np.array([b[0] for b in balls]), np.array([b[1] for b in balls])
        return cls(
            points_m=np.ascontiguousarray(points_m[order], float), centre_m=centre, radius_m=radius,
            reach_m=np.linalg.norm(centre, axis=1) + radius,
            points=np.array([b[2] for b in balls], np.int64),
            next=np.array([b[3] for b in balls], np.int64),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Clearance:
    """A task's solid background, and its actuators' surfaces."""

    solids: Solids
    tools: tuple[Tool | None, ...]
    """Of each actuator; None of one on a joint, whose way is the joint's."""
    starts: np.ndarray
    """(A, 6) pose vectors [m, rad, world] that actuators are first taken up at."""

    @classmethod
    def of(cls, task: Task, grasps: Mapping[str, np.ndarray] | None = None) -> Clearance:
        """From a task.

        Args:
            grasps: where deformable actuators are grasped, (3,) [m, world] by name.
        """
        boxes, meshes = [], []
        for b in task.spec.background:
            if b.solid and b.size_m is not None:
                boxes.append((b.T_world_object, np.asarray(b.size_m)))
            elif b.solid:
                mesh = task.mesh(b)
                meshes.append((b.T_world_object, mesh.vertices, mesh.faces))
        tools, starts = [], np.zeros((len(task.actuators), 6))
        for a, actuator in enumerate(task.actuators):
            T = actuator.T_world_object
            if actuator.joint is not None:
                tools.append(None)
            elif actuator.is_rigid:
                tools.append(Tool.of(_surface(task.mesh(actuator))))
                starts[a] = np.r_[T[:3, 3], Rotation.from_matrix(T[:3, :3]).as_rotvec()]
            else:
                starts[a, :3], points = _held(task, actuator, (grasps or {}).get(actuator.name))
                tools.append(Tool.of(points))
        return cls(solids=Solids.of(boxes, meshes), tools=tuple(tools), starts=starts)

    def distance(self, poses: np.ndarray, actuator: int) -> np.ndarray:
        """Poses (..., 6) to how far an actuator is from what stands still [m] (...); negative: how
        deep it is in it. Inf where nothing is nearer than a metre."""
        poses = np.asarray(poses, float)
        flat = np.ascontiguousarray(poses.reshape(-1, 6))
        found = distances(self.tools[actuator], self.solids, flat)
        return found.reshape(poses.shape[:-1])

    def repaired(self, waypoints: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Waypoints (..., K, A, 6) whose executed ways pass through nothing that stands still; those
        that do not already keep their bits.

        An actuator that is let go and taken up again is followed from where it was let go.

        Args:
            held: (K, A) bool, as in `Supervision.held`; only the ways to these are executed.
        """
        out = np.array(waypoints, copy=True)
        K, A = held.shape
        flat = out.reshape(-1, K, A, 6)
        for a, tool in enumerate(self.tools):
            ks = np.flatnonzero(held[:, a])
            if tool is None or not len(ks) or not self.solids.count:
                continue
            start = np.broadcast_to(self.starts[a], (len(flat), 1, 6))
            stations = np.ascontiguousarray(np.concatenate([start, flat[:, ks, a]], 1), float)
            changed = repair(tool, self.solids, Desk.of(self.solids.count), stations)
            m, k = np.nonzero(changed[:, 1:])
            flat[m, ks[k], a] = stations[m, k + 1].astype(out.dtype)
        return out


def _surface(mesh) -> np.ndarray:
    """Points (n, 3) [m] on a mesh: its edges and faces divided evenly, and the corners of its hull,
    since the extreme points decide."""
    import trimesh

    spacing = max(SPACING_M, float(np.sqrt(mesh.area / MOST_POINTS)))
    vertices, _ = trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, spacing, max_iter=20)
    hull = _thinned(np.asarray(mesh.convex_hull.vertices), spacing / 2)
    return np.concatenate([_thinned(np.asarray(vertices), spacing), hull])


def _thinned(points: np.ndarray, cell: float) -> np.ndarray:
    """The first of the points (n, 3) in each cell."""
    _, first = np.unique(np.floor(points / cell).astype(np.int64), axis=0, return_index=True)
    return points[np.sort(first)]


def _held(
    task: Task, actuator: ObjectSpec, grasp_m: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Where a deformable is grasped (3,) [m, world], and what is held of it, (n, 3) [m] from there."""
    T = actuator.T_world_object
    points = np.asarray(task.mesh(actuator).vertices) @ T[:3, :3].T + T[:3, 3]
    grasp_m = points[0] if grasp_m is None else grasp_m
    near = np.linalg.norm(points - grasp_m, axis=1)
    reach = max(actuator.material.grip_radius_m, near.min())
    return grasp_m, points[near <= reach] - grasp_m
