"""Held particles: how a deformable is moved without a rigid tool (paper, section 4.1).

A hand that grasps a deformable holds a patch of its particles. While it holds, their velocity is
set towards the next waypoint, in every substep; when it lets go they are particles like the others.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lucibot.core.geometry import rotate, rotvec_to_quat
from lucibot.objective.supervision import Supervision
from lucibot.sim.adapter import Adapter
from lucibot.task import ObjectSpec, Task


class Grip:
    """The patch of one deformable that is held.

    Args:
        position, velocity: of the deformable's particles, (N, B, 3) [m, m/s, world]; views of the
            simulator's memory.
    """

    def __init__(self, adapter: Adapter, position: Tensor, velocity: Tensor):
        self._position, self._velocity = position, velocity
        self._substep_s, self._substeps = adapter.substep_s, adapter.substeps
        self._held: tuple[Tensor, ...] | None = None
        self._target: Tensor | None = None
        adapter.before.append(self._drive)

    def take(self, index: Tensor) -> Tensor:
        """Take hold of particles (M,), the same in all environments, or (M, B); returns where they
        are, (M, B, 3) [m, world]."""
        self._held, self._target = (index,), None
        if index.ndim == 2:
            self._held = index, torch.arange(index.shape[1], device=index.device)
        return self._position[self._held]

    def aim(self, target_m: Tensor) -> None:
        """Where the held particles are to be after the coming step, (M, B, 3) [m, world]."""
        self._target = target_m.to(self._position.dtype)

    def let_go(self) -> None:
        self._held = self._target = None

    def _drive(self, substep: int) -> None:
        """The grid mixes the velocity of what is held with its surroundings', so what is left of
        the way is divided among the substeps that are left, this one, counted from 0, included."""
        if self._target is not None:
            left_s = (self._substeps - substep) * self._substep_s
            self._velocity[self._held] = (self._target - self._position[self._held]) / left_s


def patch(obj: ObjectSpec, particles_m: np.ndarray, grasp_m: np.ndarray) -> np.ndarray:
    """Indices of the particles (N, 3) [m, world] that a grasp at (3,) holds: those of a ball about
    the particle nearest to it, which comes first."""
    nearest = int(np.linalg.norm(particles_m - grasp_m, axis=1).argmin())
    away = np.linalg.norm(particles_m - particles_m[nearest], axis=1)
    away[nearest] = -1.0
    order = np.argsort(away, kind="stable")
    return order[away[order] <= obj.material.grip_radius_m]


def patch_now(particles_m: Tensor, grasp_m: Tensor, count: int) -> Tensor:
    """(count, B) indices of the particles (N, B, 3) [m, world] that a grasp at (3,) holds, in every
    environment those about the particle that is nearest to it there, which comes first."""
    nearest = (particles_m - grasp_m).norm(dim=-1).argmin(0)
    every = torch.arange(len(nearest), device=nearest.device)
    away = (particles_m - particles_m[nearest, every]).norm(dim=-1)
    away[nearest, every] = -1.0
    return away.topk(count, dim=0, largest=False).indices


def grasps(task: Task, supervision: Supervision) -> dict[str, np.ndarray]:
    """Where each deformable actuator is grasped at first, (3,) [m, world]: in the middle of the
    affordance, or at its first waypoint where the video shows none."""
    found = {}
    for a, actuator in enumerate(task.actuators):
        if actuator.is_rigid:
            continue
        points, T = supervision.affordance.area(a, 0)[0], actuator.T_world_object
        if len(points):
            found[actuator.name] = T[:3, :3] @ points.mean(0) + T[:3, 3]
        else:
            first = int(np.argmax(supervision.held[:, a]))
            found[actuator.name] = supervision.waypoints[first, a, :3].astype(float)
    return found


def regrasps(task: Task, supervision: Supervision) -> dict[str, dict[int, np.ndarray]]:
    """Where each deformable actuator is grasped when it is taken again, (3,) [m, world], by the
    keyframe to which the hold first leads; what the video does not show is left out."""
    told, found = supervision.affordance, {}
    for a, actuator in enumerate(task.actuators):
        later = [h for h in told.holds(a) if h > 0 and not actuator.is_rigid]
        for hold in later:
            on_way = np.flatnonzero(supervision.held[:, a] & (told.hold[:, a] == hold))
            if len(on_way):
                points, T = told.area(a, hold)[0], actuator.T_world_object
                place = T[:3, :3] @ points.mean(0) + T[:3, 3]
                found.setdefault(actuator.name, {})[int(on_way[0])] = place
    return found


def carried(offsets_m: Tensor, poses: Tensor) -> Tensor:
    """(M, B, 3): a patch with offsets (M, B, 3) from where it is grasped, at poses (B, 6)."""
    return poses[:, :3] + rotate(rotvec_to_quat(poses[:, 3:]), offsets_m)
