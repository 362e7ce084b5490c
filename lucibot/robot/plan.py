"""From what was learned to an arm's joints: which grasp, from where, along which way (paper, section 3.4).

A grasp is worth something only if the arm can follow the WHOLE trajectory with it. So all grasps and many
answers each are solved together, the cheapest continuous way through the answers is found by dynamic
programming, and what it hits is taken out until a way is left that hits nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lucibot.core.errors import RunFailed
from lucibot.core.geometry import pose_to_matrix, quat_to_rotvec
from lucibot.core.progress import Progress, silent
from lucibot.robot.arm import Arm
from lucibot.robot.collision import CollisionWorld
from lucibot.robot.grasps import Grasps, pinches, sample_grasps
from lucibot.robot.kinematics import Kinematics, Solved, cheapest
from lucibot.store.rollout import Rollout
from lucibot.task import Task

EVERY_S = 0.08
"""Of simulated time between two stations of the way."""
MOST_STATIONS = 48
OFF_M, OFF_RAD = 1e-3, np.deg2rad(0.5)
"""What the TCP may be off at a station."""
RESTARTS = 12
"""Answers that are sought for each grasp, each followed all the way."""
LONGEST_RAD = 0.6
"""What a joint may move from station to station."""
RETREAT_M = 0.10
"""The hand comes from so far, and leaves so far, along its own axis."""
BASE_DISTANCES, BASE_WAYS = (0.45, 0.6), 12
BASE_ROOM_M = 0.12
"""What the base keeps from things, about its middle."""
BEFORE_THE_CAMERA = 0.3
"""What a place counts that would hide the scene from the camera."""
BASE_KEPT = 4
"""Places of the base that are looked at in full, the most promising first."""
REPAIRS = 60
"""Times that a way is sought again without what hits."""


class NoPlan(RunFailed):
    """The arm cannot do it.

    Args:
        stage: what is to blame: "grasp", "kinematics" or "collision".
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


@dataclass(frozen=True, kw_only=True)
class ArmPlan:
    """How an arm follows one hold, at its T stations and two more before and after it."""

    arm: str
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
    times_s: np.ndarray
    """(T + 2,) from the hand's coming: slowed down where the joints' limits ask for it."""
    angles: np.ndarray
    """(T + 2, J) [rad]"""
    simulated_s: np.ndarray
    """(T,) when the stations are reached in the simulation."""
    off_m: np.ndarray
    """(T,) what the TCP is off at the stations."""
    off_deg: np.ndarray
    """(T,)"""
    slower: float
    """How many times slower than in the simulation; 1 where the joints keep up."""
    tried: dict[str, int] = field(default_factory=dict)
    """How many places of the base, grasps, and grasps that reach all of the way there were."""

    def save(self, path: Path) -> None:
        np.savez_compressed(
            path, arm=self.arm, actuator=self.actuator, joints=np.array(self.joints, dtype=str),
            T_world_base=self.T_world_base, T_obj_tcp=self.T_obj_tcp, width_m=self.width_m,
            quality=self.quality, times_s=self.times_s, angles=self.angles, simulated_s=self.simulated_s, off_m=self.off_m,
            off_deg=self.off_deg, slower=self.slower,
        )  # fmt: skip


def holds_of(task: Task, rollout: Rollout) -> list[Hold]:
    """What an arm has to follow, in the order in which it begins."""
    found = []
    for a, name in enumerate(rollout.actuators):
        held = np.concatenate([[False], rollout.held[:, a], [False]]).astype(int)
        starts, ends = np.flatnonzero(np.diff(held) == 1), np.flatnonzero(np.diff(held) == -1)
        for start, end in zip(starts, ends, strict=True):
            found.append(_hold(task, rollout, a, name, start, end))
    return sorted(found, key=lambda h: h.times_s[0])


def _hold(task: Task, r: Rollout, a: int, name: str, start: int, end: int) -> Hold:
    dt = r.times_s[1] - r.times_s[0]
    count = int(np.clip(np.ceil((end - start) * dt / EVERY_S), 2, MOST_STATIONS))
    steps = np.unique(np.round(np.linspace(start, end - 1, count)).astype(int))
    turn = torch.as_tensor(r.target_quaternions[steps, a]).double()
    pose = torch.cat([torch.as_tensor(r.targets_m[steps, a]).double(), quat_to_rotvec(turn)], -1)
    others = [
        {n: np.concatenate([r.positions_m[s, i], r.quaternions[s, i]])
         for i, n in enumerate(r.bodies) if n != name}
        for s in steps
    ]  # fmt: skip
    return Hold(actuator=name, steps=steps, times_s=r.times_s[steps],
                frames=pose_to_matrix(pose).numpy(), others=others)  # fmt: skip


