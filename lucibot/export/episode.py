"""One finished run as an episode of evenly spaced frames: what was seen, where things were, what was done.

What acts are the actuators themselves, so a state is where they are and an action where they are to be next;
or an arm, whose joints these are then.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lucibot.core.arrays import read_npz
from lucibot.core.errors import UserError
from lucibot.core.video import Video, read_video
from lucibot.store.collection import EPISODE, read_record
from lucibot.store.finished import made_from, replay_of, stage_folder
from lucibot.store.result import Result
from lucibot.store.rollout import Rollout
from lucibot.store.run import RunDirectory

FPS = 20
"""Frames a second, if nothing else is asked for."""
FREE = "free_actuators"
"""What acts where no arm does."""
POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")


@dataclass(frozen=True, kw_only=True)
class Episode:
    """N frames at `fps`; poses are position [m] and quaternion (w, x, y, z) of the mesh frame in the world,
    quaternions of one sign from frame to frame."""

    run: Path
    task: str
    instruction: str
    seed: int
    """The run's; of a collection's episode, its number."""
    success: bool
    fps: int
    pictures: np.ndarray
    """(N, H, W, 3) uint8, the replay as the task's camera sees it."""
    robot: str
    """What acts: an arm's name, or "free_actuators"."""
    state: np.ndarray
    """Of an arm, (N, J + 1) float32: its joints [rad] and what is between its fingers [m]. Without one,
    (N, 8 A) float32: of each actuator its pose and whether it is held (1 or 0). Of a deformable one, the
    place of the particle by which it is grasped, and no turn."""
    state_names: tuple[str, ...]
    action: np.ndarray
    """Of an arm, (N, J + 1) float32: where its joints are to be in the next frame, and what is between its
    fingers then. Without one, (N, 8 A) float32: of each actuator where it is to be in the next frame, and whether it is to be held
    then; where it is not held, where it is. Of a deformable one, the place of that particle and the turn of
    what is held about it since it was taken."""
    environment: np.ndarray
    """(N, E) float32: poses of the other rigid objects (with an arm, of all), then values of joints [rad or m]; not smoothed."""
    environment_names: tuple[str, ...]
    particles: dict[str, np.ndarray]
    """By object, (N, M, 3) float32 [m, world], of the moment nearest to the frame at which they were kept."""
    rollout: Rollout
    """Every step."""
    waypoints: np.ndarray
    """(K, A, 6) what was learned: pose vectors at the keyframes."""
    held: np.ndarray
    """(K, A) bool: on the way to which keyframes a hand holds it."""

    @property
    def times_s(self) -> np.ndarray:
        """(N,)"""
        return np.arange(len(self.state)) / self.fps


def read_episode(run: Path, *, fps: int = FPS, robot: bool = False) -> Episode:
    """The episode of a finished run, or of a collection's folder.

    Args:
        fps: frames a second.
        robot: what its arm did, instead of the replay without one.

    Raises:
        UserError: not a run directory, not finished, of another version, or no arm has done it.
    """
    if (Path(run) / EPISODE).is_file():
        return _collected(Path(run), fps, robot)
    directory = RunDirectory.open(Path(run))
    result, execute = directory.result(), stage_folder(directory, "execute")
    folder = execute
    if robot:
        ensure_arm(run, result)
        folder = stage_folder(directory, "robot")
    rollout = replay_of(directory, folder)
    trajectory = made_from(directory, execute, "optimize") / "trajectory.npz"
    return _episode(
        rollout, folder / "film.mp4", trajectory, fps, run=Path(run), task=result.task,
        instruction=" ".join(result.instruction.split()), seed=result.seed,
        success=result.robot["success"] if robot else result.success,
    )  # fmt: skip


def _collected(folder: Path, fps: int, robot: bool) -> Episode:
    if robot:
        raise UserError(f"{folder}: no arm is in an episode of a collection")
    told = read_record(folder / EPISODE)
    try:
        who = {"task": told["task"], "instruction": " ".join(told["instruction"].split()),
               "seed": told["episode"], "success": told["success"]}  # fmt: skip
    except (AttributeError, KeyError) as e:
        raise UserError(f"{folder / EPISODE} is damaged or of another version ({e})") from None
    try:
        rollout = Rollout.load(folder / "rollout.npz")
        return _episode(
            rollout, folder / "film.mp4", folder / "trajectory.npz", fps, run=folder, **who
        )
    except FileNotFoundError as e:
        raise UserError(f"{e.filename} is missing") from None


def _episode(rollout: Rollout, film: Path, trajectory: Path, fps: int, **who) -> Episode:
    robot = bool(rollout.arm)
    with read_npz(trajectory) as z:
        waypoints, held = z["waypoints"], z["held"]
    film = read_video(film)
    count = int(rollout.times_s[-1] * fps + 1e-6) + 1
    times = np.arange(count) / fps
    steps = _nearest(rollout.times_s, times)
    state, action, names = (_arm if robot else _actuators)(rollout, steps)
    environment, environment_names = _environment(rollout, steps)
    kept = _nearest(rollout.times_s[rollout.particle_steps], times)
    return Episode(
        **who, fps=fps, robot=rollout.arm or FREE, pictures=_pictures(film, times), state=state, action=action,
        state_names=names, environment=environment, environment_names=environment_names,
        particles={n: p[kept] for n, p in rollout.particles.items()}, rollout=rollout,
        waypoints=waypoints, held=held,
    )  # fmt: skip


