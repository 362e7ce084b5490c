"""Finished runs, made here by hand, are written as datasets and read back by readers that are not ours,
or by ones that know only the formats' descriptions."""

import csv
import dataclasses
import json
import os
import shutil
import time

import av
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from lucibot.cli import main
from lucibot.core.errors import UserError
from lucibot.core.video import Video, write_video
from lucibot.export.command import export as write
from lucibot.export.drive import read_motion
from lucibot.export.episode import planned, read_episode
from lucibot.store.finished import stage_folder
from lucibot.store.result import Result
from lucibot.store.rollout import Rollout
from lucibot.store.run import RunDirectory, StageFolder, write_json

DT, S = 0.02, 100  # Two seconds of a hundred steps, filmed at 12.5 pictures a second.
EVERY = 4


def turned(angles, flip=slice(0)):
    """Quaternions about z; those in `flip` with the other sign, which means the same."""
    q = np.stack([np.cos(angles / 2), 0 * angles, 0 * angles, np.sin(angles / 2)], -1)
    q[flip] *= -1
    return q.astype(np.float32)


@pytest.fixture
def make(tmp_path):
    """A finished run of one cup that is carried, a door on a joint, and a strap of particles."""

    def made(
        name="a", *, success=True, seed=3, soft=True, height=48, instruction="Carry  the cup.\n"
    ):
        run = RunDirectory.create(
            tmp_path / "runs", "carry",
            {"task": "/gone/carry", "seed": seed, "config": {}},
        )  # fmt: skip
        t = np.arange(S + 1)
        way = np.clip((t - 10) / 60, 0, 1)
        cup = np.stack([0.1 * way, 0 * way, 0.05 + 0 * way], -1)
        door = np.tile([0.3, 0.2, 0.1], (S + 1, 1))
        held = np.zeros((S + 1, 1 + soft), bool)
        held[11:71] = True
        target = np.where(held[:, :1], cup + np.array([0, 0, 0.002]), np.nan)
        targets, turns = [target], [np.where(held[:, :1], turned(way, slice(40, 60)), np.nan)]
        particles, grasped = {"sand": np.zeros((26, 5, 3), np.float32)}, {}
        if soft:
            strap = np.zeros((26, 7, 3), np.float32)
            strap[:, 2, 1] = np.arange(26) / 25
            particles["strap"] = strap
            grasped["strap"] = np.where(held[:, 1], 2, -1)
            targets.append(np.where(held[:, 1:], np.stack([0 * way, way, 0 * way], -1), np.nan))
            turns.append(np.where(held[:, 1:], turned(0 * way), np.nan))
        rollout = Rollout(
            times_s=t * DT, bodies=("cup", "door"),
            positions_m=np.stack([cup, door], 1).astype(np.float32),
            quaternions=np.stack([turned(way, slice(50, 101)), turned(0.5 * way)], 1),
            joints=("door",), joint_values=(0.5 * way)[:, None].astype(np.float32),
            actuators=("cup", "strap")[: 1 + soft], held=held, particle_steps=t[::EVERY],
            targets_m=np.stack(targets, 1).astype(np.float32),
            target_quaternions=np.stack(turns, 1).astype(np.float32), particles=particles,
            grasped=grasped,
        )  # fmt: skip
        optimize = stage(run, 50, "optimize", {})
        np.savez(optimize.path / "trajectory.npz", waypoints=np.zeros((2, 1 + soft, 6)),
                 held=np.ones((2, 1 + soft), bool))  # fmt: skip
        optimize.finish(config={}, inputs={}, seconds=1.0, notes=[])
        execute = stage(run, 60, "execute", {})
        rollout.save(execute.path / "rollout.npz")
        # Each picture's grey says when it was taken.
        frames = np.stack([np.full((height, 65, 3), 20 + 8 * k, np.uint8) for k in range(26)])
        write_video(execute.path / "film.mp4", Video(frames=frames, fps=1 / (EVERY * DT)), crf=0)
        execute.finish(config={}, inputs={"optimize": optimize.digest()}, seconds=1.0, notes=[])
        stage(run, 70, "report", {}).finish(config={}, inputs={}, seconds=1.0, notes=[])
        blank = {f.name: None for f in dataclasses.fields(Result)}
        write_json(run.path / "result.json", blank | {
            "task": "carry", "instruction": instruction, "seed": seed, "success": success,
            "score": 1.0 if success else 0.4, "missed": [], "loss": 0.5, "rollouts": 8,
            "seconds": {"optimize": 60.0}, "cost_usd": 0.0,
        })  # fmt: skip
        return run.path

    def stage(run, number, name, _):
        folder = StageFolder(run.path / f"{number}_{name}" / "f", "f")
        folder.path.mkdir(parents=True)
        return folder

    return made


