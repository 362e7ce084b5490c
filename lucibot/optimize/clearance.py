"""Poses that penetrate nothing static.

Particle tasks simulate no contact between rigid bodies, so a tool would pass through the board, and
waypoints that lie too low would "solve" the task from below. Every waypoint is therefore lifted
until no point of the actuator's surface lies under the top of a static body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from lucibot.core.geometry import pose_to_matrix
from lucibot.core.heights import HeightMap, height_map
from lucibot.task import ObjectSpec, Task

CELL_M = 0.002
"""Grid of the static meshes' tops."""
SURFACE_POINTS = 400
"""Points that stand for an actuator's surface."""


@dataclass(frozen=True, kw_only=True)
class Clearance:
    """Static boxes, static meshes, and the actuators' surfaces."""

    T_box_world: np.ndarray
    """(S, 4, 4) world to each static box's frame."""
    half_extents_m: np.ndarray
    """(S, 3)."""
    tops: tuple[HeightMap, ...]
    """Of each static mesh: it may be hollow, and its inside is not below its top."""
    surfaces: tuple[np.ndarray, ...]
    """A arrays (n, 3) [m] in the actuators' frames."""
    soft: tuple[int, ...] = ()
    """Which actuators are deformable: what of them would pass through something is caught by it, so
    their ways are kept clear too."""
    margin_m: float = 0.0005

    @classmethod
    def of(cls, task: Task, grasps: Mapping[str, np.ndarray] | None = None) -> Clearance:
        """From a task's solid background.

        Args:
            grasps: where deformable actuators are grasped, (3,) [m, world] by name.
        """
        grasps = grasps or {}
        inverse, half, tops = [], [], []
        for b in task.spec.background:
            if not b.solid:
                continue
            if b.size_m is not None:
                inverse.append(np.linalg.inv(b.T_world_object))
                half.append(np.asarray(b.size_m) / 2)
                continue
            mesh, T = task.mesh(b), b.T_world_object
            vertices = np.asarray(mesh.vertices) @ T[:3, :3].T + T[:3, 3]
            tops.append(height_map(vertices, np.asarray(mesh.faces), CELL_M, top=True))
        surfaces = tuple(_surface(task, a, grasps.get(a.name)) for a in task.actuators)
        return cls(
            T_box_world=np.reshape(inverse, (-1, 4, 4)), half_extents_m=np.reshape(half, (-1, 3)),
            tops=tuple(tops), surfaces=surfaces,
            soft=tuple(a for a, o in enumerate(task.actuators) if not o.is_rigid),
        )  # fmt: skip

    def penetration(self, poses: np.ndarray, actuator: int) -> np.ndarray:
        """Poses (..., 6) to the height [m] (...) by which each must be lifted; 0 where it is clear."""
        T = pose_to_matrix(torch.as_tensor(np.asarray(poses, float))).numpy()
        points = self.surfaces[actuator] @ T[..., :3, :3].swapaxes(-1, -2) + T[..., None, :3, 3]
        need = np.zeros(points.shape[:-2])
        for T_box, half in zip(self.T_box_world, self.half_extents_m, strict=True):
            # The vertical line through each point meets the box in an interval of heights (slabs).
            p = points @ T_box[:3, :3].T + T_box[:3, 3]
            up = T_box[:3, 2]
            safe = np.where(np.abs(up) < 1e-9, 1e-9, up)
            a, b = (-half - p) / safe, (half - p) / safe
            enter, leave = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
            # A point under the top counts as inside however deep it is: nothing belongs below.
            inside = (enter <= leave) & (leave > -self.margin_m)
            need = np.maximum(need, np.where(inside, leave + self.margin_m, 0.0).max(-1))
        for top in self.tops:
            below = top.at(points[..., :2]) - points[..., 2] + self.margin_m
            need = np.maximum(need, below.max(-1))
        return need

    def lift(self, waypoints: np.ndarray) -> np.ndarray:
        """Waypoints (..., K, A, 6), raised along world z where they penetrate something static; both
        ends of a way on which what is held of a deformable would."""
        lifted = np.array(waypoints, copy=True)
        for a in range(len(self.surfaces)):
            poses = lifted[..., a, :]
            need = self.penetration(poses, a)
            if a in self.soft:
                before, after = poses[..., :-1, :], poses[..., 1:, :]
                for s in (0.25, 0.5, 0.75):
                    between = self.penetration((1 - s) * before + s * after, a)
                    need[..., :-1] = np.maximum(need[..., :-1], between)
                    need[..., 1:] = np.maximum(need[..., 1:], between)
            lifted[..., a, 2] += need.astype(lifted.dtype)
        return lifted


def _surface(task: Task, actuator: ObjectSpec, grasp_m: np.ndarray | None) -> np.ndarray:
    """(n, 3) [m]; of a deformable what is held, in the frame of where it is grasped."""
    import trimesh

    if not actuator.is_rigid:
        T = actuator.T_world_object
        points = np.asarray(task.mesh(actuator).vertices) @ T[:3, :3].T + T[:3, 3]
        grasp_m = points[0] if grasp_m is None else grasp_m
        near = np.linalg.norm(points - grasp_m, axis=1)
        reach = max(actuator.material.grip_radius_m, near.min())
        return points[near <= reach] - grasp_m
    mesh = task.mesh(actuator)
    points, _ = trimesh.sample.sample_surface(mesh, SURFACE_POINTS, seed=0)
    # The extreme points decide, so the corners are always among them.
    return np.concatenate([points, mesh.convex_hull.vertices])
