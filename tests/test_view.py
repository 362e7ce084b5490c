"""A run in rerun: what is logged where and when, and what cannot be shown."""

import socket
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import rerun as rr

import lucibot.view
from lucibot.cli import main
from lucibot.config import PRESETS
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video, write_video
from lucibot.robot.arm import load_arm
from lucibot.robot.kinematics import Kinematics
from lucibot.store.configs import to_dict
from lucibot.store.rollout import Rollout
from lucibot.store.run import RunDirectory, StageFolder
from lucibot.view import GENERATION, ROBOT, SIMULATION, VIDEO, _Shown, view
from lucibot.vision.clip import Reading

RNG = np.random.default_rng(0)


@pytest.fixture
def task(small_task, tmp_path):
    return small_task("stack_cups", tmp_path / "stack_cups", width=96, height=72, fps=10)


@pytest.fixture
def run(task, tmp_path):
    """A run of which the scene and the search have finished."""
    run = RunDirectory.create(
        tmp_path / "runs", task.name,
        {"task": str(task.folder), "seed": 5, "config": to_dict(PRESETS["quick"])},
    )  # fmt: skip

    def stage(number, name):
        folder = StageFolder(run.path / f"{number}_{name}" / "f", "f")
        folder.path.mkdir(parents=True)
        return folder

    empty = np.zeros((72, 96))
    scene = stage(10, "scene")
    SceneView(
        camera=task.camera, names=("red_cup", "yellow_cup"),
        first_frame=np.zeros((72, 96, 3), np.uint8), background_frame=None,
        labels=empty.astype(np.uint8), depth_m=empty.astype(np.float32),
        background_depth_m=empty.astype(np.float32),
    ).save(scene.path)  # fmt: skip
    scene.finish(config={}, inputs={}, seconds=1, notes=[])
    optimize = stage(50, "optimize")
    loss = np.array([[3.0, 2.0, np.inf], [1.5, 4.0, 5.0]])
    np.savez(optimize.path / "history.npz", waypoints=RNG.random((2, 3, 4, 2, 6)), loss=loss,
             failed=~np.isfinite(loss), actuator_iou=loss / 10)  # fmt: skip
    optimize.finish(config={}, inputs={}, seconds=1, notes=[])
    return run


class Kept:
    """In place of a recording: what was logged."""

    def __init__(self):
        self.rows, self.times = [], {}

    def reset_time(self):
        self.times = {}

    def set_time(self, line, *, sequence=None, duration=None):
        self.times[line] = sequence if sequence is not None else duration

    def log(self, path, thing, static=False):
        self.rows.append((path, thing, None if static else dict(self.times)))

    def at(self, path):
        return [(thing, times) for p, thing, times in self.rows if p == path]


def test_the_search_is_seen_generation_by_generation(run, task):
    kept = Kept()
    _Shown(rr, kept, run, task).searched()
    best = kept.at("loss/best")
    assert [t[GENERATION] for _, t in best] == [0, 1]
    values = [float(thing.scalars.as_arrow_array()[0].as_py()) for thing, _ in best]
    assert values == [2.0, 1.5]
    # Of the first generation two candidates have not failed, each a path for each cup.
    for cup in ("red_cup", "yellow_cup"):
        strips = kept.at(f"world/candidates/{cup}")
        assert [len(s.strips.as_arrow_array()) for s, _ in strips] == [2, 3]
    (term, _), _ = kept.at("terms/actuator_iou")
    assert float(term.scalars.as_arrow_array()[0].as_py()) == pytest.approx(0.2)


def test_the_video_is_shown_as_it_was_read(run, task, tmp_path, monkeypatch):
    """Its camera drifts, which is taken out before masks and poses are read."""
    still = cv2.resize(RNG.integers(0, 255, (9, 12, 3)).astype(np.uint8), (96, 72))
    moved = [cv2.warpAffine(still, np.float32([[1, 0, t], [0, 1, 0]]), (96, 72)) for t in range(4)]
    write_video(tmp_path / "clip.mp4", Video(frames=np.stack(moved), fps=10))
    camera = np.tile(np.eye(2, 3), (4, 1, 1))
    camera[:, 0, 2] = np.arange(4)
    Reading(valid_px=(0, 0, 96, 72), camera=camera, curves=None).save(tmp_path / "clip.npz")
    masks = np.zeros((4, len(task.objects), 72, 96), bool)
    found = SimpleNamespace(tracks=SimpleNamespace(masks=masks, hand=masks[:, 0]),
                            poses=np.full((4, len(task.objects), 6), np.nan))  # fmt: skip
    monkeypatch.setattr(lucibot.view, "made_from", lambda *_: None)
    monkeypatch.setattr(lucibot.view, "chosen_video", lambda *_: tmp_path / "clip.mp4")
    monkeypatch.setattr(lucibot.view.Perception, "load", lambda _: found)
    kept = Kept()
    shown = _Shown(rr, kept, run, task)
    monkeypatch.setattr(
        shown, "_clocks", lambda count, fps: [{VIDEO: t / fps} for t in range(count)]
    )
    shown.perceived()
    for picture, _ in kept.at("world/camera/video"):
        jpeg = np.array(picture.blob.as_arrow_array()[0].as_py(), np.uint8)
        seen = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(seen[:, 8:-8].astype(float) - still[:, 8:-8]).mean() < 6