def plan_hold(
    task: Task, hold: Hold, area_m: np.ndarray, arm: Arm, *,
    T_world_base: np.ndarray | None = None, seed: int = 0, progress: Progress = silent,
) -> ArmPlan:  # fmt: skip
    """How an arm follows one hold.

    Args:
        area_m: (M, 3) where finger tips were seen, in the actuator's frame; may be empty.
        T_world_base: where the arm stands; sought if not given.

    Raises:
        NoPlan: it cannot; the message says what was nearest.
    """
    obj = task.object(hold.actuator)
    gripper = arm.spec.gripper
    if obj.is_rigid:
        grasps = sample_grasps(task.mesh(obj), area_m, gripper, seed=seed)
    else:
        grasps = pinches(np.zeros(3), None)
    if not len(grasps):
        raise NoPlan(
            "grasp", f"{hold.actuator}: no two places near the seen finger tips face each other within "
            f"{1000 * gripper.opening_m:.0f} mm with room for the hand of {arm.name}"
        )  # fmt: skip
    solver = Kinematics(arm.chain)
    frames = torch.as_tensor(hold.frames) @ torch.as_tensor(grasps.frames)[:, None]
    progress("where the arm may stand")
    bases = [T_world_base]
    if T_world_base is None:
        free = [b for b in _bases(hold) if _is_free(task, hold, b)]
        bases = _promising(solver, free, frames, task, hold, seed)
    if not bases:
        raise NoPlan("kinematics", f"{hold.actuator}: there is no room for {arm.name} beside it")
    best = ("kinematics", -np.inf, "")
    for i, base in enumerate(bases):
        progress(f"following the way from place {i + 1} of {len(bases)}", i / len(bases))
        answer = _from_base(task, hold, obj, grasps, frames, arm, solver, base, seed)
        if isinstance(answer, _Way):
            return _plan(hold, grasps, arm, base, answer, len(bases))
        best = max(best, answer, key=lambda x: (x[0] == "collision", x[1]))
    raise NoPlan(best[0], f"{hold.actuator}: {arm.name} cannot do it from any of {len(bases)} places: "
                 f"{best[2]}")  # fmt: skip


@dataclass
class _Way:
    grasp: int
    angles: np.ndarray
    """(T + 2, J)"""
    off_m: np.ndarray
    off_rad: np.ndarray
    reaching: int


def _bases(hold: Hold) -> Iterator[np.ndarray]:
    """Places about the middle of the way, each facing it, on the height of the table."""
    middle = hold.frames[:, :2, 3].mean(0)
    for distance in BASE_DISTANCES:
        for angle in 2 * np.pi * np.arange(BASE_WAYS) / BASE_WAYS:
            T = np.eye(4)
            way = np.array([np.cos(angle), np.sin(angle)])
            T[:2, 3] = middle - distance * way
            T[:2, :2] = [[way[0], -way[1]], [way[1], way[0]]]
            yield T


def _is_free(task: Task, hold: Hold, base: np.ndarray) -> bool:
    """Whether nothing that rises above the base's floor stands where the base is to stand."""
    ring = 2 * np.pi * np.arange(12) / 12
    points = base[:2, 3] + BASE_ROOM_M * np.stack([np.cos(ring), np.sin(ring)], 1)
    for thing in (*task.spec.background, *task.objects):
        T = thing.T_world_object
        v = task.mesh(thing).vertices @ T[:3, :3].T + T[:3, 3]
        low, high = v.min(0), v.max(0)
        if high[2] < base[2, 3] + 0.01 or low[2] > base[2, 3] + 0.3:
            continue
        # Boxes along the axes: things on a table are small, and walls are straight.
        if ((points > low[:2]) & (points < high[:2])).all(1).any():
            return False
        if (low[:2] < base[:2, 3]).all() and (high[:2] > base[:2, 3]).all():
            return False
    return True


def _hides(task: Task, hold: Hold, base: np.ndarray) -> bool:
    """Whether an arm there would stand between the camera and what is done."""
    camera = task.camera
    eye, middle = camera.T_world_cam[:3, 3], hold.frames[:, :3, 3].mean(0)
    sight = middle - eye
    along = (base[:3, 3] - eye)[:2] @ sight[:2] / (sight[:2] @ sight[:2])
    aside = np.linalg.norm((base[:2, 3] - eye[:2]) - along * sight[:2])
    return bool(along < 0.85 and aside < 0.35)


