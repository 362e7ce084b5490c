"""`lucibot drive`: an arm's exported trajectory, held against the arm's limits and played at the rate of a
controller, to nobody or to a driver of one's own."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.interpolate import CubicSpline

from lucibot.core.errors import RunFailed, UserError
from lucibot.core.plugins import find_plugin
from lucibot.core.stopping import goes_on
from lucibot.export.trajectory import SCHEMA
from lucibot.robot.arm import Arm, kept_arm, load_arm
from lucibot.settings import Parser

RATE_HZ = 1000
"""Commands a second, if nothing else is asked for."""
DRIVERS = "lucibot.drivers"
"""Entry points of drivers."""
SPARE = 1e-3
"""What a limit may be passed by, as a share of it: rounding."""
SPIN_S = 2e-4
"""So much of the time to a command is not slept, for a sleep ends late."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What an arm's joints are to do, at N moments."""

    arm: str
    arm_folder: str
    """Where that arm's folder was; empty of one that comes with the package."""
    joints: tuple[str, ...]
    times_s: np.ndarray
    """(N,) rising, from 0."""
    angles: np.ndarray
    """(N, J) [rad] as planned; in between, on a cubic spline."""
    opening_m: np.ndarray
    """(N,) between the fingers."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a controller is told once in its period."""

    time_s: float
    """Since the first command."""
    angles: np.ndarray
    """(J,) [rad]"""
    speeds: np.ndarray
    """(J,) [rad/s]"""
    opening_m: float
    """Between the fingers."""


class Driver(Protocol):
    """Who leads a real arm; made with the arm's name and its joints' names."""

    def start(self, angles: np.ndarray, opening_m: float) -> None:
        """Bring the arm to the first place (J,) [rad], as slowly as it likes."""
        ...

    def command(self, command: Command) -> None:
        """Called at the rate; what it raises ends the motion, after `stop`."""
        ...

    def stop(self) -> None:
        """Called once, however it ended."""
        ...


class Nobody:
    """The driver of a dry run."""

    def __init__(self, arm: str, joints: tuple[str, ...]):
        pass

    def start(self, angles: np.ndarray, opening_m: float) -> None: ...

    def command(self, command: Command) -> None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Reached:
    """Where a motion comes nearest to a limit."""

    what: str
    """"range", "speed", "acceleration" or "jerk"."""
    joint: str
    time_s: float
    share: float
    """Of the limit, 1 at it; of a range, from its middle."""

    def __str__(self) -> str:
        return f"{self.what:<12} {self.joint} at {self.share:.0%} after {self.time_s:.2f} s"


def command(argv: list[str]) -> int:
    """`lucibot drive`.

    Raises:
        UserError: no trajectory of an arm, no such arm or driver, a rate that is none.
        RunFailed: a limit would be passed.
    """
    p = Parser(
        "lucibot drive", "FILE.json [--arm NAME|FOLDER] [--rate HZ] [--slower TIMES] [--driver NAME]",
        "Hold an arm's exported trajectory (`lucibot export --robot --format trajectory`) against the limits of its "
        "joints, and play it at a controller's rate: to nobody, or to a driver of your own.",
    )  # fmt: skip
    p.add_argument("file", type=Path, metavar="FILE.json", help="what `lucibot export` has written")
    p.add_argument("--arm", metavar="NAME|FOLDER", help="whose limits (default: the trajectory's own arm)")  # fmt: skip
    p.add_argument("--rate", type=int, metavar="HZ", help=f"commands a second (default: {RATE_HZ})")
    p.add_argument("--slower", type=float, metavar="TIMES", help="takes so many times as long")
    p.add_argument("--driver", metavar="NAME", help=f"an entry point of {DRIVERS}, or module:Class")
    p.add_argument("--check", action="store_true", help="look at the limits and stop")
    a, _ = p.parse(argv)
    rate, slower = a.get("rate", RATE_HZ), a.get("slower", 1.0)
    if not 1 <= rate <= 20_000:
        raise UserError(f"--rate {rate}: expected 1 to 20000")
    if not 1 <= slower <= 100:
        raise UserError(f"--slower {slower:g}: expected 1 to 100")
    motion = read_motion(a["file"])
    arm = load_arm(a["arm"]) if "arm" in a else _own_arm(motion)
    driver = find_plugin(DRIVERS, a["driver"]) if "driver" in a else Nobody
    commands = sampled(motion, rate, slower)
    print(f"{arm.name}: {commands[-1].time_s:.2f} s, {len(commands)} commands at {rate} Hz")
    reached = nearest_limits(motion, arm, slower)
    for r in reached:
        print(f"  {r}")
    ensure_kept(reached, slower)
    if a.get("check"):
        return 0
    with goes_on("the arm stops where it is"):
        late = play(commands, driver(arm.name, motion.joints), rate)
    print(f"played: at most {1000 * late.max():.2f} ms late, {int((late > 1 / rate).sum())} of "
          f"{len(commands)} commands by more than a period")  # fmt: skip
    return 0


