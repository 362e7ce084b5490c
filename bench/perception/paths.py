"""What the second artist draws: where everything is in every frame, taken from a finished run.

The way of things is what was simulated (`rollout.npz`), not what the storyboard imagined, slowed down to
the pace of a hand. Around it a hand or a gripper comes in over one of the picture's borders, and goes
again where the run lets go. Objects breathe while they are moved.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import interp1d
from scipy.spatial.transform import Rotation, Slerp

from lucibot.core.geometry import minimum_jerk
from lucibot.objective.supervision import Supervision
from lucibot.store.finished import made_from, stage_folder
from lucibot.store.rollout import Rollout
from lucibot.store.run import RunDirectory
from lucibot.task import Task

FPS = 20
STILL_S, REACH_S, SETTLED_S, END_S = 0.45, 0.8, 0.2, 0.6
"""How long nothing happens, a hand is on its way in or out, it takes hold, and nothing happens again."""
PACE_S = 2.2, 3.4
"""The shortest and the longest that a hand moves something; the simulation is faster."""
BREATH, SOFT_BREATH, BREATH_S = 0.05, 0.03, 1.7
"""How much a rigid thing and a soft one grow and shrink while they are moved, and how long a breath is."""
STAYS_M = 0.008
"""What a hand leaves higher above its first place than this without its falling is held to the end."""
FAULTS = ("goal_not_reached", "new_object", "camera_drift", "wrong_object_moves")


@dataclass(frozen=True, kw_only=True)
class HandPath:
    """One hand, in T frames."""

    holds: str
    T_world_hand: np.ndarray
    """(T, 4, 4): the origin between the finger tips, z the way it reaches, x across the fingers."""
    opening_m: np.ndarray
    """(T,) between the finger tips."""
    present: np.ndarray
    """(T,) bool."""
    grips: np.ndarray
    """(T,) bool."""
    shoulder_m: np.ndarray
    """(3,) [m, world], outside of the picture."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """T frames of N objects in task order."""

    fps: float
    poses: dict[str, np.ndarray]
    """Rigid object -> (T, 4, 4)."""
    clouds: dict[str, np.ndarray]
    """Object of particles -> (T, P, 3) [m, world]."""
    scale: dict[str, np.ndarray]
    """Object -> (T,) size it is drawn in."""
    pivot: dict[str, np.ndarray]
    """Object -> (T, 3) [m, world] the point about which."""
    hands: tuple[HandPath, ...]
    goal: int | None
    """The frame from which the goal is to be seen; None if it never is."""
    fault: str = ""
    extra: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter((self.poses | self.clouds).values())))


@dataclass(frozen=True, kw_only=True)
class Path3D:
    """What is taken over from a run."""

    rollout: Rollout
    grips: tuple[tuple[str, np.ndarray], ...]
    """(actuator, (3,) [m] where it is held: in its own frame; of particles, in the world at first)."""


def read_path(task: Task, folder: Path) -> Path3D:
    """The path of a finished run directory of the task."""
    run = RunDirectory.open(folder)
    execute = stage_folder(run, "execute")
    supervision = Supervision.load(made_from(run, execute, "perceive") / "supervision.npz")
    rollout = Rollout.load(execute / "rollout.npz")
    held = dict(zip(rollout.actuators, rollout.held.any(0), strict=True))
    a, grips = supervision.affordance, []
    for k, name in enumerate(supervision.actuators):
        if held[name]:
            known = a.points[k][np.isfinite(a.points[k]).all(1)]
            if len(known):
                grip = np.median(known, axis=0).astype(float)
            else:
                grip = np.asarray(task.mesh(task.object(name)).vertices.mean(0))
            if not task.object(name).is_rigid:
                T = task.object(name).T_world_object
                grip = T[:3, :3] @ grip + T[:3, 3]
            grips.append((name, grip))
    return Path3D(rollout=rollout, grips=tuple(grips))


def make_plan(task: Task, path: Path3D, seed: int, fault: str = "") -> Plan:
    """One clip's plan; the seed says from which border the hand comes, and how fast."""
    rng = np.random.default_rng([seed, 2])
    r = path.rollout
    led = np.flatnonzero(r.held.any(1))
    first, last = int(led[0]), int(led[-1])
    simulated = r.times_s[last] - r.times_s[first]
    stretch = np.clip(1.6 * simulated, *PACE_S) * rng.uniform(0.9, 1.1) / simulated
    stays = _stays(task, r, last)
    takes = STILL_S + REACH_S + SETTLED_S
    moves = simulated * stretch
    # What was let go falls and settles at most at its own pace.
    settles = 0.0 if stays else min(1.2, (r.times_s[-1] - r.times_s[last]) * min(stretch, 2.0))
    after = END_S if stays else SETTLED_S + REACH_S + END_S
    frames = round((takes + moves + settles + after) * FPS)
    t = np.arange(frames) / FPS
    knots = [0.0, takes, takes + moves, takes + moves + settles + 1e-6, t[-1] + 1]
    at = [r.times_s[0], r.times_s[first], r.times_s[last], r.times_s[-1], r.times_s[-1]]
    when = np.interp(t, knots, at)
    let_go = takes + moves
    if fault == "goal_not_reached":
        # It is taken, moved a little, brought back, and left.
        share = 0.22 * minimum_jerk(torch.as_tensor(np.clip((t - takes) / (0.5 * moves), 0, 1)))
        back = minimum_jerk(
            torch.as_tensor(np.clip((t - takes - 0.5 * moves) / (0.5 * moves), 0, 1))
        )
        when = r.times_s[first] + (share * (1 - back)).numpy() * simulated
    poses, clouds = _sampled(r, when)
    T0 = {n: p[0] for n, p in poses.items()}
    hands = tuple(
        _hand(task, name, grip, poses, clouds, T0, t, takes, let_go, stays, rng)
        for name, grip in path.grips
    )  # fmt: skip
    gone = max(int(np.flatnonzero(h.present)[-1]) + 1 for h in hands)
    goal = None if fault == "goal_not_reached" else min(gone, frames - 1)
    plan = Plan(
        fps=FPS, poses=poses, clouds=clouds, hands=hands, goal=goal, fault=fault,
        scale={o.name: np.ones(frames) for o in task.objects},
        pivot={o.name: np.zeros((frames, 3)) for o in task.objects},
    )  # fmt: skip
    plan = _breathing(task, plan, t, takes, let_go, stays, rng)
    if fault == "new_object":
        plan = _new_object(task, plan, rng)
    elif fault == "camera_drift":
        plan = _camera_drift(task, plan, rng)
    elif fault == "wrong_object_moves":
        plan = _wrong_object_moves(task, plan, rng)
    return plan