def ensure_arm(run: Path, result: Result) -> None:
    """
    Raises:
        UserError: no arm has done it.
    """
    if result.robot is None:
        raise UserError(f"{run}: no arm is in it; `lucibot resume {run} --robot franka`")
    if result.robot["tracking"] is None:
        raise UserError(f"{run}: its arm did nothing ({result.robot['why']})")


def _nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Indices of the times (sorted) that lie nearest to the wanted ones."""
    right = np.clip(np.searchsorted(times, wanted), 1, max(len(times) - 1, 1))
    if len(times) == 1:
        return np.zeros(len(wanted), int)
    return right - (wanted - times[right - 1] < times[right] - wanted)


def _pictures(film: Video, times: np.ndarray) -> np.ndarray:
    return film.frames[np.clip(np.round(times * film.fps).astype(int), 0, len(film) - 1)]


def measured(rollout: Rollout) -> np.ndarray:
    """(S + 1, A, 7) where each actuator was at each step, as in `Episode.state`. What is made of particles
    is known where they were kept, and in between taken to be on a straight line."""
    found = np.zeros((len(rollout.times_s), len(rollout.actuators), 7), np.float32)
    for a, name in enumerate(rollout.actuators):
        if name in rollout.bodies:
            r = rollout.bodies.index(name)
            found[:, a, :3] = rollout.positions_m[:, r]
            found[:, a, 3:] = _of_one_sign(rollout.quaternions[:, r])
            continue
        grasped = _filled(rollout.grasped[name])
        at = rollout.particle_steps
        places = rollout.particles[name]
        for particle in np.unique(grasped):
            on = grasped == particle
            for c in range(3):
                path = np.interp(np.arange(len(grasped)), at, places[:, particle, c])
                found[on, a, c] = path[on]
        found[:, a, 3] = 1
    return found


def planned(rollout: Rollout) -> np.ndarray:
    """(S + 1, A, 7) where each actuator was to be after each step; where it was not held, where it was."""
    here = measured(rollout)
    there = np.concatenate([rollout.targets_m, rollout.target_quaternions], -1)
    there = np.where(rollout.held[..., None], there, here)
    for a in range(there.shape[1]):
        turn = there[:, a, 3:]
        there[:, a, 3:] = np.where(((turn * here[:, a, 3:]).sum(-1) < 0)[:, None], -turn, turn)
    return there


def _arm(rollout: Rollout, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    opening = rollout.arm_opening_m[:, None]
    after = np.append(steps[1:], steps[-1])
    state = np.concatenate([rollout.arm_angles, opening], 1)[steps]
    action = np.concatenate([rollout.arm_targets, opening], 1)[after]
    return state, action, (*rollout.arm_joints, "gripper.opening")


def _actuators(
    rollout: Rollout, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    held = rollout.held[..., None].astype(np.float32)
    after = np.append(steps[1:], steps[-1])
    state = np.concatenate([measured(rollout), held], -1)[steps]
    action = np.concatenate([planned(rollout), held], -1)[after]
    # At the end nothing more is asked for.
    action[-1] = state[-1]
    names = tuple(f"{a}.{n}" for a in rollout.actuators for n in (*POSE, "held"))
    flat = (len(steps), len(names))
    return state.reshape(flat), action.astype(np.float32).reshape(flat), names


def _environment(rollout: Rollout, steps: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    # Without an arm the actuators are what acts.
    others = [n for n in rollout.bodies if rollout.arm or n not in rollout.actuators]
    parts, names = [np.zeros((len(steps), 0), np.float32)], []
    for name in others:
        r = rollout.bodies.index(name)
        turns = _of_one_sign(rollout.quaternions[:, r])
        parts += [rollout.positions_m[steps, r], turns[steps]]
        names += [f"{name}.{n}" for n in POSE]
    parts.append(rollout.joint_values[steps])
    names += [f"{name}.joint" for name in rollout.joints]
    return np.concatenate(parts, 1).astype(np.float32), tuple(names)


def _of_one_sign(quaternions: np.ndarray) -> np.ndarray:
    """(T, 4), each of the two that mean the same turn that lies nearer to the one before; the first with w
    not negative."""
    flips = np.ones(len(quaternions))
    flips[0] = -1 if quaternions[0, 0] < 0 else 1
    flips[1:] = np.where((quaternions[1:] * quaternions[:-1]).sum(1) < 0, -1, 1)
    return (quaternions * np.cumprod(flips)[:, None]).astype(np.float32)


def _filled(grasped: np.ndarray) -> np.ndarray:
    """The particle of each step: while nothing is held that which is taken next, then that which was last."""
    known = np.flatnonzero(grasped >= 0)
    if not len(known):
        return np.zeros(len(grasped), int)
    after = known[np.clip(np.searchsorted(known, np.arange(len(grasped))), 0, len(known) - 1)]
    return grasped[after]