def _in_base(base: np.ndarray, frames: Tensor) -> Tensor:
    return torch.as_tensor(np.linalg.inv(base)) @ frames


def _fine(s: Solved) -> Tensor:
    return (s.off_m < OFF_M) & (s.off_rad < OFF_RAD)


def _promising(
    solver: Kinematics, bases: list[np.ndarray], frames: Tensor, task: Task, hold: Hold, seed: int
) -> list[np.ndarray]:
    """The places from which most of a few grasps reach a few stations, the best first."""
    if not bases:
        return []
    some = frames[:12][:, np.unique(np.linspace(0, frames.shape[1] - 1, 4).astype(int))]
    targets = torch.cat([_in_base(b, some).reshape(-1, 4, 4) for b in bases])
    reached = torch.zeros(len(targets), dtype=torch.bool)
    for k in range(3):
        start = solver.random(len(targets), seed + k)
        reached |= _fine(solver.solve(start, targets, iterations=40))
    # A grasp counts by how much of the way it reaches.
    score = reached.view(len(bases), some.shape[0], -1).double().mean(-1).pow(4).sum(-1)
    hiding = torch.tensor([_hides(task, hold, b) for b in bases])
    score = torch.where(hiding, BEFORE_THE_CAMERA * score, score)
    order = torch.argsort(score, descending=True, stable=True)
    return [bases[i] for i in order[:BASE_KEPT]]


def _from_base(
    task, hold, obj, grasps: Grasps, frames: Tensor, arm: Arm, solver: Kinematics, base, seed
) -> _Way | tuple[str, float, str]:
    """The way of the best grasp that can follow; else what is to blame, how near it was, in words."""
    G, T = frames.shape[:2]
    targets = _in_base(base, frames)
    angles, fine, off = _followed(solver, targets, seed)
    share = fine.any(2).double().mean(1)
    reaching = [g for g in range(G) if share[g] == 1]
    if not reaching:
        g = int(share.argmax())
        return "kinematics", float(share.max()), (
            f"the grasp that comes nearest reaches {share[g]:.0%} of its way ({G} grasps)"
        )  # fmt: skip
    hit: dict[str, int] = {}
    apart = 0
    for g in reaching:
        way = _clear_way(
            task, hold, obj, grasps, g, arm, solver, base, angles[g], fine[g].clone(), hit
        )
        if way is None:
            apart += 1
            continue
        rows = torch.arange(T)
        chosen, before, after = way
        picked = angles[g][rows, chosen]
        return _Way(
            grasp=g, angles=torch.cat([before[None], picked, after[None]]).numpy(),
            off_m=off[0][g][rows, chosen].numpy(), off_rad=off[1][g][rows, chosen].numpy(),
            reaching=len(reaching),
        )  # fmt: skip
    most = max(hit, key=hit.get) if hit else None
    words = f"{most} are in each other on the way" if most else "no continuous way leads through"
    return "collision", 1.0, f"{len(reaching)} of {G} grasps reach all of the way, but {words}"


def _followed(solver: Kinematics, targets: Tensor, seed: int):
    """Answers (G, T, C, J), which are fine (G, T, C), and what they are off, for targets (G, T, 4, 4): from
    each restart at the first station on, and from each at the last back."""
    G, T = targets.shape[:2]
    R = RESTARTS
    ways = []
    for order in (range(T), range(T - 1, -1, -1)):
        order = list(order)
        q = solver.random(G * R, seed + order[0] + 1)
        rows: dict[int, Solved] = {}
        for i, t in enumerate(order):
            goal = targets[:, t].repeat_interleave(R, 0)
            rows[t] = solver.solve(q, goal, iterations=60 if i == 0 else 8)
            q = rows[t].angles
        ways.append([rows[t] for t in range(T)])

    def joined(pick) -> Tensor:
        return torch.cat([torch.stack([pick(s).view(G, R, -1) for s in way], 1) for way in ways], 2)

    off_m, off_rad = joined(lambda s: s.off_m)[..., 0], joined(lambda s: s.off_rad)[..., 0]
    return joined(lambda s: s.angles), (off_m < OFF_M) & (off_rad < OFF_RAD), (off_m, off_rad)