def _stays(task: Task, r: Rollout, last: int) -> bool:
    """Whether the hand keeps hold to the end: what it leaves in the air stays there by itself."""
    for k, name in enumerate(r.actuators):
        if not r.held[:, k].any() or name not in r.bodies or task.object(name).joint is not None:
            continue
        p = r.positions_m[:, r.bodies.index(name)]
        if np.linalg.norm(p[-1] - p[last]) < 1e-3 and p[last, 2] - p[0, 2] > STAYS_M:
            return True
    return False


def _sampled(r: Rollout, when: np.ndarray):
    """Poses (T, 4, 4) and clouds (T, P, 3) at simulated times (T,)."""
    poses, clouds = {}, {}
    when = np.clip(when, r.times_s[0], r.times_s[-1])
    for b, name in enumerate(r.bodies):
        T = np.tile(np.eye(4), (len(when), 1, 1))
        turns = Rotation.from_quat(r.quaternions[:, b, [1, 2, 3, 0]])
        T[:, :3, :3] = Slerp(r.times_s, turns)(when).as_matrix()
        T[:, :3, 3] = interp1d(r.times_s, r.positions_m[:, b], axis=0)(when)
        poses[name] = T
    for name, cloud in r.particles.items():
        seen = r.times_s[r.particle_steps]
        clouds[name] = interp1d(seen, cloud, axis=0)(np.clip(when, seen[0], seen[-1]))
    return poses, clouds


