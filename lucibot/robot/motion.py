"""The whole of what an arm does: from home to the grasp, along the trajectory, and away (paper, section 3.4).

Ways that hit nothing are RRT-Connect's, times are those of TOPP-RA. While something is held the arm goes
no faster than the simulation in which the trajectory was found, and slower where its joints ask for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from lucibot.core.progress import Progress, silent
from lucibot.robot.arm import Arm
from lucibot.robot.collision import CollisionWorld
from lucibot.robot.holds import Hold, NoPlan, frames_of, holds_of, lets_go
from lucibot.robot.kinematics import Kinematics
from lucibot.robot.plan import OFF_M, OFF_RAD, PINCHED_M, RETREAT_M, ArmPlan, plan_holds
from lucibot.robot.timing import JointLimits, followed, timed
from lucibot.robot.ways import free_way
from lucibot.store.rollout import Rollout
from lucibot.task import Task

SHARE = 0.5
"""Of the joints' limits, where nothing is held."""
CLOSING_S, OPENING_S = 0.4, 0.3
"""What fingers are given to close and to open."""
STRAIGHT = 24
"""Places on the straight way to a grasp and from it."""
PLACES_COMPARED = 4
"""Of those from which the whole way is followed, the best of so many is taken."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """N steps of one kind."""

    kind: str
    """"approach", "close", "follow", "open", "retreat" or "rest"."""
    hold: int
    """Which hold it belongs to."""
    angles: np.ndarray
    """(N, J) [rad] targets of the joints."""
    speeds: np.ndarray
    """(N, J) [rad/s]"""
    opening_m: np.ndarray
    """(N,) between the fingers."""
    wanted: np.ndarray | None = None
    """(N, 4, 4) of "follow": where the actuator's frame is to be, world."""
    simulated_s: np.ndarray | None = None
    """(N,) of "follow": when it was there in the simulation."""

    def __len__(self) -> int:
        return len(self.angles)


@dataclass(frozen=True, kw_only=True)
class Motion:
    """All phases in turn, `dt_s` a step."""

    dt_s: float
    phases: tuple[Phase, ...]
    holds: tuple[str, ...]
    """The actuator of each hold."""
    grasps: np.ndarray
    """(H, 4, 4) of the TCP in the frame of what is held."""
    T_world_base: np.ndarray
    slower: np.ndarray
    """(H,) how many times as long as in the simulation each hold takes."""

    @property
    def steps(self) -> int:
        return sum(len(p) for p in self.phases)


def plan_motion(
    task: Task, arm: Arm, rollout: Rollout, areas_m: Sequence[np.ndarray], *,
    T_world_base: np.ndarray | None = None, seed: int = 0, progress: Progress = silent,
) -> tuple[list[ArmPlan], Motion]:  # fmt: skip
    """How an arm follows everything that is held in a rollout, and the whole of what it does.

    Args:
        areas_m: of each actuator, (M, 3) where finger tips were seen, in its own frame; may be empty.
        T_world_base: where it stands; sought if not given.

    Raises:
        NoPlan: it cannot, with the stage to blame.
    """
    holds = holds_of(task, rollout)
    if not holds:
        raise NoPlan("perception", "nothing is held in it, so there is nothing for an arm to do")
    areas, failed = [areas_m[rollout.actuators.index(h.actuator)] for h in holds], None
    found = plan_holds(task, holds, arm, areas, T_world_base=T_world_base, seed=seed,
                       progress=progress)  # fmt: skip
    while some := sorted(
        islice(found, PLACES_COMPARED), key=lambda plans: sum(p.cost for p in plans)
    ):
        for plans in some:
            composer = _Composer(task=task, arm=arm, plans=plans, holds=holds, rollout=rollout,
                                 seed=seed, progress=progress)  # fmt: skip
            try:
                return plans, composer.motion()
            except NoPlan as e:
                failed = e
    raise failed