def _own_arm(motion: Motion) -> Arm:
    try:
        return kept_arm(motion.arm, motion.arm_folder)
    except UserError as e:
        raise UserError(f"{e}; --arm NAME|FOLDER says whose limits are to be kept") from None


def read_motion(path: Path) -> Motion:
    """
    Raises:
        UserError: there is no such file, it is none that `lucibot export` has written, or no arm is in it.
    """
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise UserError(f"{path} cannot be read as JSON ({e})") from None
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        raise UserError(
            f"{path} is no trajectory that this version of `lucibot export` has written"
        )
    if "arm" not in told:
        raise UserError(f"{path}: no arm is in it; `lucibot export RUN --robot --format trajectory` "
                        "writes what an arm did")  # fmt: skip
    try:
        arm, times = told["arm"], np.array(told["times_s"], float)
        found = Motion(
            arm=arm["name"], arm_folder=str(arm.get("folder", "")), joints=tuple(arm["joints"]),
            times_s=times - times[0],
            angles=np.array(arm["planned"], float), opening_m=np.array(arm["opening_m"], float),
        )  # fmt: skip
        whole = (
            found.angles.shape == (len(times), len(found.joints))
            and found.opening_m.shape == times.shape
            and len(times) > 1
            and (np.diff(times) > 0).all()
            and all(np.isfinite(x).all() for x in (times, found.angles, found.opening_m))
        )
    except (KeyError, TypeError, ValueError, IndexError):
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged: export the run again")
    return found


def sampled(motion: Motion, rate_hz: float, slower: float = 1.0) -> list[Command]:
    """The commands of a motion that takes `slower` times as long."""
    way = CubicSpline(motion.times_s, motion.angles)
    count = int(np.ceil(slower * motion.times_s[-1] * rate_hz - 1e-6)) + 1
    times = np.arange(count) / rate_hz
    at = np.minimum(times / slower, motion.times_s[-1])
    angles, speeds = way(at), way(at, 1) / slower
    opening = np.interp(at, motion.times_s, motion.opening_m)
    return [
        Command(time_s=float(t), angles=q, speeds=v, opening_m=float(o))
        for t, q, v, o in zip(times, angles, speeds, opening, strict=True)
    ]


def nearest_limits(motion: Motion, arm: Arm, slower: float = 1.0) -> list[Reached]:
    """Of each kind of limit, where the motion comes nearest to it.

    Raises:
        UserError: the arm has other joints.
    """
    spec, chain = arm.spec, arm.chain
    if tuple(spec.joints) != motion.joints:
        raise UserError(f"the trajectory is of joints {', '.join(motion.joints)}; {arm.name} has "
                        f"{', '.join(spec.joints)}")  # fmt: skip
    way = CubicSpline(motion.times_s, motion.angles)
    # Jerk is even between two moments, and the rest has its most at a moment or, hardly more, in between.
    moments = np.unique(
        np.concatenate([motion.times_s, (motion.times_s[1:] + motion.times_s[:-1]) / 2])
    )
    middle, half = (chain.lower + chain.upper) / 2, (chain.upper - chain.lower) / 2
    shares = [("range", np.abs(way(moments) - middle) / half)]
    for order, (name, limit) in enumerate(
        [
            ("speed", spec.velocity_rad_s),
            ("acceleration", spec.acceleration_rad_s2),
            ("jerk", spec.jerk_rad_s3),
        ], 1,
    ):  # fmt: skip
        if limit is not None:
            shares.append((name, np.abs(way(moments, order)) / np.array(limit) / slower**order))
    out = []
    for name, share in shares:
        n, j = np.unravel_index(int(share.argmax()), share.shape)
        out.append(Reached(what=name, joint=motion.joints[j], time_s=slower * float(moments[n]),
                           share=float(share[n, j])))  # fmt: skip
    return out


def ensure_kept(reached: list[Reached], slower: float = 1.0) -> None:
    """
    Raises:
        RunFailed: a limit is passed; what would keep it is said.
    """
    passed = [r for r in reached if r.share > 1 + SPARE]
    if not passed:
        return
    if passed[0].what == "range":
        raise RunFailed(f"{passed[0].joint} would leave its range after {passed[0].time_s:.2f} s")
    order = {"speed": 1, "acceleration": 2, "jerk": 3}
    least = slower * max(r.share ** (1 / order[r.what]) for r in passed)
    raise RunFailed(
        f"{' and '.join(r.what for r in passed)} would pass a limit; --slower "
        f"{np.ceil(100 * least) / 100:g} keeps all"
    )


def play(commands: list[Command], driver: Driver, rate_hz: float) -> np.ndarray:
    """Give a driver every command at its time; returns how late each was given (n,) [s]."""
    late = np.zeros(len(commands))
    try:
        driver.start(commands[0].angles, commands[0].opening_m)
        begun = time.perf_counter()
        for n, c in enumerate(commands):
            due = begun + n / rate_hz
            if (rest := due - time.perf_counter() - SPIN_S) > 0:
                time.sleep(rest)
            while (now := time.perf_counter()) < due:
                pass
            late[n] = now - due
            driver.command(c)
    finally:
        driver.stop()
    return late