def test_the_replay_is_seen_step_by_step(run, task, tmp_path):
    steps = 6
    places = RNG.random((steps, 1, 3)).astype(np.float32)
    Rollout(
        times_s=0.1 * np.arange(steps), bodies=("yellow_cup",), positions_m=places,
        quaternions=np.tile(np.float32([0.6, 0.8, 0, 0]), (steps, 1, 1)), joints=(),
        joint_values=np.zeros((steps, 0)), actuators=("red_cup", "yellow_cup"),
        held=np.zeros((steps, 2), bool), particle_steps=np.array([0]), particles={},
        targets_m=np.zeros((steps, 2, 3)), target_quaternions=np.zeros((steps, 2, 4)), grasped={},
    ).save(tmp_path / "rollout.npz")  # fmt: skip
    kept = Kept()
    shown = _Shown(rr, kept, run, task)
    shown._execute = tmp_path
    shown.replayed()
    mesh, *moves = kept.at("world/replay/yellow_cup")
    assert mesh[1] == {SIMULATION: 0.0} and len(moves) == steps
    np.testing.assert_allclose([t[SIMULATION] for _, t in moves], 0.1 * np.arange(steps))
    place = moves[3][0]
    np.testing.assert_allclose(place.translation.as_arrow_array()[0].as_py(), places[3, 0])
    np.testing.assert_allclose(
        place.quaternion.as_arrow_array()[0].as_py(), [0.8, 0, 0, 0.6], atol=1e-6
    )


def let_an_arm_do_it(run, arm, angles, T_world_base):
    folder = StageFolder(run.path / "65_robot" / "f", "f")
    folder.path.mkdir(parents=True)
    Rollout(
        times_s=np.array([0.0, 0.5]), bodies=("yellow_cup",), positions_m=np.zeros((2, 1, 3)),
        quaternions=np.tile(np.float32([1, 0, 0, 0]), (2, 1, 1)), joints=(),
        joint_values=np.zeros((2, 0)), actuators=("yellow_cup",), held=np.zeros((2, 1), bool),
        particle_steps=np.array([0]), particles={}, targets_m=np.zeros((2, 1, 3)),
        target_quaternions=np.zeros((2, 1, 4)), grasped={}, arm=arm.name,
        arm_folder=arm.own_folder, arm_joints=tuple(arm.spec.joints), arm_angles=angles.numpy(),
        arm_opening_m=np.array([0.08, 0.02]), T_world_base=T_world_base,
    ).save(folder.path / "rollout.npz")  # fmt: skip
    folder.finish(config={}, inputs={}, seconds=1, notes=[])


def test_what_an_arm_did_is_on_a_time_line_of_its_own(run, task, panda):
    solver = Kinematics(panda.chain)
    angles, T = solver.random(2, 3), np.eye(4)
    T[:3, 3] = 0.1, -0.5, 0.2
    let_an_arm_do_it(run, panda, angles, T)
    kept = Kept()
    _Shown(rr, kept, run, task).performed()
    assert all(set(times) == {ROBOT} for _, _, times in kept.rows)
    hands = (T @ solver.tcp(angles).numpy()).copy()
    carried, opened = 0, []
    for path in sorted({p for p, *_ in kept.rows if p.startswith("world/robot/franka/")}):
        _shape, *posed = kept.at(path)
        assert [times[ROBOT] for _, times in posed] == [0.0, 0.5]
        poses = [_matrix(place) for place, _ in posed]
        seen = [np.linalg.inv(hand) @ pose for hand, pose in zip(hands, poses, strict=True)]
        carried += np.allclose(*seen, atol=1e-4)
        off = seen[1] - seen[0]
        if np.allclose(off[:3, :3], 0, atol=1e-4):
            opened.append(np.abs(off[:3, 3]).max())
    # The hand goes with the TCP; two fingers, 30 mm nearer to the middle each, turn with it.
    assert carried >= 1
    assert max(opened) == pytest.approx(0.03, abs=1e-4)


def test_an_arm_of_ones_own_is_seen_from_wherever_and_missed_where_it_is_gone(
    run, task, slow_panda, tmp_path, monkeypatch
):
    monkeypatch.chdir(slow_panda.rename(tmp_path / "mine").parent)
    arm = load_arm("mine")
    angles = Kinematics(arm.chain).random(2, 3)
    let_an_arm_do_it(run, arm, angles, np.eye(4))
    (run.path / "robot" / "mine").mkdir(parents=True)
    np.savez(run.path / "robot" / "mine" / "0_yellow_cup.npz", arm="mine", arm_folder=arm.own_folder,
             T_world_base=np.eye(4), width_m=0.05, simulated_s=[0.0, 0.5], angles=angles)  # fmt: skip
    monkeypatch.chdir(run.path)
    for there in (True, False):
        kept = Kept()
        shown = _Shown(rr, kept, run, task)
        shown.performed()
        shown.plans()
        assert kept.at("world/robot/yellow_cup"), "what it moved"
        for root in ("world/robot/mine/", "world/arms/mine/0_yellow_cup/"):
            assert any(p.startswith(root) for p, *_ in kept.rows) == there
        if there:
            assert shown.parts == ["what arm mine did", "plan of arm mine"]
            arm.folder.rename(tmp_path / "moved")
    (said,) = shown.parts
    assert said == f"not the arm (arm mine: its folder {arm.folder} is gone)"


