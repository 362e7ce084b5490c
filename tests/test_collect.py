"""Many demonstrations from one solution: what is varied, how a trajectory follows, and what is kept."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import trimesh

from lucibot.cli import main
from lucibot.collect.command import POPULATION, _Batch
from lucibot.collect.correct import common, corrected, displaced_supervision, displacements
from lucibot.collect.vary import groups, together, vary, vary_materials
from lucibot.config import PRESETS
from lucibot.core.camera import Camera
from lucibot.core.errors import RunFailed
from lucibot.core.euler import euler_xyz_deg_to_matrix, matrix_to_euler_xyz_deg
from lucibot.core.geometry import matrix_np, pose_np
from lucibot.core.video import read_video
from lucibot.objective.config import VideoObjective
from lucibot.objective.supervision import Affordance, Supervision
from lucibot.optimize.config import SearchConfig
from lucibot.optimize.search import AllDiverged
from lucibot.store.configs import to_dict
from lucibot.store.result import Result
from lucibot.store.rollout import Rollout
from lucibot.store.run import RunDirectory, StageFolder, write_json
from lucibot.task import Task, TaskSpec, load_task, task_names

MOVED = {
    "cut_dough": [("knife",), ("dough",)],
    "hammer_peg": [("hammer",), ("block", "peg")],
    "lift_mochi": [("fork",), ("brown_mochi",), ("green_mochi",), ("pink_mochi",)],
    "open_door": [("door", "shell", "lining", "rim", "top", "other_door", "other_handle")],
    "open_drawer": [("drawer", "shell", "frame", "fronts", "bars", "tray")],
    "pour_liquid": [("bottle", "liquid")],
    "rubber_band": [("band",)],
    "scoop_sand": [("spoon",)],
    "spread_butter": [("knife",), ("butter",)],
    "stack_cups": [("red_cup",), ("yellow_cup",)],
}
"""What is displaced as one in the shipped tasks: sand stays in its tray, a liquid goes with its bottle."""
APART = {"open_door", "open_drawer", "rubber_band"}
"""Tasks in which each episode needs a simulation of its own."""


def supervision(task, held, pairs=(), contact=(), waypoints=None) -> Supervision:
    """Of a video in which nothing is seen but who holds and touches what; held (K, A), contact (K, pairs)."""
    held = np.array(held, bool)
    K, A, H, W = *held.shape, 24, 32
    poses = np.zeros((K, A, 6), np.float32) if waypoints is None else np.float32(waypoints)
    no = np.zeros((K, A, H, W), bool)
    return Supervision(
        camera=task.camera.resized(W, H), actuators=tuple(o.name for o in task.actuators),
        targets=tuple(o.name for o in task.targets), contact_pairs=tuple(pairs),
        keyframes=np.arange(K), waypoints=poses, waypoint_confidence=np.ones((K, A), np.float32),
        held=held, actuator_masks=no, target_masks=no[:, 0], valid=~no[:, 0],
        actuator_clouds=np.zeros((A, 2, 3), np.float32),
        target_cloud=np.float32([[0.02, 0.01, 0.03], [np.nan] * 3]),
        contact=np.array(contact, bool).reshape(K, len(pairs)), around_pairs=(),
        around=np.zeros(0, bool), affordance=Affordance.none(K, A),
        part_masks=np.zeros((1, H, W), bool), part_clouds=np.zeros((1, 2, 3), np.float32),
        part_valid=np.ones((H, W), bool),
    )  # fmt: skip


def displaced(x: float, y: float, deg: float) -> np.ndarray:
    return euler_xyz_deg_to_matrix((x, y, 0), (0, 0, deg))


# What varies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", task_names())
def test_what_is_displaced_as_one_in_shipped_tasks(name):
    task = load_task(name)
    found = groups(task)
    assert found == MOVED[name]
    assert together(task, found) == (name not in APART)


def test_an_episode_rests_on_its_number_and_keeps_to_the_ranges():
    task = load_task("cut_dough")
    moved, ranges = groups(task), task.spec.collect
    drawn = [vary(task, moved, np.random.default_rng([7, 1, i])) for i in (0, 1, 2, 1)]
    assert drawn[1].told == drawn[3].told and drawn[1].told != drawn[0].told
    for v in drawn:
        for o in task.objects:
            T = v.task.object(o.name).T_world_object
            np.testing.assert_allclose(T, v.displaced[o.name] @ o.T_world_object, atol=1e-9)
            assert np.abs(T[:2, 3] - o.position_m[:2]).max() <= ranges.position_m + 1e-9
            assert T[2, 3] == pytest.approx(o.position_m[2])
            turn = np.rad2deg(np.arctan2(v.displaced[o.name][1, 0], v.displaced[o.name][0, 0]))
            assert 0 < abs(turn) <= ranges.rotation_deg
        c = np.subtract(v.task.spec.camera.position_m, task.spec.camera.position_m)
        assert 0 < np.abs(c).max() <= ranges.camera_m
        assert (
            abs(v.task.spec.light.intensity / task.spec.light.intensity - 1) <= ranges.light_share
        )
        assert v.task.object("dough").look == task.object("dough").look
        assert v.task.spec.simulation == task.spec.simulation
    shifts = np.array([v.displaced[n][:2, 3] for v in drawn[:3] for n in ("knife", "dough")])
    assert len(np.unique(shifts, axis=0)) == 6, "each object on its own"


def test_materials_differ_within_their_share():
    task = load_task("hammer_peg")
    other, told = vary_materials(task, np.random.default_rng(0))
    share = task.spec.collect.material_share
    assert {"hammer.mass_kg", "peg.joint.friction", "table.friction"} <= set(told)
    assert "wall.friction" not in told, "what is not solid has none"
    assert all(0 < abs(f - 1) <= share for f in told.values()) and len({*told.values()}) == len(
        told
    )
    was, now = task.object("peg"), other.object("peg")
    assert now.joint.friction == pytest.approx(was.joint.friction * told["peg.joint.friction"])
    assert now.material.mass_kg == pytest.approx(was.material.mass_kg * told["peg.mass_kg"])
    assert now.joint.upper == was.joint.upper


def test_what_is_varied_keeps_to_the_schemas_bounds():
    task = load_task("stack_cups")
    spec = task.spec.model_dump(mode="json", exclude_unset=True)
    spec["objects"][0]["material"]["friction"] = 4.5
    spec["background"][0]["friction"] = 0.011
    spec["light"] = {"intensity": 1000.0}
    spec["camera"] |= {
        "position_m": [100.0, 0, 0.05],
        "look_at_m": [0, 0, 0.05],
        "vertical_fov_deg": 1.0,
    }
    task = Task(task.folder, TaskSpec.model_validate(spec), task.instruction)
    name, told = task.objects[0].name, []
    for seed in range(20):
        other, factors = vary_materials(task, np.random.default_rng(seed))
        assert other.objects[0].material.friction == 4.5 * factors[f"{name}.friction"] <= 5
        light = vary(other, groups(other), np.random.default_rng(seed)).task.spec.light
        told += [factors[f"{name}.friction"] - 1, light.intensity / 1000 - 1]
    assert 0.1 < np.abs(told).max() <= 0.2 and np.abs(told).min() > 0


def test_a_chest_stays_out_of_the_wall_and_its_drawer_in_the_chest():
    task = load_task("open_drawer")
    wall = task.solid("wall")
    for i in range(12):
        v = vary(task, groups(task), np.random.default_rng([0, 1, i]))
        shell, drawer = v.task.solid("shell"), v.task.object("drawer")
        between = (
            np.linalg.inv(task.solid("shell").T_world_object) @ task.object("drawer").T_world_object
        )
        np.testing.assert_allclose(
            np.linalg.inv(shell.T_world_object) @ drawer.T_world_object, between, atol=1e-9
        )
        corners = v.task.mesh(shell).vertices
        T = np.linalg.inv(wall.T_world_object) @ shell.T_world_object
        assert (corners @ T[:3, :3].T + T[:3, 3])[:, 1].max() < -0.02 + 0.002


def test_no_room_is_said(tmp_path):
    shutil.copytree(load_task("cut_dough").folder, tmp_path / "cut")
    text = (tmp_path / "cut" / "task.toml").read_text()
    text = text.replace("[[goal]]", "[collect]\nposition_m = 1.0\n\n[[goal]]", 1)
    (tmp_path / "cut" / "task.toml").write_text(text)
    task = load_task(tmp_path / "cut")
    with pytest.raises(Exception, match=r"narrow the ranges of \[collect\]"):
        vary(task, groups(task), np.random.default_rng(0))


def test_euler_angles_come_back():
    T = euler_xyz_deg_to_matrix((0.1, -0.2, 0.3), (20, -50, 170))
    np.testing.assert_allclose(euler_xyz_deg_to_matrix(*matrix_to_euler_xyz_deg(T)), T, atol=1e-12)


# How the trajectory follows ------------------------------------------------------------------------------


def test_a_tool_keeps_its_place_by_what_it_touches_before_while_and_after():
    task = load_task("cut_dough")
    moved = groups(task)
    way = np.random.default_rng(0).normal(0, 0.3, (4, 1, 6))
    sup = supervision(task, [[1], [1], [1], [0]], [("knife", "dough")], [[0], [1], [0], [0]], way)
    D = {"knife": displaced(0.01, 0, 5), "dough": displaced(-0.02, 0.01, -8)}
    C = displacements(task, sup, D, moved)
    for k in range(3):
        np.testing.assert_array_equal(C[k, 0], D["dough"])
    new = matrix_np(corrected(task, way, C, D))
    begin = task.object("dough").T_world_object
    for k in range(3):
        np.testing.assert_allclose(
            np.linalg.inv(D["dough"] @ begin) @ new[k, 0],
            np.linalg.inv(begin) @ matrix_np(way)[k, 0], atol=1e-6,
        )  # fmt: skip
    np.testing.assert_array_equal(common(C, sup.held), D["dough"])


def test_what_touches_nothing_acts_on_what_stands_still():
    task = load_task("pour_liquid")
    moved = groups(task)
    D = dict.fromkeys(moved[0], displaced(0.02, 0, 5))
    # The bottle touches what is in it all the time.
    sup = supervision(task, [[1], [1]], [("bottle", "liquid")], [[1], [1]])
    np.testing.assert_array_equal(displacements(task, sup, D, moved)[:, 0], [np.eye(4)] * 2)


def test_a_drawer_goes_along_its_own_rail():
    task = load_task("open_drawer")
    moved = groups(task)
    D = {"drawer": displaced(0.01, 0.02, 6)}
    sup = supervision(task, [[1], [1]])
    C = displacements(task, sup, D, moved)
    np.testing.assert_array_equal(C[:, 0], [D["drawer"]] * 2)
    joint = task.object("drawer").articulation
    way = joint.poses(np.array([0.1, 0.2]))
    spec = task.spec.model_dump(mode="json", exclude_unset=True)
    at, turn = matrix_to_euler_xyz_deg(D["drawer"] @ task.object("drawer").T_world_object)
    spec["objects"][0] |= {"position_m": at, "rotation_deg": turn}
    there = type(task.spec).model_validate(spec).objects[0].articulation
    new = corrected(task, pose_np(way)[:, None], C, D)
    np.testing.assert_allclose(there.values(new[:, 0]), [0.1, 0.2], atol=1e-6)


def test_a_cup_that_was_put_down_elsewhere_takes_what_comes_into_it_along():
    task = load_task("stack_cups")
    moved = groups(task)
    D = {"red_cup": displaced(0.02, 0, 0), "yellow_cup": displaced(0, 0.02, 9)}
    # Red is put somewhere, touching nothing, then yellow into it.
    held, contact = [[1, 0], [0, 1], [0, 1]], [[0], [0], [1]]
    sup = supervision(task, held, [("yellow_cup", "red_cup")], contact)
    C = displacements(task, sup, D, moved)
    np.testing.assert_array_equal(C[0, 0], np.eye(4))
    np.testing.assert_array_equal(C[1:, 1], [np.eye(4)] * 2)
    # Where red stays where it is, yellow follows it.
    sup = supervision(task, [[0, 0], [0, 1], [0, 1]], [("yellow_cup", "red_cup")], contact)
    np.testing.assert_array_equal(displacements(task, sup, D, moved)[1:, 1], [D["red_cup"]] * 2)


def test_waypoints_that_differ_in_their_displacement_have_none_in_common():
    C = np.stack([displaced(0.01, 0, 0), np.eye(4)])[:, None]
    assert common(C, np.array([[True], [True]])) is None
    np.testing.assert_array_equal(common(C, np.array([[True], [False]])), C[0, 0])
    assert common(C, np.zeros((2, 1), bool)) is None


def test_a_deformable_is_turned_by_as_much_less_as_it_began_turned():
    task = load_task("rubber_band")
    D = {"band": displaced(0.01, 0, 10)}
    way = np.zeros((1, 1, 6))
    stays = corrected(task, way, np.eye(4)[None, None], D)
    np.testing.assert_allclose(np.rad2deg(stays[0, 0, 3:]), [0, 0, -10], atol=1e-4)
    goes = corrected(task, way, D["band"][None, None], D)
    np.testing.assert_allclose(goes[0, 0], [0.01, 0, 0, 0, 0, 0], atol=1e-7)


def test_a_displaced_camera_sees_displaced_goals_where_they_were():
    task = load_task("cut_dough")
    sup = supervision(task, [[1]], [("knife", "dough")], [[1]])
    C = displaced(0.02, -0.01, 7)
    new = displaced_supervision(task, sup, C, {"knife": displaced(0, 0, 3)})
    before, after = (s.camera.project(s.target_cloud[:1])[0] for s in (sup, new))
    np.testing.assert_allclose(after, before, atol=1e-3)
    assert np.abs(new.target_cloud[0] - sup.target_cloud[0]).max() > 0.01
    assert np.isnan(new.target_cloud[1]).all()


# Simulated and kept --------------------------------------------------------------------------------------

PUSH = """
title = "Push"
[camera]
width = 96
height = 64
fps = 20
position_m = [0.0, -0.4, 0.3]
look_at_m = [0.05, 0.0, 0.0]
[simulation]
dt_s = 0.01
substeps = 1
steps_per_waypoint = 6
settle_steps = 4
[[background]]
name = "table"
size_m = [2.0, 2.0, 0.04]
position_m = [0.0, 0.0, -0.02]
[[objects]]
name = "puck"
roles = ["actuator"]
mesh = "assets/puck.obj"
position_m = [0.0, 0.0, 0.01]
material = { kind = "rigid", mass_kg = 0.1 }
look = { color = [0.8, 0.1, 0.1] }
[[objects]]
name = "mat"
roles = ["target"]
mesh = "assets/mat.obj"
position_m = [0.12, 0.0, 0.002]
material = { kind = "rigid", mass_kg = 0.1 }
look = { color = [0.1, 0.1, 0.8] }
[collect]
material_share = 0.1
[[goal]]
relation = "moved"
object = "puck"
[[success]]
predicate = "at"
object = "puck"
position_m = [0.12, 0.0, 0.06]
max_m = 0.019
"""


@pytest.fixture
def solved(tmp_path) -> Path:
    """A run whose puck was moved over a mat, which it touches in the video: the mat's place in the world is
    asked for, so that episodes whose mat is too far away fail."""
    folder = tmp_path / "push"
    (folder / "assets").mkdir(parents=True)
    trimesh.creation.box((0.04, 0.03, 0.02)).export(folder / "assets" / "puck.obj")
    trimesh.creation.box((0.06, 0.06, 0.004)).export(folder / "assets" / "mat.obj")
    (folder / "task.toml").write_text(PUSH)
    (folder / "instruction.md").write_text("Put the puck over the mat.\n")
    task = load_task(folder)
    way = np.float32([[[0.06, 0, 0.05, 0, 0, 0]], [[0.12, 0, 0.06, 0, 0, 0.3]]])
    sup = supervision(task, [[1], [1]], [("puck", "mat")], [[0], [1]], way)
    config = PRESETS["quick"]
    run = RunDirectory.create(
        tmp_path / "runs", "push",
        {"task": str(folder), "task_digest": task.digest, "instruction": task.instruction, "seed": 0,
         "config": to_dict(config)},
    )  # fmt: skip
    stages = {}
    for number, name in ((40, "perceive"), (50, "optimize"), (60, "execute")):
        stages[name] = StageFolder(run.path / f"{number}_{name}" / "f", "f")
        stages[name].path.mkdir(parents=True)
    sup.save(stages["perceive"].path / "supervision.npz")
    np.savez(stages["optimize"].path / "trajectory.npz", waypoints=way, held=sup.held)
    write_json(
        stages["optimize"].path / "search.json",
        {"objective": to_dict(config.optimize.objective)},
    )
    digests = {}
    for name, folder in stages.items():
        folder.finish(config={}, inputs=dict(digests), seconds=1.0, notes=[])
        digests[name] = folder.digest()
    _result(run.path, success=True)
    return run.path


def _result(run: Path, *, success: bool) -> None:
    blank = {f.name: None for f in dataclasses.fields(Result)}
    write_json(run / "result.json", blank | {
        "task": "push", "instruction": "Put it.", "seed": 0, "success": success, "score": 0.5, "missed": [],
    })  # fmt: skip


def test_episodes_are_tried_kept_gone_on_with_and_exported(solved, tmp_path, capsys):
    out = tmp_path / "many"
    words = ["collect", str(solved), "--out", str(out), "--environments", "4", "--rollouts", "0"]
    assert main([*words, "--episodes", "3"]) == 0
    said = capsys.readouterr()
    assert "of 3 episodes succeeded" in said.out and "an hour" in said.out
    tried = [json.loads(p.read_text()) for p in sorted((out / "tried").iterdir())]
    assert [t["episode"] for t in tried] == [0, 1, 2]
    whole = {p: p.read_bytes() for p in out.glob("episodes/*/*")}
    # The batch had four environments; the fourth is made when it is asked for, and nothing again.
    assert main([*words, "--episodes", "4"]) == 0
    assert all(p.read_bytes() == data for p, data in whole.items())
    tried = [json.loads(p.read_text()) for p in sorted((out / "tried").iterdir())]
    kept = sorted(p.name for p in (out / "episodes").iterdir())
    assert kept == [f"{t['episode']:04d}" for t in tried if t["success"]] and len(tried) == 4
    assert 1 <= len(kept) < 4, "the mat is too far away in some, and not in all"
    record = json.loads((out / "collection.json").read_text())
    assert record["kept"] == len(kept) and record["share"] == len(kept) / 4
    for t in tried:
        # Told apart by the mat's place, as the predicate asks.
        ((x, y),) = [o["shift_m"] for o in t["varied"]["objects"] if o["moved"] == ["mat"]]
        assert t["success"] == (np.hypot(x, y) < 0.019), t
    task = load_task(tmp_path / "push")
    for name in kept:
        folder, told = (
            out / "episodes" / name,
            json.loads((out / "episodes" / name / "episode.json").read_text()),
        )
        rollout = Rollout.load(folder / "rollout.npz")
        mat, puck = (rollout.bodies.index(n) for n in ("mat", "puck"))
        at = {o["moved"][0]: o for o in told["varied"]["objects"]}
        for r, n in ((mat, "mat"), (puck, "puck")):
            begin = np.array(task.object(n).position_m[:2]) + at[n]["shift_m"]
            np.testing.assert_allclose(rollout.positions_m[0, r, :2], begin, atol=1e-6)
        # The puck ends over the mat, wherever that is.
        np.testing.assert_allclose(
            rollout.positions_m[-1, puck, :2], rollout.positions_m[-1, mat, :2], atol=2e-3
        )
        film = read_video(folder / "film.mp4").frames
        assert film.shape[1:] == (64, 96, 3) and len(film) == (2 * 6 + 4) // 5 + 1
        # What the camera of this episode sees: the puck is where it is projected to.
        camera = Camera.from_dict(told["camera"])
        (u, v), _ = camera.project(rollout.positions_m[0, puck] + [0, 0, 0.01])
        r, g, b = film[0, int(v), int(u)].astype(int)
        assert r > g + 30 and r > b + 30
    data = tmp_path / "many.hdf5"
    assert main(["export", str(out), "--format", "hdf5", "--out", str(data)]) == 0
    assert f"{len(kept)} episode" in capsys.readouterr().out
    with h5py.File(data) as f:
        assert len(f["data"]) == len(kept)
    for name in ("rollout", "trajectory"):
        file = out / "episodes" / kept[0] / f"{name}.npz"
        content = file.read_bytes()
        for left, said in ((b"", "damaged"), (content[:-30], "damaged"), (None, "missing")):
            file.unlink() if left is None else file.write_bytes(left)
            assert main(["export", str(out), "--format", "hdf5", "--out", f"{data}2"]) == 2
            line = capsys.readouterr().err.splitlines()[-1]
            assert f"{file} is {said}" in line
        file.write_bytes(content)
    assert main(["export", str(out), "--robot", "--format", "hdf5", "--out", f"{data}2"]) == 2
    assert "no arm is in an episode" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, said",
    [
        ("", "--episodes N is missing"),
        ("--episodes 2 --rollouts 15", "--rollouts 15: expected 16 or more"),
        ("--episodes 0", "--episodes 0: expected 1 to"),
        ("--episodes many", "many"),
        ("--episodes 3 --environments 0", "--environments 0: expected"),
        ("--episodes 3 --out OTHER", "holds another collection (its seed is 5, not 0)"),
        ("--episodes 3 --out RUN", "holds something else"),
        ("--episodes 3 --out RUN/run.json/a", "run.json is a file"),
    ],
)
def test_bad_input_is_one_line(more, said, solved, tmp_path, capsys):
    from lucibot.collect.command import Asked, _identity, read_solved

    other = tmp_path / "other"
    other.mkdir()
    identity = _identity(read_solved(solved), Asked(seed=5, environments=8, rollouts=48))
    write_json(other / "collection.json", {"identity": identity})
    words = more.replace("OTHER", str(other)).replace("RUN", str(solved)).split()
    assert main(["collect", str(solved), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error


def test_a_simulation_that_dies_in_a_search_is_no_episode_that_missed(monkeypatch):
    """What diverges is one: then no trajectory is found."""
    task = load_task("cut_dough")
    told = supervision(task, [[True]], waypoints=[[pose_np(task.actuators[0].T_world_object)]])
    batch = SimpleNamespace(
        solved=SimpleNamespace(
            task=task, supervision=told, objective=VideoObjective(), search=SearchConfig()
        ),
        first=0, asked=SimpleNamespace(rollouts=POPULATION, seed=0), _C=[np.eye(4)[None, None]],
        _varied=[SimpleNamespace(task=task)], _waypoints=told.waypoints[None],
        _supervision=lambda b, C: told,
    )  # fmt: skip

    clear = SimpleNamespace(repaired=lambda waypoints, held: waypoints)
    monkeypatch.setattr("lucibot.collect.command.Clearance", SimpleNamespace(of=lambda *_: clear))

    def ends_with(error: Exception):
        def search(*_, **__):
            raise error

        monkeypatch.setattr("lucibot.collect.command.search", search)
        return _Batch._search(batch, None, 0)

    assert ends_with(AllDiverged("generation 1: all 16 rollouts diverged")) is None
    with pytest.raises(RunFailed, match="died"):
        ends_with(RunFailed("the simulation died"))


def test_what_cannot_be_shown_is_refused(solved, tmp_path, capsys):
    def refused(said: str, run: Path = solved, *more: str) -> None:
        assert (
            main(["collect", str(run), "--episodes", "1", "--out", str(tmp_path / "c"), *more]) == 2
        )
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and said in error, error
        assert not (tmp_path / "c").exists()

    refused("is no run directory", tmp_path)
    _result(solved, success=False)
    refused("there is nothing to demonstrate")
    _result(solved, success=True)
    text = (tmp_path / "push" / "task.toml").read_text()
    (tmp_path / "push" / "task.toml").write_text(
        text.replace("0.12, 0.0, 0.002", "0.11, 0.0, 0.002")
    )
    refused("has changed since")
    (tmp_path / "push" / "task.toml").write_text(text)
    shutil.move(tmp_path / "push", tmp_path / "moved")
    refused("is gone")
    (solved / "result.json").unlink()
    refused("has no result yet", solved, "--task", str(tmp_path / "moved"))


@pytest.mark.slow
def test_a_killed_collection_goes_on_to_the_same_episodes(solved, tmp_path):
    def words(out: Path) -> list[str]:
        return [sys.executable, "-m", "lucibot", "collect", str(solved), "--out", str(out),
                "--episodes", "6", "--environments", "3", "--rollouts", "0"]  # fmt: skip

    assert subprocess.run(words(tmp_path / "whole")).returncode == 0
    process = subprocess.Popen(words(tmp_path / "cut"))
    while not list((tmp_path / "cut" / "tried").glob("*")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list((tmp_path / "cut" / "tried").iterdir())) < 6
    assert subprocess.run(words(tmp_path / "cut")).returncode == 0
    names = sorted(
        p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").glob("episodes/*/*")
    )
    assert names == sorted(
        p.relative_to(tmp_path / "cut") for p in (tmp_path / "cut").glob("episodes/*/*")
    )
    for name in names:
        if name.suffix == ".npz":
            with np.load(tmp_path / "whole" / name) as a, np.load(tmp_path / "cut" / name) as b:
                for key in a.files:
                    np.testing.assert_array_equal(a[key], b[key])