@dataclass(kw_only=True)
class _Composer:
    """Puts the phases together."""

    task: Task
    arm: Arm
    plans: list[ArmPlan]
    holds: list[Hold]
    rollout: Rollout
    seed: int = 0
    progress: Progress = silent
    _phases: list[Phase] = field(default_factory=list)

    def motion(self) -> Motion:
        """
        Raises:
            NoPlan: no way leads to a grasp or from it ("planning").
        """
        self._solver = Kinematics(self.arm.chain)
        self._base = self.plans[0].T_world_base
        self._world = CollisionWorld(self.arm, self._base, self.task)
        self._now = np.array(self.arm.spec.home_rad, float)
        self._dt, self._slower = self.task.spec.simulation.dt_s, []
        for h, (plan, hold) in enumerate(zip(self.plans, self.holds, strict=True)):
            self.progress(f"a way to {hold.actuator}", h / len(self.holds))
            self._one(h, plan, hold)
        rest = self.task.spec.simulation.settle_steps
        self._stay("rest", len(self.holds) - 1, rest * self._dt, self._opening)
        return Motion(
            dt_s=self._dt, phases=tuple(self._phases), holds=tuple(h.actuator for h in self.holds),
            grasps=np.stack([p.T_obj_tcp for p in self.plans]), T_world_base=self._base,
            slower=np.array(self._slower),
        )  # fmt: skip

    def _one(self, h: int, plan: ArmPlan, hold: Hold) -> None:
        spec, full = self.arm.spec, self.arm.spec.gripper.opening_m
        steps = np.arange(hold.steps[0], hold.steps[-1] + 1)
        times, frames, angles = self._followed(plan, hold, steps)
        before = self._straight(angles[0])[::-1]
        self._opening = full
        self._approach(h, hold, before)
        closed = plan.width_m if self.task.object(hold.actuator).is_rigid else PINCHED_M
        self._stay("close", h, CLOSING_S, closed)
        self._opening = closed
        found = followed(times, angles, spec, self._dt)
        if found is None:
            raise NoPlan("planning", f"{hold.actuator}: the joints of {self.arm.name} cannot keep "
                         "their limits on the way that it has to follow")  # fmt: skip
        at = np.clip(found.places, times[0], times[-1])
        nearest = np.clip(np.searchsorted(times, at - 1e-9), 0, len(times) - 1)
        self._add("follow", h, found.angles[1:], found.speeds[1:], closed,
                  wanted=frames[nearest][1:], simulated_s=at[1:])  # fmt: skip
        self._slower.append(found.times_s[-1] / max(times[-1] - times[0], self._dt))
        self._now = found.angles[-1]
        more = h + 1 < len(self.holds)
        if more or lets_go(self.task, self.rollout, hold):
            self._stay("open", h, OPENING_S, full)
            self._opening = full
            self._timed("retreat", h, self._straight(self._now), full)

    def _followed(self, plan: ArmPlan, hold: Hold, steps: np.ndarray):
        """Times (N,) of the simulation, the actuator's frames (N, 4, 4) and the joints' angles (N, J) at
        every step of a hold, near the plan's stations."""
        frames = frames_of(self.rollout, hold.actuator, steps)
        times = self.rollout.times_s[steps]
        guess = _between(plan.simulated_s, plan.angles, times)
        target = torch.as_tensor(np.linalg.inv(self._base) @ frames @ plan.T_obj_tcp)
        found = self._solver.solve(torch.as_tensor(guess), target, iterations=12)
        if float(found.off_m.max()) > OFF_M or float(found.off_rad.max()) > OFF_RAD:
            raise NoPlan(
                "kinematics", f"{hold.actuator}: between two stations {self.arm.name} is "
                f"{1000 * float(found.off_m.max()):.1f} mm off its way"
            )  # fmt: skip
        return times, frames, found.angles.numpy()

    def _straight(self, angles: np.ndarray) -> np.ndarray:
        """(N, J) from a grasp back along the hand's own axis, as far as the arm gets."""
        T = self._solver.tcp(torch.as_tensor(angles)[None])[0]
        rows, q = [angles], torch.as_tensor(angles)[None]
        for share in np.linspace(0, 1, STRAIGHT)[1:]:
            target = T.clone()
            target[:3, 3] -= share * RETREAT_M * T[:3, 2]
            s = self._solver.solve(q, target[None], iterations=10)
            if float(s.off_m) > OFF_M or float(s.off_rad) > OFF_RAD:
                break
            q = s.angles
            rows.append(q[0].numpy())
        return np.stack(rows)

    def _approach(self, h: int, hold: Hold, last: np.ndarray) -> None:
        """From where the arm is to the beginning of the straight way (N, J), and along it."""
        poses, goal = hold.others[0], last[0]
        # The hand has been found clear of what it takes where it is open; hulls are larger than things.
        ignored = {hold.actuator} if self._hits(goal, poses) == {hold.actuator} else set()
        for end, words in ((self._now, "where it comes from"), (goal, "where it is to take hold")):
            if others := self._hits(end, poses) - ignored:
                raise NoPlan("planning", f"{hold.actuator}: {self.arm.name} is in "
                             f"{' and '.join(sorted(others))} {words}")  # fmt: skip
        chain = self.arm.chain
        way = free_way(
            self._now, goal, chain.lower, chain.upper,
            lambda q: not (self._hits(q, poses) - ignored), seed=self.seed + h,
        )  # fmt: skip
        if way is None:
            raise NoPlan("planning", f"{hold.actuator}: no way was found on which {self.arm.name} "
                         "comes to it without hitting anything")  # fmt: skip
        self._timed("approach", h, way, self._opening)
        self._timed("approach", h, last, self._opening)

    def _hits(self, angles: np.ndarray, poses) -> set[str]:
        arm = self._world.arm_bodies
        return {name for pair in self._world.hits(angles, poses) for name in _met(pair, arm)}

    def _timed(self, kind: str, h: int, way: np.ndarray, opening: float) -> None:
        if len(way) < 4:
            way = _between(np.arange(len(way)), way, np.linspace(0, len(way) - 1, 4))
        if np.abs(way - way[0]).max() < 1e-9:
            return
        found = timed(
            np.linspace(0, 1, len(way)), way,
            JointLimits.of(self.arm.spec, velocity=SHARE, rest=SHARE), self._dt,
        )  # fmt: skip
        if found is None:
            raise NoPlan("planning", f"{self.holds[h].actuator}: no times were found for the way "
                         f"({kind})")  # fmt: skip
        self._add(kind, h, found.angles[1:], found.speeds[1:], opening)
        self._now = found.angles[-1]

    def _stay(self, kind: str, h: int, seconds: float, opening: float) -> None:
        n = max(1, round(seconds / self._dt))
        still = np.repeat(self._now[None], n, 0)
        self._add(kind, h, still, np.zeros_like(still), opening)

    def _add(self, kind: str, h: int, angles, speeds, opening: float, **more) -> None:
        self._phases.append(Phase(
            kind=kind, hold=h, angles=angles, speeds=speeds,
            opening_m=np.full(len(angles), opening), **more,
        ))  # fmt: skip


def _met(pair: tuple[str, str], arm: set[str]) -> set[str]:
    """What the arm is in: the other thing's name, or "itself"."""
    others = {name for name in pair if name not in arm}
    return others or {"itself"}


def _between(times: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    if len(times) > 3:
        from scipy.interpolate import PchipInterpolator

        return PchipInterpolator(times, values)(wanted)
    return np.stack([np.interp(wanted, times, v) for v in values.T], 1)
