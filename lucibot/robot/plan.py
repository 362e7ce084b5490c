"""From what was learned to an arm's joints: which grasp, from where, along which way (paper, section 3.4).

A grasp is worth something only if the arm can follow the WHOLE trajectory with it. So all grasps and many
answers each are solved together, the cheapest continuous way through the answers is found by dynamic
programming, and what it hits is taken out until a way is left that hits nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lucibot.core.progress import Progress, silent
from lucibot.robot.arm import Arm
from lucibot.robot.bases import HIDES, bases, hides
from lucibot.robot.collision import CollisionWorld
from lucibot.robot.grasps import NEAR_M, pinches, sample_grasps
from lucibot.robot.holds import Hold, NoPlan
from lucibot.robot.kinematics import Kinematics, Solved, cheapest
from lucibot.robot.room import HandRoom
from lucibot.robot.timing import followed
from lucibot.task import Task

OFF_M, OFF_RAD = 1e-3, np.deg2rad(0.5)
"""What the TCP may be off at a station."""
RESTARTS = 12
"""Answers that are sought for each grasp, each followed all the way."""
LONGEST_RAD = 0.6
"""What a joint may move from station to station."""
RETREAT_M = 0.10
"""The hand comes from so far, and leaves so far, along its own axis."""
PINCHED_M = 0.004
"""Between fingers that have closed on what yields."""
BASES_KEPT = 6
"""Places of the base that are looked at in full, the most promising first."""
GRASPS_TRIED = 24
"""From each place."""
WAYS_COMPARED = 3
"""Of the grasps whose way hits nothing, the best of so many is taken."""
REPAIRS = 60
"""Times that a way is sought again without what hits."""
SAME_RAD = 0.02
"""Answers that are nearer to one that hits hit as well."""


@dataclass(frozen=True, kw_only=True)
class ArmPlan:
    """How an arm follows one hold, at its T stations."""

    arm: str
    arm_folder: str
    """Where that arm's folder was; empty of one that comes with the package."""
    actuator: str
    joints: tuple[str, ...]
    T_world_base: np.ndarray
    """(4, 4)"""
    T_obj_tcp: np.ndarray
    """(4, 4) the grasp, in the actuator's frame."""
    width_m: float
    """Between the fingers."""
    quality: float
    """Of the grasp, in [0, 1]."""
    within_m: float
    """How near to the seen finger tips grasps were sought."""
    angles: np.ndarray
    """(T, J) [rad]"""
    simulated_s: np.ndarray
    """(T,) when the stations are reached in the simulation."""
    off_m: np.ndarray
    """(T,) what the TCP is off at the stations."""
    off_deg: np.ndarray
    """(T,)"""
    takes_s: float
    """What its way takes, timed through the stations."""
    hidden: float
    """How much of the while, in [0, 1], the arm hides from the camera what it is done to."""
    remark: str = ""
    """What is to be known of the grasp, if anything."""
    tried: dict[str, int] = field(default_factory=dict)
    """How many places of the base, grasps, and grasps that reach all of the way there were."""

    @property
    def cost(self) -> float:
        """Seconds, and more where the camera does not see what is done."""
        return self.takes_s * (1 + self.hidden)

    def save(self, path: Path) -> None:
        np.savez_compressed(
            path, arm=self.arm, arm_folder=self.arm_folder, actuator=self.actuator, joints=np.array(self.joints, dtype=str),
            T_world_base=self.T_world_base, T_obj_tcp=self.T_obj_tcp, width_m=self.width_m,
            quality=self.quality, angles=self.angles, simulated_s=self.simulated_s,
            off_m=self.off_m, off_deg=self.off_deg,
        )  # fmt: skip

    def told(self) -> dict[str, Any]:
        """What a JSON file says of it."""
        return {
            "actuator": self.actuator, "from_s": float(self.simulated_s[0]),
            "to_s": float(self.simulated_s[-1]), "base": self.T_world_base.tolist(),
            "grasp": self.T_obj_tcp.tolist(), "width_m": self.width_m, "quality": self.quality,
            "within_m": self.within_m if np.isfinite(self.within_m) else None, "hidden": self.hidden,
            "most_off_m": float(self.off_m.max()), "most_off_deg": float(self.off_deg.max()),
            "remark": self.remark, "tried": self.tried,
        }  # fmt: skip