def export(format, out, *runs, **more):
    words = [w for n, v in more.items() for w in ([f"--{n}"] if v is True else [f"--{n}", str(v)])]
    return main(["export", *map(str, runs), "--format", format, "--out", str(out), *words])


def test_an_episode_says_where_things_are_and_where_they_are_to_be(make):
    e = read_episode(make(), fps=10)
    assert e.instruction == "Carry the cup." and e.fps == 10 and len(e.state) == 21
    assert e.state.shape == e.action.shape == (21, 16) and e.environment.shape == (21, 8)
    x, held = e.state[:, 0], e.state[:, 7]
    np.testing.assert_allclose(x, 0.1 * np.clip((np.arange(21) * 5 - 10) / 60, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(held, [0] * 3 + [1] * 12 + [0] * 6)
    # An action is where it is to be one frame later; where nothing is held, where it is.
    np.testing.assert_allclose(e.action[2:14, 0], x[3:15], atol=1e-6)
    np.testing.assert_allclose(e.action[2:14, 2], 0.052, atol=1e-6)
    np.testing.assert_allclose(e.action[15:, 2], 0.05, atol=1e-6)
    np.testing.assert_array_equal(e.action[-1], e.state[-1])
    # One sign all along, the action's like the state's.
    for turns in (e.state[:, 3:7], e.action[:, 3:7]):
        assert (turns[:, 0] > 0).all() and (np.diff(turns[:, 3]) >= -1e-6).all()
    # The strap's particle, in between straight; the picture of the time.
    np.testing.assert_allclose(e.state[:, 9], np.arange(21) / 20, atol=1e-5)
    np.testing.assert_allclose(
        e.environment[:, 7], 0.5 * np.clip((np.arange(21) * 5 - 10) / 60, 0, 1), atol=1e-6
    )
    grey = e.pictures.mean((1, 2, 3))
    np.testing.assert_allclose(grey, 20 + 8 * np.round(np.arange(21) * 1.25), atol=2)


def test_what_an_arm_did_has_its_joints(make, tmp_path, capsys):
    run = make()
    assert export("trajectory", tmp_path / "none", run, robot=True) == 2
    assert "no arm is in it" in capsys.readouterr().err
    joints = np.stack([np.linspace(0, j, S + 1) for j in (1, 2)], 1).astype(np.float32)
    execute = stage_folder(RunDirectory.open(run), "execute")
    folder = StageFolder(run / "65_robot" / "f", "f")
    folder.path.mkdir(parents=True)
    dataclasses.replace(
        Rollout.load(execute / "rollout.npz"), arm="two_links", arm_folder="/arms/two_links",
        arm_joints=("a", "b"), arm_angles=joints, arm_targets=joints + 0.5, arm_planned=joints + 0.25, arm_opening_m=np.linspace(0, 0.1, S + 1, dtype=np.float32),
    ).save(folder.path / "rollout.npz")  # fmt: skip
    shutil.copy(execute / "film.mp4", folder.path / "film.mp4")
    folder.finish(config={}, inputs={}, seconds=1.0, notes=[])
    result = json.loads((run / "result.json").read_text())
    result["robot"] = {"success": False, "tracking": {"mean_mm": 1.0}, "why": ""}
    write_json(run / "result.json", result)
    assert export("lerobot", tmp_path / "none", run, robot=True) == 2
    assert "did not succeed with its arm" in capsys.readouterr().err
    e = read_episode(run, fps=10, robot=True)
    assert e.robot == "two_links" and e.state_names == ("a", "b", "gripper.opening")
    np.testing.assert_allclose(e.state[:, 1], np.linspace(0, 2, 21), atol=1e-6)
    np.testing.assert_allclose(e.action[:-1, 1], e.state[1:, 1] + 0.5, atol=1e-6)
    np.testing.assert_allclose(e.action[:-1, 2], e.state[1:, 2], atol=1e-6)
    assert not e.success and e.environment_names[:2] == ("cup.x", "cup.y")
    out = tmp_path / "lerobot"
    assert export("lerobot", out, run, robot=True, failed=True, fps=10) == 0
    info = json.loads((out / "meta" / "info.json").read_text())
    assert info["robot_type"] == "two_links" and info["features"]["action"]["shape"] == [3]
    out = tmp_path / "trajectory"
    assert export("trajectory", out, run, robot=True, failed=True) == 0
    rows = list(csv.DictReader(open(out / "carry_seed3.csv")))
    assert float(rows[-1]["two_links.b"]) == 2.25 and len(rows) == S + 1
    motion = read_motion(out / "carry_seed3.json")
    assert (motion.arm, motion.arm_folder) == ("two_links", "/arms/two_links")


def test_a_lerobot_dataset_is_what_its_description_says(make, tmp_path, capsys):
    runs = [make(), make(seed=4), make(seed=5, instruction="Carry it back.")]
    out = tmp_path / "set"
    assert export("lerobot", out, *runs, fps=10) == 0
    assert "63 frames" in capsys.readouterr().out
    info = json.loads((out / "meta" / "info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"]) == ("v3.0", 10, 3)
    assert info["total_frames"] == 63 and info["total_tasks"] == 2
    tasks = pq.read_table(out / "meta" / "tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert dict(zip(*tasks.select(["task", "task_index"]).to_pydict().values(), strict=True)) == {
        "Carry the cup.": 0, "Carry it back.": 1,
    }  # fmt: skip
    episodes = pq.read_table(out / "meta" / "episodes").to_pylist()
    stats = json.loads((out / "meta" / "stats.json").read_text())
    every = []
    for i, episode in enumerate(episodes):
        where = {k: episode[f"data/{k}"] for k in ("chunk_index", "file_index")}
        rows = pq.read_table(out / info["data_path"].format(**where))
        # What is stored is what is declared, video apart.
        for name, feature in info["features"].items():
            if feature["dtype"] == "video":
                continue
            kind = rows.schema.field(name).type
            size = 1 if not hasattr(kind, "list_size") else kind.list_size
            kind = getattr(kind, "value_type", kind)
            assert (
                str(kind)
                == {"float32": "float", "int64": "int64", "bool": "bool"}[feature["dtype"]]
            )
            assert [size] == feature["shape"] and len(feature["names"] or [0]) == size
        assert set(rows.column_names) == set(info["features"]) - {"observation.images.camera"}
        rows = {n: np.array(v) for n, v in rows.to_pydict().items()}
        every.append(rows["action"])
        assert len(rows["index"]) == episode["length"] == 21
        np.testing.assert_array_equal(rows["index"], np.arange(21) + episode["dataset_from_index"])
        assert episode["dataset_to_index"] - episode["dataset_from_index"] == 21
        assert (rows["episode_index"] == i).all() and (rows["task_index"] == (i == 2)).all()
        assert rows["next.done"].sum() == rows["next.success"].sum() == 1 and rows["next.done"][-1]
        # A loader looks for the picture at from_timestamp + timestamp, to a tenth of a millisecond.
        key = "observation.images.camera"
        where = {k: episode[f"videos/{key}/{k}"] for k in ("chunk_index", "file_index")}
        with av.open(str(out / info["video_path"].format(video_key=key, **where))) as film:
            seen = [
                (float(f.pts * f.time_base), f.to_ndarray(format="rgb24"))
                for f in film.decode(video=0)
            ]
        assert [*seen[0][1].shape] == info["features"][key]["shape"] == [48, 64, 3]
        wanted = episode[f"videos/{key}/from_timestamp"] + rows["timestamp"]
        np.testing.assert_allclose([t for t, _ in seen], wanted, atol=1e-4)
        grey = np.array([p.mean() for _, p in seen])
        np.testing.assert_allclose(grey, 20 + 8 * np.round(np.arange(21) * 1.25), atol=3)
        assert np.shape(episode[f"stats/{key}/mean"]) == (3, 1, 1)
        np.testing.assert_allclose(episode["stats/action/max"], rows["action"].max(0), atol=1e-6)
    every = np.concatenate(every)
    np.testing.assert_allclose(stats["action"]["mean"], every.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["q90"], np.quantile(every, 0.9, axis=0), atol=1e-6)
    assert stats["action"]["count"] == [63]


def test_an_hdf5_file_has_robomimics_layout(make, tmp_path):
    runs = [make(), make(seed=4, soft=False)]
    assert export("hdf5", tmp_path / "d.hdf5", *runs, fps=5) == 0
    with h5py.File(tmp_path / "d.hdf5") as f:
        assert (
            f["data"].attrs["total"] == 22 and json.loads(f["data"].attrs["env_args"])["env_name"]
        )
        names = [n.decode() for m in ("train", "valid") for n in f[f"mask/{m}"][:]]
        assert sorted(names) == ["demo_0", "demo_1"] == sorted(f["data"])
        demo = f["data/demo_0"]
        n = demo.attrs["num_samples"]
        for part in ("actions", "states", "rewards", "dones"):
            assert len(demo[part]) == n == 11
        assert demo["rewards"][-1] == 1 and demo["dones"][:].sum() == 1
        for name in demo["obs"]:
            np.testing.assert_array_equal(demo[f"obs/{name}"][1:], demo[f"next_obs/{name}"][:-1])
        assert demo["obs/camera_image"].shape == (11, 48, 64, 3)
        assert demo["obs/particles_sand"].shape == (11, 5, 3)
        assert json.loads(demo.attrs["action_names"])[0] == "cup.x"
        assert "action_low" not in f["data"].attrs  # Their actuators are not the same.
    assert export("hdf5", tmp_path / "e.hdf5", *runs[:1]) == 0
    with h5py.File(tmp_path / "e.hdf5") as f:
        low, high = (f["data"].attrs[f"action_{n}"] for n in ("low", "high"))
        scaled = 2 * (f["data/demo_0/actions"][:] - low) / (high - low) - 1
        y = json.loads(f["data/demo_0"].attrs["action_names"]).index("cup.y")
        assert (
            np.abs(scaled).max() <= 1 + 1e-6 and not scaled[:, y].any()
        )  # It never moves along y.
        assert scaled[:, 0].min() == -1 and scaled[:, 0].max() == pytest.approx(1)


def test_a_trajectory_is_read_by_another_library(make, tmp_path):
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    run = make()
    assert export("trajectory", tmp_path / "t", run) == 0
    wanted = planned(read_episode(run).rollout)
    told = json.loads((tmp_path / "t" / "carry_seed3.json").read_text())
    np.testing.assert_allclose(told["actuators"]["cup"]["poses"], wanted[:, 0], atol=1e-6)
    assert told["times_s"][-1] == pytest.approx(S * DT)
    with open(tmp_path / "t" / "carry_seed3.csv") as f:
        rows = list(csv.DictReader(f))
    assert float(rows[40]["cup.z"]) == pytest.approx(0.052) and rows[40]["cup.held"] == "1"
    assert float(rows[100]["door.joint"]) == pytest.approx(0.5)
    store = get_typestore(Stores.ROS2_JAZZY)
    with AnyReader([tmp_path / "t" / "carry_seed3.mcap"], default_typestore=store) as bag:
        read = {c.topic: bag.deserialize(raw, c.msgtype) for c, _, raw in bag.messages()}
    bodies, joints = read["/actuators"], read["/joints"]
    assert bodies.header.frame_id == "world" and list(bodies.joint_names) == ["cup", "strap"]
    assert len(bodies.points) == S + 1
    p = bodies.points[50].transforms[0]
    got = [getattr(p.translation, n) for n in "xyz"] + [getattr(p.rotation, n) for n in "wxyz"]
    np.testing.assert_allclose(got, wanted[50, 0], atol=1e-6)
    since = joints.points[75].time_from_start
    assert since.sec == 1 and since.nanosec == 500_000_000
    assert joints.points[40].positions[0] == pytest.approx(0.25) and list(joints.joint_names) == [
        "door"
    ]
    assert joints.points[40].velocities[0] == pytest.approx(0.5 / 60 / DT, rel=1e-3)


def test_what_cannot_be_exported_is_said_and_leaves_nothing(make, tmp_path, capsys):
    run, failed = make(), make(success=False)
    out = tmp_path / "out"
    for argv, words in (
        (["--format", "lerobot"], "--out is missing"),
        (["--out", str(out)], "--format is missing"),
        (["--format", "zarr", "--out", str(out)], "zarr"),
        (["--format", "hdf5", "--out", str(out), "--fps", "0"], "--fps 0"),
        (["--format", "hdf5", "--out", str(tmp_path)], "exists"),
    ):
        assert main(["export", str(run), *argv]) == 2
        assert words in capsys.readouterr().err
    assert export("lerobot", out, run, failed) == 2 and "did not succeed" in capsys.readouterr().err
    assert export("lerobot", out, tmp_path / "none") == 2
    for other in (make(soft=False), make(height=50)):
        assert export("lerobot", out, run, other) == 2
        assert "do not fit into one dataset" in capsys.readouterr().err
    assert not out.exists() and not list(tmp_path.glob(".out*"))
    assert export("lerobot", out, run, failed, failed=True) == 0
    rows = pq.read_table(out / "data").to_pydict()
    assert np.sum(rows["next.success"]) == 1 and np.sum(rows["next.done"]) == 2


def test_a_run_that_is_given_twice_is_found_among_thousands(tmp_path):
    collection = tmp_path / "collection"
    for i in range(2000):
        (collection / "episodes" / f"{i:04d}").mkdir(parents=True)
        (collection / "episodes" / f"{i:04d}" / "episode.json").write_text("{}")
    write_json(collection / "collection.json", {})
    begin = time.process_time()
    with pytest.raises(UserError, match="0007 is given twice"):
        write(
            [collection, collection / "episodes" / ".." / "episodes" / "0007"],
            "hdf5",
            tmp_path / "d",
        )
    assert time.process_time() - begin < 5


def test_an_older_replay_says_how_to_make_it_anew(make, capsys):
    run = make()
    path = next(run.glob("60_execute/*/rollout.npz"))
    with np.load(path) as z:
        kept = {n: z[n] for n in z.files if not n.startswith("target")}
    np.savez(path, **kept)
    folder = StageFolder(path.parent, "f")
    folder.finish(config={}, inputs=folder.manifest()["inputs"], seconds=1.0, notes=[])
    assert export("hdf5", run / "d.hdf5", run) == 2
    assert "--from execute" in capsys.readouterr().err


def test_runs_are_listed(make, tmp_path, capsys):
    make(), make(success=False, seed=4)
    begun = RunDirectory.create(
        tmp_path / "runs", "carry", {"task": "x/carry", "seed": 7, "config": {}}
    )
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("{}")
    assert main(["runs", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert any("nothing finished" in line and begun.path.name in line for line in lines)
    assert sum(" success " in line and "no success" not in line for line in lines) == 1
    assert sum("no success" in line and "0.40" in line for line in lines) == 1
    assert sum("cannot be read" in line for line in lines) == 1
    assert main(["runs", str(tmp_path / "runs"), "--json", "--task", "carry"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {r["seed"] for r in rows} == {3, 4, 7} and rows[0]["minutes"] == 1.0
    assert main(["runs", str(tmp_path / "nowhere")]) == 2
    assert main(["runs", str(tmp_path / "runs"), "--task", "cary"]) == 2
    assert "carry" in capsys.readouterr().err


def test_a_damaged_run_is_told_with_the_file_and_what_mends_it(make, tmp_path, capsys):
    for name in ("60_execute/f/rollout.npz", "60_execute/f/film.mp4", "50_optimize/f/trajectory.npz",
                 "60_execute/f/manifest.json"):  # fmt: skip
        run = make()
        (run / name).write_bytes((run / name).read_bytes()[:9])
        assert export("hdf5", tmp_path / "x", run) == 2, name
        said = capsys.readouterr().err
        assert f"{run / name} is missing or damaged; `lucibot resume {run}`" in said
        assert not list(tmp_path.glob("*x*"))


def test_runs_of_one_task_and_seed_do_not_overwrite_each_other(make, tmp_path, capsys):
    run = make()
    assert export("trajectory", tmp_path / "x", run, make()) == 0
    assert len(list((tmp_path / "x").glob("*.json"))) == 2
    assert export("trajectory", tmp_path / "y", run, run) == 2
    assert "given twice" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said(make, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert export("hdf5", tmp_path / "file" / "x", make()) == 2
    assert "cannot be written (File exists)" in capsys.readouterr().err


def test_a_copy_of_a_run_has_the_same_newest_stage(make, tmp_path):
    run = RunDirectory(make())
    newer = run.path / "60_execute" / "f"
    shutil.copytree(newer, older := newer.with_name("g"))
    StageFolder(older, "g").log.write_text('{"time": 5}\n')
    StageFolder(newer, "f").log.write_text('{"time": 6}\n')
    os.utime(newer / "manifest.json", (1, 1))
    assert stage_folder(run, "execute") == newer


def test_runs_are_listed_where_they_are_made(make, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 2
    assert "no such folder: runs;" in capsys.readouterr().err
    make()
    assert main(["runs"]) == 0
    assert "runs/carry" in capsys.readouterr().out
