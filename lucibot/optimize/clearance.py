"""Poses that penetrate nothing static.

Particle tasks simulate no contact between rigid bodies, so a tool would pass through the board, and
waypoints that lie too low would "solve" the task from below. Every waypoint is therefore lifted
until no point of the actuator's surface lies under the top of a static body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numba
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
        poses = np.asarray(poses, float)
        T = pose_to_matrix(torch.as_tensor(poses.reshape(-1, 6))).numpy()
        surface, need = self.surfaces[actuator], np.zeros(len(T))
        for T_box, half in zip(self.T_box_world, self.half_extents_m, strict=True):
            raise_out_of_box(T, surface, T_box, half, self.margin_m, need)
        for top in self.tops:
            raise_above_top(T, surface, top.lower_xy_m, top.cell_m, top.z, self.margin_m, need)
        return need.reshape(poses.shape[:-1])

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


@numba.njit(cache=True)
def along(T, axis, point):
    """One world coordinate [m] of a point (3,) of a frame with pose T (4, 4)."""
    value = T[axis, 3]
    for k in range(3):
        value += T[axis, k] * point[k]
    return value


@numba.njit(cache=True)
def raise_out_of_box(T, surface, T_box, half, margin, need):
    """Raise `need` to the height [m] by which posed points must be lifted out of a box.

    The vertical line through a point meets the box in an interval of heights (slabs). A point under the
    top counts as inside however deep it is: nothing belongs below.

    Args:
        T: (M, 4, 4) poses; surface: (n, 3) [m] points; T_box: (4, 4) world to the box's frame; half:
            (3,) its half extents [m]; need: (M,) [m].
    """
    up = np.empty(3)
    top = 0.0
    for k in range(3):
        up[k] = T_box[k, 2] if abs(T_box[k, 2]) >= 1e-9 else 1e-9
        # Of the box's frame in the world, whose axes are the rows.
        top += abs(T_box[k, 2]) * half[k] - T_box[k, 2] * T_box[k, 3]
    for m in range(T.shape[0]):
        for i in range(surface.shape[0]):
            z = along(T[m], 2, surface[i])
            if z >= top + margin:
                continue
            x, y = along(T[m], 0, surface[i]), along(T[m], 1, surface[i])
            enter, leave = -np.inf, np.inf
            for k in range(3):
                p = T_box[k, 0] * x + T_box[k, 1] * y + T_box[k, 2] * z + T_box[k, 3]
                a, b = (-half[k] - p) / up[k], (half[k] - p) / up[k]
                enter, leave = max(enter, min(a, b)), min(leave, max(a, b))
            if enter <= leave and leave > -margin:
                need[m] = max(need[m], leave + margin)


@numba.njit(cache=True)
def raise_above_top(T, surface, lower_xy, cell, top, margin, need):
    """The same for the top (nx, ny) [m] of a static mesh, see `HeightMap`."""
    highest = top.max()
    for m in range(T.shape[0]):
        for i in range(surface.shape[0]):
            z = along(T[m], 2, surface[i])
            if z >= highest + margin:
                continue
            x, y = along(T[m], 0, surface[i]), along(T[m], 1, surface[i])
            u = int(np.floor((x - lower_xy[0]) / cell))
            v = int(np.floor((y - lower_xy[1]) / cell))
            if 0 <= u < top.shape[0] and 0 <= v < top.shape[1]:
                need[m] = max(need[m], top[u, v] - z + margin)