def _clear_way(task, hold, obj, grasps, g, arm, solver, base, angles, fine, hit):
    """Answers (T,) of grasp g on a way that hits nothing, and the angles before and after it; None where
    there is none. What hits is taken out of `fine`, and counted in `hit` by its words."""
    carrying = CollisionWorld(
        arm, base, task, (obj, grasps.frames[g]) if obj.is_rigid else None,
        opening_m=float(grasps.width_m[g]) or 0.004,
    )  # fmt: skip
    open_hand = CollisionWorld(arm, base, task)
    known: dict[tuple[int, int], bool] = {}
    for _ in range(REPAIRS):
        way = cheapest(angles, fine, longest_rad=LONGEST_RAD)
        if way is None:
            return None
        clear = True
        for t, c in enumerate(way.tolist()):
            if (t, c) not in known:
                found = carrying.hits(angles[t, c].numpy(), hold.others[t])
                known[t, c] = not found
                for pair in found:
                    words = f"{pair[0]} and {pair[1]}"
                    hit[words] = hit.get(words, 0) + 1
            if not known[t, c]:
                # Those that are as good as the same hit as well.
                same = (angles[t] - angles[t, c]).abs().amax(-1) < 0.02
                fine[t, same] = False
                clear = False
        if not clear:
            continue
        ends = [_retreated(solver, angles[t, way[t]], arm) for t in (0, len(way) - 1)]
        for t, end in zip((0, len(way) - 1), ends, strict=True):
            # At the ends the hand is about the thing, which stands where it is then.
            found = [p for p in open_hand.hits(end.numpy(), hold.others[t]) if obj.name not in p]
            if found:
                words = f"{found[0][0]} and {found[0][1]}"
                hit[words] = hit.get(words, 0) + 1
                same = (angles[t] - angles[t, way[t]]).abs().amax(-1) < 0.02
                fine[t, same] = False
                clear = False
        if clear:
            return way, *ends
    return None


def _retreated(solver: Kinematics, angles: Tensor, arm: Arm) -> Tensor:
    """(J,) with the hand drawn back along its own axis; as far as it gets."""
    T = solver.tcp(angles[None]).clone()
    T[:, :3, 3] -= RETREAT_M * T[:, :3, 2]
    return solver.solve(angles[None], T, iterations=30).angles[0]


def _plan(hold: Hold, grasps: Grasps, arm: Arm, base, way: _Way, places: int) -> ArmPlan:
    times = hold.times_s - hold.times_s[0]
    ends = _seconds(way.angles[[0, 1]], arm), _seconds(way.angles[[-2, -1]], arm)
    slower = slowdown(times, way.angles[1:-1], arm)
    times = ends[0] + slower * times
    times = np.concatenate([[0.0], times, [times[-1] + ends[1]]])
    return ArmPlan(
        arm=arm.name, actuator=hold.actuator, joints=tuple(arm.spec.joints), T_world_base=base,
        T_obj_tcp=grasps.frames[way.grasp], width_m=float(grasps.width_m[way.grasp]),
        quality=float(grasps.quality[way.grasp]), times_s=times, angles=way.angles, simulated_s=hold.times_s, off_m=way.off_m,
        off_deg=np.rad2deg(way.off_rad), slower=slower,
        tried={"places": places, "grasps": len(grasps), "reaching": way.reaching},
    )  # fmt: skip


def slowdown(times_s: np.ndarray, angles: np.ndarray, arm: Arm) -> float:
    """By what times (T,) must be stretched for angles (T, J), joined by a smooth curve, to keep the
    joints' limits of speed and acceleration; at least 1."""
    from scipy.interpolate import CubicSpline

    curve = CubicSpline(times_s, angles, bc_type="clamped")
    t = np.linspace(times_s[0], times_s[-1], 8 * len(times_s))
    speed = np.abs(curve(t, 1)) / arm.spec.velocity_rad_s
    rate = np.abs(curve(t, 2)) / arm.spec.acceleration_rad_s2
    return float(max(1.0, speed.max(), np.sqrt(rate.max())))


def _seconds(pair: np.ndarray, arm: Arm) -> float:
    """From rest to rest, half as fast as could be."""
    way = np.abs(pair[1] - pair[0])
    fastest = np.maximum(1.875 * way / arm.spec.velocity_rad_s,
                         np.sqrt(5.77 * way / arm.spec.acceleration_rad_s2))  # fmt: skip
    return float(max(2 * fastest.max(), 0.2))
