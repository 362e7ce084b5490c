"""What an arm has to follow: the stretches of a trajectory in which an actuator is held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lucibot.core.errors import RunFailed
from lucibot.core.geometry import pose_to_matrix, quat_to_rotvec
from lucibot.store.rollout import Rollout
from lucibot.task import Task

EVERY_S = 0.08
"""Of simulated time between two stations of the way, at most."""
A_WAYPOINT = 3
"""Stations on the way to each waypoint, at least: on them the hand comes to rest."""
MOST_STATIONS = 48


class NoPlan(RunFailed):
    """The arm cannot do it.

    Args:
        stage: what is to blame: "perception" (nothing is held), "grasp", "kinematics" or "planning".
    """

    def __init__(self, stage: str, why: str):
        super().__init__(why)
        self.stage = stage


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A stretch of the trajectory in which one actuator is held, at T stations."""

    actuator: str
    steps: np.ndarray
    """(T,) int: simulation steps."""
    times_s: np.ndarray
    """(T,) of simulated time."""
    frames: np.ndarray
    """(T, 4, 4) where its frame is to be, world; of a deformable one, that of what is grasped."""
    others: list[dict[str, np.ndarray]]
    """At each station, (7,) poses of the other rigid objects by name."""


def holds_of(task: Task, rollout: Rollout) -> list[Hold]:
    """What an arm has to follow, in the order in which it begins."""
    found = []
    for a, name in enumerate(rollout.actuators):
        held = np.concatenate([[False], rollout.held[:, a], [False]]).astype(int)
        starts, ends = np.flatnonzero(np.diff(held) == 1), np.flatnonzero(np.diff(held) == -1)
        for start, end in zip(starts, ends, strict=True):
            found.append(_hold(task, rollout, name, start, end))
    return sorted(found, key=lambda h: h.times_s[0])


def _hold(task: Task, r: Rollout, name: str, start: int, end: int) -> Hold:
    dt = r.times_s[1] - r.times_s[0]
    waypoints = (end - start) / task.spec.simulation.steps_per_waypoint
    wanted = max((end - start) * dt / EVERY_S, A_WAYPOINT * waypoints)
    count = int(np.clip(np.ceil(wanted), 2, MOST_STATIONS))
    steps = np.unique(np.round(np.linspace(start, end - 1, count)).astype(int))
    others = [
        {n: np.concatenate([r.positions_m[s, i], r.quaternions[s, i]])
         for i, n in enumerate(r.bodies) if n != name}
        for s in steps
    ]  # fmt: skip
    return Hold(actuator=name, steps=steps, times_s=r.times_s[steps],
                frames=frames_of(r, name, steps), others=others)  # fmt: skip


def frames_of(rollout: Rollout, actuator: str, steps: np.ndarray) -> np.ndarray:
    """(T, 4, 4) where an actuator's frame is to be after each of T steps in which it is held."""
    a = rollout.actuators.index(actuator)
    turn = torch.as_tensor(rollout.target_quaternions[steps, a]).double()
    place = torch.as_tensor(rollout.targets_m[steps, a]).double()
    return pose_to_matrix(torch.cat([place, quat_to_rotvec(turn)], -1)).numpy()


def lets_go(task: Task, rollout: Rollout, hold: Hold) -> bool:
    """Whether the hand opens at the end of its last hold. What is held to the end stays in it where rigid bodies
    do not collide: nothing else would carry it."""
    sim = task.spec.simulation
    return sim.rigid_collision or bool(hold.steps[-1] + sim.settle_steps + 1 < len(rollout.held))
