"""An arm's exported trajectory, held against the arm's limits and played."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest

from lucibot.cli import main
from lucibot.core.errors import RunFailed, UserError
from lucibot.export.drive import Motion, nearest_limits, play, read_motion, sampled
from lucibot.export.trajectory import SCHEMA
from lucibot.robot.arm import load_arm

DT = 0.004


@pytest.fixture(scope="module")
def panda():
    return load_arm("franka")


def motion_of(panda, seconds=1.0, turn=0.5) -> Motion:
    """The first joint goes there, from rest to rest, by a quintic, whose derivatives are known."""
    times = DT * np.arange(round(seconds / DT) + 1)
    t = times / times[-1]
    angles = np.tile(panda.spec.home_rad, (len(times), 1))
    angles[:, 0] += turn * t**3 * (10 - 15 * t + 6 * t**2)
    return Motion(
        arm="franka", arm_folder="", joints=tuple(panda.spec.joints), times_s=times, angles=angles,
        opening_m=np.linspace(0.08, 0.02, len(times)),
    )  # fmt: skip


def written(motion: Motion, path, **changed):
    arm = {"name": motion.arm, "folder": motion.arm_folder, "joints": motion.joints, "planned": motion.angles.tolist(),
           "opening_m": motion.opening_m.tolist()} | changed  # fmt: skip
    path.write_text(json.dumps(
        {"schema": SCHEMA, "times_s": (motion.times_s + 3).tolist(), "arm": arm}
    ))  # fmt: skip
    return path


def test_how_near_its_limits_a_motion_comes(panda):
    reached = {r.what: r for r in nearest_limits(motion_of(panda, 0.8, 0.5), panda)}
    spec = panda.spec
    assert {r.joint for n, r in reached.items() if n != "range"} == {"joint1"}
    assert reached["speed"].share == pytest.approx(
        1.875 * 0.5 / 0.8 / spec.velocity_rad_s[0], rel=1e-3
    )
    assert reached["speed"].time_s == pytest.approx(0.4, abs=DT)
    most = 10 / np.sqrt(3) * 0.5 / 0.8**2
    assert reached["acceleration"].share == pytest.approx(
        most / spec.acceleration_rad_s2[0], rel=1e-3
    )
    assert reached["jerk"].share == pytest.approx(60 * 0.5 / 0.8**3 / spec.jerk_rad_s3[0], rel=0.05)
    # The sixth joint's home lies far to one side of its range.
    chain = panda.chain
    share = (
        np.abs(np.array(spec.home_rad) - (chain.lower + chain.upper) / 2)
        * 2
        / (chain.upper - chain.lower)
    )
    assert reached["range"].share == pytest.approx(share.max(), abs=0.1)
    slow = {r.what: r for r in nearest_limits(motion_of(panda, 0.8, 0.5), panda, slower=2)}
    for order, what in enumerate(("range", "speed", "acceleration", "jerk")):
        assert slow[what].share == pytest.approx(reached[what].share / 2**order)


def test_a_limit_that_is_passed_is_said_with_what_keeps_it(panda, tmp_path, capsys):
    file = written(motion_of(panda, 0.2, 0.5), tmp_path / "fast.json")
    assert main(["drive", str(file), "--check"]) == 1
    said = capsys.readouterr()
    assert "speed        joint1 at" in said.out and "speed and acceleration would pass" in said.err
    slower = said.err.split("--slower ")[1].split()[0]
    assert main(["drive", str(file), "--check", "--slower", slower]) == 0
    assert main(["drive", str(file), "--check", "--slower", f"{float(slower) - 0.02:.2f}"]) == 1
    file = written(motion_of(panda, 9.0, 3.5), tmp_path / "far.json")
    assert main(["drive", str(file), "--check"]) == 1
    assert "joint1 would leave its range" in capsys.readouterr().err


def test_limits_are_those_of_the_folder_that_the_arm_came_from(panda, slow_panda, tmp_path, capsys):
    motion = replace(motion_of(panda, 1.0, 0.5), arm_folder=str(slow_panda))
    file = written(motion, tmp_path / "own.json")
    assert main(["drive", str(file), "--check"]) == 1
    assert "speed would pass a limit" in capsys.readouterr().err
    slow_panda.rename(tmp_path / "moved")
    assert main(["drive", str(file), "--check"]) == 2
    said = capsys.readouterr().err
    assert "own/franka is gone" in said and "--arm NAME|FOLDER" in said
    assert main(["drive", str(file), "--check", "--arm", "franka"]) == 0


def test_commands_are_of_the_controllers_rate(panda):
    motion = motion_of(panda, 1.0, 0.5)
    commands = sampled(motion, 333, slower=1.5)
    assert len(commands) == 501 and commands[-1].time_s == pytest.approx(500 / 333)
    np.testing.assert_allclose(commands[-1].angles, motion.angles[-1], atol=1e-9)
    np.testing.assert_allclose(commands[-1].speeds, 0, atol=1e-3)
    t = np.array([c.time_s for c in commands]) / 1.5
    wanted = 0.5 * 30 * t**2 * (1 - t) ** 2 / 1.5
    np.testing.assert_allclose([c.speeds[0] for c in commands[:-1]], wanted[:-1], atol=2e-3)
    assert commands[0].opening_m == 0.08 and commands[-1].opening_m == pytest.approx(0.02)
    assert all(a.time_s < b.time_s for a, b in pairwise(commands))


class Kept:
    """A driver that keeps what it is told, and fails when it is to."""

    told: ClassVar[list] = []
    fails_at = None

    def __init__(self, arm, joints):
        type(self).told = [(arm, joints)]

    def start(self, angles, opening_m):
        self.told.append("start")

    def command(self, command):
        if len(self.told) - 2 == self.fails_at:
            raise RunFailed("the arm says no")
        self.told.append(command)

    def stop(self):
        self.told.append("stop")


def test_a_driver_of_ones_own_is_led_and_stopped(panda, tmp_path, capsys, monkeypatch):
    file = written(motion_of(panda, 0.4, 0.1), tmp_path / "m.json")
    name = f"{Kept.__module__}:Kept"
    assert main(["drive", str(file), "--rate", "200", "--driver", name]) == 0
    assert "81 commands at 200 Hz" in capsys.readouterr().out
    assert Kept.told[0] == ("franka", tuple(panda.spec.joints)) and Kept.told[1] == "start"
    assert len(Kept.told) == 84 and Kept.told[-1] == "stop"
    monkeypatch.setattr(Kept, "fails_at", 10)
    assert main(["drive", str(file), "--driver", name]) == 1
    assert "the arm says no" in capsys.readouterr().err
    assert len(Kept.told) == 13 and Kept.told[-1] == "stop"


def test_no_command_is_early_and_all_come(panda):
    begun, given, commands = [], [], sampled(motion_of(panda, 0.2, 0.1), 500)

    class Watch(Kept):
        def start(self, angles, opening_m):
            begun.append(time.perf_counter())

        def command(self, command):
            given.append(time.perf_counter())

    late = play(commands, Watch("franka", ()), 500)
    assert len(given) == len(late) == 101
    # However loaded the machine is: none before its time, and none earlier than was told.
    since = np.array(given) - begun[0] - np.arange(101) / 500
    assert (since >= late).all() and (late >= 0).all()


def test_what_cannot_be_driven_is_said(panda, tmp_path, capsys):
    motion = motion_of(panda)
    for name, text in (
        ("none", None),
        ("text", "no json"),
        ("list", "[]"),
        ("old", json.dumps({"schema": "lucibot trajectory 1"})),
        ("free", json.dumps({"schema": SCHEMA, "times_s": [0, 1]})),
    ):
        path = tmp_path / f"{name}.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(UserError):
            read_motion(path)
    for changed in ({"planned": motion.angles[:-1].tolist()}, {"planned": "x"},
                    {"opening_m": [float("nan")] * len(motion.times_s)}):  # fmt: skip
        with pytest.raises(UserError, match="damaged"):
            read_motion(written(motion, tmp_path / "broken.json", **changed))
    file = written(motion, tmp_path / "m.json")
    for words, said in (
        (["--arm", "ur5e"], "has shoulder_pan"),
        (["--arm", "nobody"], "unknown arm"),
        (["--rate", "0"], "--rate 0"),
        (["--slower", "0.5"], "--slower 0.5"),
        (["--driver", "nothing"], "unknown entry point"),
    ):
        assert main(["drive", str(file), "--check", *words]) == 2
        assert said in capsys.readouterr().err