def plan_holds(
    task: Task, holds: Sequence[Hold], arm: Arm, areas_m: Sequence[np.ndarray], *,
    T_world_base: np.ndarray | None = None, seed: int = 0, progress: Progress = silent,
) -> Iterator[list[ArmPlan]]:  # fmt: skip
    """How an arm follows all holds from one place: a list of plans for each place from which it can, the
    most promising first.

    Args:
        areas_m: of each hold, (M, 3) where finger tips were seen, in the actuator's frame; may be empty.
        T_world_base: where the arm stands; sought if not given.

    Raises:
        NoPlan: there is no such place; the message says what was nearest.
    """
    seekers = [_Seeker(task, h, area, arm, seed) for h, area in zip(holds, areas_m, strict=True)]
    progress("where the arm may stand")
    places = [T_world_base]
    if T_world_base is None:
        places = _promising(task, seekers)
    if not places:
        raise NoPlan("kinematics", f"there is no room for {arm.name} beside {holds[0].actuator}")
    nearest, found = _Short("kinematics", -np.inf, ""), False
    for i, base in enumerate(places):
        progress(f"following the way from place {i + 1} of {len(places)}", i / len(places))
        plans = []
        for seeker in seekers:
            answer = seeker.from_place(base, len(places))
            if isinstance(answer, _Short):
                nearest = max(nearest, answer, key=lambda s: (s.stage == "planning", s.share))
                break
            plans.append(answer)
        else:
            found = True
            yield plans
    if not found:
        raise NoPlan(nearest.stage, f"{arm.name} cannot do it from any of {len(places)} places: "
                     f"{nearest.why}")  # fmt: skip


@dataclass(frozen=True)
class _Short:
    """What falls short from one place."""

    stage: str
    share: float
    """Of the way that is reached."""
    why: str


def _promising(task: Task, seekers: list[_Seeker]) -> list[np.ndarray]:
    """The places from which most of a few grasps reach a few stations, the best first."""
    holds = [s.hold for s in seekers]
    places = list(bases(task, holds))
    if not places:
        return []
    score = torch.stack([s.promise(places) for s in seekers]).prod(0)
    hiding = torch.tensor([hides(task, holds, b) for b in places])
    score = torch.where(hiding, HIDES * score, score)
    order = torch.argsort(score, descending=True, stable=True)
    return [places[i] for i in order[:BASES_KEPT]]