def _matrix(place):
    T = np.eye(4)
    T[:3, :3] = np.reshape(place.mat3x3.as_arrow_array()[0].as_py(), (3, 3)).T
    T[:3, 3] = place.translation.as_arrow_array()[0].as_py()
    return T


def test_the_video_keeps_step_with_the_replay_at_keyframes(run, task, monkeypatch):
    shown = _Shown(rr, Kept(), run, task)
    assert shown._clocks(3, 10.0) == [{VIDEO: 0.0}, {VIDEO: 0.1}, {VIDEO: 0.2}]
    monkeypatch.setattr(shown, "_execute", run.path)
    monkeypatch.setattr(shown, "_perceive", run.path)
    told = type("Told", (), {"keyframes": np.array([10, 20, 40])})
    monkeypatch.setattr("lucibot.view.Supervision.load", lambda path: told)
    clocks = shown._clocks(50, 10.0)
    step = task.spec.simulation.steps_per_waypoint * task.spec.simulation.dt_s
    assert [clocks[k][SIMULATION] for k in (0, 10, 20, 40)] == pytest.approx(
        [0, step, 2 * step, 3 * step]
    )
    assert clocks[30][SIMULATION] == pytest.approx(2.5 * step) and clocks[49][
        VIDEO
    ] == pytest.approx(4.9)


def test_a_run_is_written_to_a_file(run, tmp_path, capsys):
    file = tmp_path / "run.rrd"
    assert main(["view", str(run.path), "--save", str(file)]) == 0
    assert "2 generations" in capsys.readouterr().out
    assert file.read_bytes()[:4] == b"RRF2" and file.stat().st_size > 10_000


def test_what_cannot_be_shown_is_said(run, task, tmp_path, capsys):
    assert main(["view", str(tmp_path)]) == 2
    assert main(["view", str(run.path), "--save", str(tmp_path / "none" / "x.rrd")]) == 2
    assert "no folder" in capsys.readouterr().err
    (run.path / "10_scene" / "f" / "manifest.json").unlink()
    with pytest.raises(Exception, match="nothing has finished"):
        view(run.path, save=tmp_path / "x.rrd")


def test_nothing_is_left_of_a_file_that_was_not_finished(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DISPLAY", "")
    monkeypatch.setenv("WAYLAND_DISPLAY", "")
    assert main(["view", str(run.path)]) == 2
    assert "no screen" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    assert main(["view", str(run.path), "--save", str(tmp_path / "out")]) == 2
    assert "is a folder" in capsys.readouterr().err
    (run.path / "50_optimize" / "f" / "history.npz").write_bytes(b"PK")
    assert main(["view", str(run.path), "--save", str(tmp_path / "out" / "x.rrd")]) == 2
    assert "history.npz is missing or damaged" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_a_viewer_listens_to_this_machine_alone_and_one_is_enough(run, monkeypatch, capsys):
    # At the first port is a web server, at the second a program that says nothing.
    web = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    Thread(target=web.serve_forever, daemon=True).start()
    mute = socket.create_server(("127.0.0.1", 0))
    port = free_port()
    opened, popen = [], subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a, **k: opened.append(popen(*a, **k)) or opened[-1]
    )
    # Without a window, for there is no screen here.
    monkeypatch.setattr(lucibot.view, "VIEWER", ("--serve-grpc",))
    taken = web.server_port, mute.getsockname()[1]
    monkeypatch.setattr(lucibot.view, "PORTS", (*taken, port))
    monkeypatch.setenv("DISPLAY", ":0")
    try:
        for _ in range(2):
            assert main(["view", str(run.path)]) == 0
            assert "sent to the viewer" in capsys.readouterr().out
        assert len(opened) == 1 and opened[0].poll() is None
        with socket.socket() as s:
            assert s.connect_ex(("127.0.0.1", port)) == 0
        with socket.socket() as s:
            assert s.connect_ex(("127.0.0.2", port)) != 0
        monkeypatch.setattr(lucibot.view, "PORTS", taken)
        assert main(["view", str(run.path)]) == 2
        assert "finds no port" in capsys.readouterr().err
    finally:
        for process in opened:
            process.kill()
            process.wait()
        web.shutdown()
        web.server_close()
        mute.close()


def test_a_viewer_that_does_not_open_is_said(run, monkeypatch, capsys):
    monkeypatch.setattr(lucibot.view, "VIEWER", ("--no-such-option",))
    monkeypatch.setattr(lucibot.view, "PORTS", (1,))
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["view", str(run.path)]) == 2
    said = capsys.readouterr().err
    assert "cannot be opened" in said and "no-such-option" in said and "--save" in said