BORDERS = ("left", "right", "near", "far")


def _shoulder(task: Task, name: str, place: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(3,) [m, world] a shoulder's place beyond one of the picture's borders: one from which the arm
    does not lie over what the others see.

    Args:
        place: (T, 3) [m, world] where the hand holds.
    """
    camera = task.camera
    size = np.array([camera.width, camera.height])
    others = [o.position_m for o in task.objects if o.name != name] or [place[0]]
    seen = camera.project(np.array(others, float))[0] / size
    held = camera.project(place)[0] / size
    found = []
    for border in BORDERS:
        free = rng.uniform(0.3, 0.7)
        uv = {
            "left": (-0.5, free),
            "right": (1.5, free),
            "near": (free, 1.45),
            "far": (free, -0.5),
        }[border]
        depth = float(camera.project(place[0])[1]) * (1.25 if border == "far" else 1.0)
        local = depth * np.array([
            (uv[0] * camera.width - camera.cx) / camera.fx, (uv[1] * camera.height - camera.cy) / camera.fy, 1.0
        ])  # fmt: skip
        p = camera.T_world_cam[:3, :3] @ local + camera.T_world_cam[:3, 3]
        p[2] = place[0, 2] + (0.35 if border == "far" else 0.10)
        away = [_from_line(x, camera.project(p)[0] / size, h) for x in seen for h in held[::5]]
        found.append((min(away), p))
    best = max(d for d, _ in found)
    clear = [p for d, p in found if d >= 0.6 * min(best, 0.15)]
    return clear[rng.integers(len(clear))]


def _from_line(x: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Distance of a point from the line between two, all (2,)."""
    along = np.clip(np.dot(x - a, b - a) / max(np.dot(b - a, b - a), 1e-9), 0, 0.93)
    return float(np.linalg.norm(x - a - along * (b - a)))


def _hand(task, name, grip, poses, clouds, T0, t, takes, let_go, stays, rng) -> HandPath:
    frames = len(t)
    if name in poses:
        place = poses[name][:, :3, :3] @ grip + poses[name][:, :3, 3]
        points = (
            np.asarray(task.mesh(task.object(name)).vertices) @ T0[name][:3, :3].T + T0[name][:3, 3]
        )
    else:
        near = np.linalg.norm(clouds[name][0] - grip, axis=1) < 0.02
        place, points = clouds[name][:, near].mean(1), clouds[name][0]
    shoulder = _shoulder(task, name, place, rng)
    way = place[0] - shoulder
    z = way / np.linalg.norm(way) + [0, 0, -0.45]
    z /= np.linalg.norm(z)
    # Across the fingers lies where the thing is thinnest.
    close = points[np.linalg.norm(points - place[0], axis=1) < 0.03]
    a = np.cross(z, [0, 0, 1.0])
    a /= np.linalg.norm(a)
    b = np.cross(z, a)
    turns = np.linspace(0, np.pi, 12, endpoint=False)
    sides = np.cos(turns)[:, None] * a + np.sin(turns)[:, None] * b
    width = np.ptp(close @ sides.T, axis=0) if len(close) > 3 else np.full(12, 0.02)
    x, thin = sides[width.argmin()], float(np.clip(width.min(), 0.006, 0.075))
    R0 = np.stack([x, np.cross(z, x), z], 1)
    # Half of the object's turn is the wrist's; a hinge or a bottle is held with the whole of it.
    turn = (
        poses[name][:, :3, :3] @ T0[name][:3, :3].T
        if name in poses
        else np.tile(np.eye(3), (frames, 1, 1))
    )
    T = np.tile(np.eye(4), (frames, 1, 1))
    T[:, :3, :3] = turn @ R0
    T[:, :3, 3] = place
    grasp, release = takes - SETTLED_S, let_go + SETTLED_S
    coming, going = t < grasp, (t > release) & (not stays)
    hold, drop = int(np.searchsorted(t, takes)), min(int(np.searchsorted(t, let_go)), frames - 1)
    T[coming] = T[hold]
    T[going] = T[drop]
    near = np.ones(frames)
    near[coming] = np.clip((t[coming] - STILL_S) / (grasp - STILL_S), 0, 1)
    near[going] = np.clip(1 - (t[going] - release) / REACH_S, 0, 1)
    near = minimum_jerk(torch.as_tensor(near)).numpy()
    # In on a bow from the shoulder's side, down onto the thing at last.
    far = 1 - near
    T[:, :3, 3] += far[:, None] * (shoulder - place[0]) * 1.15
    T[:, 2, 3] += 0.05 * np.sin(np.pi * np.clip(far * 2, 0, 1))
    open_m = thin + 0.035 * np.clip(far / 0.12, 0, 1)
    grips = (t >= grasp) & ((t <= let_go) | stays)
    present = (t >= STILL_S) & ((t <= release + REACH_S) | stays)
    return HandPath(
        holds=name, T_world_hand=T, opening_m=open_m, present=present, grips=grips,
        shoulder_m=shoulder,
    )  # fmt: skip


def _breathing(task: Task, plan: Plan, t, takes, let_go, stays, rng) -> Plan:
    """Things that move grow and shrink about where they are held or stand."""
    scale, pivot = dict(plan.scale), dict(plan.pivot)
    held = {h.holds: h for h in plan.hands}
    for o in task.objects:
        if o.joint is not None or (
            not o.is_rigid and o.material.kind in ("liquid", "sand", "elastic")
        ):
            continue
        if o.is_rigid:
            T = plan.poses[o.name]
            moved = np.abs(T - T[0]).max((1, 2)) > 2e-3
            low = np.asarray(task.mesh(o).vertices) @ T[0][:3, :3].T
            base = T[:, :3, 3] + [0.5 * (low[:, 0].min() + low[:, 0].max()),
                                  0.5 * (low[:, 1].min() + low[:, 1].max()), low[:, 2].min()]  # fmt: skip
        else:
            cloud = plan.clouds[o.name]
            moved = np.linalg.norm(cloud - cloud[0], axis=2).max(1) > 2e-3
            base = np.concatenate([cloud[..., :2].mean(1), cloud[..., 2:].min(1)], 1)
        if not moved.any():
            continue
        start = t[np.argmax(moved)]
        end = let_go if o.name in held else t[-1]
        size = (BREATH if o.is_rigid else SOFT_BREATH) * rng.choice([-1.0, 1.0])
        breath = np.sin(2 * np.pi * (t - start) / (BREATH_S * rng.uniform(0.8, 1.3)))
        # What was put down stands still, at its own size.
        fades = np.clip((end - t) / 0.4, 0, 1) if o.name in held and not stays else 1.0
        scale[o.name] = 1 + size * breath * (t > start) * fades
        at = base.copy()
        if o.name in held and o.is_rigid:
            # From the hand to the foot as it is put down.
            share = np.clip((t - (let_go - 0.3)) / 0.3, 0, 1)[:, None]
            grip = held[o.name].T_world_hand[:, :3, 3].copy()
            grip[t < takes] = grip[np.searchsorted(t, takes)]
            at = grip * (1 - share) + base * share if not held[o.name].present[-1] else grip
        pivot[o.name] = at
    return replace(plan, scale=scale, pivot=pivot)


def _new_object(task: Task, plan: Plan, rng) -> Plan:
    """Something lies there from one frame to the next that was not there."""
    tops = [o.position_m for o in task.objects]
    middle = np.mean(tops, axis=0)
    camera, best = task.camera, None
    for _ in range(400):
        p = middle + np.append(rng.uniform(-0.25, 0.25, 2), 0)
        uv, _ = camera.project(p)
        inside = (uv > 0.12 * np.array([camera.width, camera.height])).all() and (
            uv < 0.88 * np.array([camera.width, camera.height])
        ).all()
        clear = min(np.linalg.norm(p[:2] - np.asarray(q)[:2]) for q in tops)
        if inside and (best is None or clear > best[0]):
            best = clear, p
            if clear > 0.12:
                break
    color = np.array(
        [(0.7, 0.4, 0.02), (0.02, 0.3, 0.5), (0.35, 0.02, 0.3), (0.1, 0.35, 0.05)][rng.integers(4)]
    )
    return replace(plan, extra={
        "new": (best[1], float(rng.uniform(0.018, 0.028)), color), "appears": int(len(plan) * rng.uniform(0.3, 0.6)),
    })  # fmt: skip


def _camera_drift(task: Task, plan: Plan, rng) -> Plan:
    """(T, 2, 3) affine maps from the scene's picture to the frame's: a slow zoom with a turn."""
    c, t = task.camera, np.linspace(0, 1, len(plan)) ** 1.2
    zoom, turn = (
        1 + rng.uniform(0.05, 0.09) * t,
        np.deg2rad(rng.choice([-1, 1]) * rng.uniform(0.5, 1.5)) * t,
    )
    A = np.zeros((len(plan), 2, 3))
    A[:, 0, 0] = A[:, 1, 1] = zoom * np.cos(turn)
    A[:, 0, 1], A[:, 1, 0] = -zoom * np.sin(turn), zoom * np.sin(turn)
    middle = np.array([c.width, c.height]) / 2
    A[:, :, 2] = middle - A[:, :, :2] @ middle
    return replace(plan, extra={"camera": A})


def _wrong_object_moves(task: Task, plan: Plan, rng) -> Plan:
    """A thing slides by itself before the hand has come, or at the end."""
    held = {h.holds for h in plan.hands}
    free = [o.name for o in task.objects if o.name not in held and o.joint is None]
    name = str(rng.choice(free or [o.name for o in task.objects]))
    angle = rng.uniform(0, 2 * np.pi)
    way = rng.uniform(0.035, 0.05) * np.array([np.cos(angle), np.sin(angle), 0])
    # Nothing may touch it: the clip is begun with as many more frames as the slide takes.
    extra = round(0.9 * plan.fps)
    s = minimum_jerk(torch.linspace(0, 1, extra, dtype=torch.float64)).numpy()

    def longer(x: np.ndarray) -> np.ndarray:
        return np.concatenate([np.repeat(x[:1], extra, 0), x])

    poses = {n: longer(x) for n, x in plan.poses.items()}
    clouds = {n: longer(x) for n, x in plan.clouds.items()}
    slide = np.concatenate([s, np.ones(len(plan))])[:, None] * way
    if name in poses:
        if task.object(name).joint is not None:
            # What hangs on a joint swings.
            joint = task.object(name).articulation
            value = 0.35 * (joint.upper if abs(joint.upper) > abs(joint.lower) else joint.lower)
            back = np.concatenate([s, np.linspace(1, 0, len(plan)) ** 4])
            swung = joint.poses(value * back)
            poses[name] = np.where(
                (np.arange(len(back)) < extra + 6)[:, None, None], swung, poses[name]
            )
        else:
            poses[name][:, :3, 3] += slide
    else:
        clouds[name] = clouds[name] + slide[:, None]
    hands = tuple(
        replace(h, T_world_hand=longer(h.T_world_hand), opening_m=longer(h.opening_m),
                present=longer(h.present), grips=longer(h.grips))
        for h in plan.hands
    )  # fmt: skip
    return replace(
        plan, poses=poses, clouds=clouds, hands=hands,
        goal=None if plan.goal is None else plan.goal + extra,
        scale={n: longer(x) for n, x in plan.scale.items()},
        pivot={n: longer(x) for n, x in plan.pivot.items()}, extra={"slides": name},
    )  # fmt: skip