class _Seeker:
    """Seeks a grasp and a way for one hold."""

    def __init__(self, task: Task, hold: Hold, area_m: np.ndarray, arm: Arm, seed: int):
        """
        Raises:
            NoPlan: there is no grasp.
        """
        self.task, self.hold, self.arm, self._seed = task, hold, arm, seed
        self._obj, gripper = task.object(hold.actuator), arm.spec.gripper
        nowhere = np.eye(4)
        self._open_hand = CollisionWorld(arm, nowhere, task)
        room = HandRoom(task, hold, self._open_hand, gripper.opening_m)
        if self._obj.is_rigid:
            mesh = task.mesh(self._obj)
            self.grasps = sample_grasps(mesh, area_m, gripper, seed=seed, clear=room.clear)
            any_at_all = len(self.grasps) or len(sample_grasps(mesh, area_m, gripper, seed=seed))
        else:
            self.grasps, any_at_all = pinches(room.clear), True
        if any_at_all and not len(self.grasps):
            met = " or ".join(name for name, _ in room.met.most_common(2))
            raise NoPlan("planning", f"{hold.actuator}: wherever the hand of {arm.name} takes it, it "
                         f"is in {met} on the way; a hand less than {1000 * max(gripper.palm_m):.0f} "
                         "mm wide may have room")  # fmt: skip
        if not len(self.grasps):
            raise NoPlan(
                "grasp", f"{hold.actuator}: no two places near the seen finger tips face each other "
                f"within {1000 * gripper.opening_m:.0f} mm with room for the hand of {arm.name}"
            )  # fmt: skip
        self._remark = _remark(self.grasps.within_m, len(area_m)) if self._obj.is_rigid else ""
        self._solver = Kinematics(arm.chain)
        grasps = torch.as_tensor(self.grasps.frames)
        self._frames = torch.as_tensor(hold.frames) @ grasps[:, None]
        """(G, T, 4, 4) of the TCP, world."""
        carried = (self._obj, nowhere) if self._obj.is_rigid else None
        self._carrying = CollisionWorld(arm, nowhere, task, carried)

    def promise(self, places: list[np.ndarray]) -> Tensor:
        """(places,) how much of a few stations a few grasps reach from each."""
        frames = self._frames
        some = frames[:12][:, np.unique(np.linspace(0, frames.shape[1] - 1, 4).astype(int))]
        targets = torch.cat([_in_base(b, some).reshape(-1, 4, 4) for b in places])
        reached = torch.zeros(len(targets), dtype=torch.bool)
        for k in range(3):
            start = self._solver.random(len(targets), self._seed + k)
            reached |= _fine(self._solver.solve(start, targets, iterations=40))
        # A grasp counts by how much of the way it reaches.
        return reached.view(len(places), some.shape[0], -1).double().mean(-1).pow(4).sum(-1)

    def from_place(self, base: np.ndarray, places: int) -> ArmPlan | _Short:
        """The way of the best grasp that can follow."""
        name = self.hold.actuator
        self._open_hand.place(base)
        if met := self._open_hand.hits(self.arm.spec.home_rad, self.hold.others[0]):
            return _Short("planning", 0.0, f"{name}: {_words(met[0])} are in each other at home")
        targets = _in_base(base, self._frames)
        angles, fine, off_m, off_rad = _followed(self._solver, targets, self._seed)
        share = fine.any(2).double().mean(1)
        reaching = [g for g in range(len(share)) if share[g] == 1]
        if not reaching:
            g = int(share.argmax())
            return _Short("kinematics", float(share.max()), f"{name}: the grasp that comes nearest "
                          f"reaches {share[g]:.0%} of its way ({len(share)} grasps)")  # fmt: skip
        hit: dict[str, int] = {}
        tried = {"places": places, "grasps": len(share), "reaching": len(reaching)}
        plans: list[ArmPlan] = []
        for g in self._roomy(reaching, base, angles, fine, hit)[:GRASPS_TRIED]:
            chosen = self._clear_way(g, base, angles[g], fine[g].clone(), hit)
            if chosen is not None:
                at = torch.arange(len(chosen)), chosen
                way = angles[g][at].numpy(), off_m[g][at].numpy(), off_rad[g][at].numpy()
                plans.append(self._plan(g, base, *way, tried))
            if len(plans) == WAYS_COMPARED:
                break
        if plans:
            return min(plans, key=lambda p: p.cost)
        most = max(hit, key=hit.get) if hit else None
        words = (
            f"{most} are in each other on the way" if most else "no continuous way leads through"
        )
        return _Short("planning", 1.0, f"{name}: {len(reaching)} of {len(share)} grasps reach all of "
                      f"the way, but {words}")  # fmt: skip

    def _roomy(self, grasps: list[int], base, angles: Tensor, fine: Tensor, hit) -> list[int]:
        """Those of the grasps with answers that hit nothing at the beginning, in the middle and at the end,
        those with most of them first."""
        T = len(self.hold.steps)
        shares = {}
        for g in grasps:
            self._close_on(g, base)
            least = 1.0
            for t in (0, T // 2, T - 1):
                found = [
                    self._carrying.hits(q.numpy(), self.hold.others[t])
                    for q in angles[g, t][fine[g, t]]
                ]
                for pairs in found:
                    for pair in pairs:
                        hit[_words(pair)] = hit.get(_words(pair), 0) + 1
                least = min(least, sum(not f for f in found) / len(found))
                if not least:
                    break
            if least:
                shares[g] = least
        return sorted(shares, key=lambda g: -shares[g])

    def _close_on(self, g: int, base: np.ndarray) -> None:
        """Let the arm that carries the thing stand at a place, with grasp g."""
        grasp = self.grasps.frames[g] if self._obj.is_rigid else None
        self._carrying.place(base, grasp, float(self.grasps.width_m[g]) or PINCHED_M)

    def _clear_way(self, g: int, base, angles: Tensor, fine: Tensor, hit) -> Tensor | None:
        """Answers (T,) of grasp g on a way that hits nothing; None where there is none. What hits is taken
        out of `fine`, and counted in `hit` by its words."""
        hold = self.hold
        self._close_on(g, base)
        known: dict[tuple[int, int], bool] = {}

        def drop(t: int, c: int, pairs) -> None:
            for pair in pairs:
                hit[_words(pair)] = hit.get(_words(pair), 0) + 1
            fine[t, (angles[t] - angles[t, c]).abs().amax(-1) < SAME_RAD] = False

        for _ in range(REPAIRS):
            way = cheapest(angles, fine, longest_rad=LONGEST_RAD)
            if way is None:
                return None
            clear = True
            for t, c in enumerate(way.tolist()):
                if (t, c) not in known:
                    found = self._carrying.hits(angles[t, c].numpy(), hold.others[t])
                    known[t, c] = not found
                    if found:
                        drop(t, c, found)
                        clear = False
            if not clear:
                continue
            for t in (0, len(way) - 1):
                # At the ends the hand is about the thing, which stands where it is then.
                end = self._retreated(angles[t, way[t]])
                found = self._open_hand.hits(end.numpy(), hold.others[t])
                if found := [p for p in found if hold.actuator not in p]:
                    drop(t, int(way[t]), found[:1])
                    clear = False
            if clear:
                return way
        return None

    def _retreated(self, angles: Tensor) -> Tensor:
        """(J,) with the hand drawn back along its own axis; as far as it gets."""
        T = self._solver.tcp(angles[None]).clone()
        T[:, :3, 3] -= RETREAT_M * T[:, :3, 2]
        return self._solver.solve(angles[None], T, iterations=30).angles[0]

    def _plan(self, g: int, base, angles, off_m, off_rad, tried: dict[str, int]) -> ArmPlan:
        grasps, arm, times = self.grasps, self.arm, self.hold.times_s
        timed = followed(times, angles, arm.spec, self.task.spec.simulation.dt_s)
        return ArmPlan(
            arm=arm.name, arm_folder=arm.own_folder, actuator=self.hold.actuator,
            joints=tuple(arm.spec.joints), T_world_base=base, T_obj_tcp=grasps.frames[g], width_m=float(grasps.width_m[g]),
            quality=float(grasps.quality[g]), within_m=grasps.within_m, angles=angles,
            simulated_s=times, off_m=off_m, off_deg=np.rad2deg(off_rad),
            takes_s=np.inf if timed is None else float(timed.times_s[-1]),
            hidden=self._hidden(g, base, angles), remark=self._remark, tried=tried,
        )  # fmt: skip

    def _hidden(self, g: int, base, angles: np.ndarray) -> float:
        """How much of the while (T, J) the arm is between the camera and other things, as they lie at first."""
        others = [o for o in self.task.objects if o.name != self.hold.actuator]
        if not others:
            return 0.0
        self._close_on(g, base)
        middles = [(self.task.mesh(o).bounds.mean(0), o.T_world_object) for o in others]
        points = np.stack([T[:3, :3] @ m + T[:3, 3] for m, T in middles])
        eye = self.task.camera.T_world_cam[:3, 3]
        return float(np.mean([self._carrying.covered(q, eye, points) for q in angles]))


def _remark(within_m: float, tips: int) -> str:
    """Where a grasp is not where a hand was seen to take hold."""
    if not tips:
        return "no finger tips were seen on it; it is taken wherever the hand has room"
    if within_m <= NEAR_M:
        return ""
    where = f"within {1000 * within_m:.0f} mm" if np.isfinite(within_m) else "farther away"
    return (
        f"no grasp within {1000 * NEAR_M:.0f} mm of the seen finger tips has room on the whole of the "
        f"way; it is taken {where}"
    )


def _words(pair: tuple[str, str]) -> str:
    return f"{pair[0]} and {pair[1]}"


def _in_base(base: np.ndarray, frames: Tensor) -> Tensor:
    return torch.as_tensor(np.linalg.inv(base)) @ frames


def _fine(s: Solved) -> Tensor:
    return (s.off_m < OFF_M) & (s.off_rad < OFF_RAD)


def _followed(solver: Kinematics, targets: Tensor, seed: int) -> tuple[Tensor, ...]:
    """Answers (G, T, C, J), which are fine, and what they are off [m, rad], (G, T, C) each, for targets
    (G, T, 4, 4): from each restart at the first station on, and from each at the last back."""
    G, T = targets.shape[:2]
    ways = []
    for order in (range(T), range(T - 1, -1, -1)):
        q = solver.random(G * RESTARTS, seed + order[0] + 1)
        rows: dict[int, Solved] = {}
        for i, t in enumerate(order):
            goal = targets[:, t].repeat_interleave(RESTARTS, 0)
            rows[t] = solver.solve(q, goal, iterations=60 if i == 0 else 8)
            q = rows[t].angles
        ways.append([rows[t] for t in range(T)])

    def joined(pick) -> Tensor:
        cut = [torch.stack([pick(s).view(G, RESTARTS, -1) for s in way], 1) for way in ways]
        return torch.cat(cut, 2)

    off_m, off_rad = joined(lambda s: s.off_m)[..., 0], joined(lambda s: s.off_rad)[..., 0]
    return joined(lambda s: s.angles), (off_m < OFF_M) & (off_rad < OFF_RAD), off_m, off_rad
