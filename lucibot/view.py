"""`lucibot view`: a run on one time line, in rerun's viewer or as a file for it.

On the time line "simulation" everything plays together: where the replay is at a keyframe, the video is at
its frame of that keyframe, and in between in step. On "video" the video plays at its own rate; on "generation"
the search goes on; on "robot" an arm does it.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lucibot.core.arrays import read_npz
from lucibot.core.errors import UserError, resume_hint
from lucibot.core.geometry import rotvec_to_quat
from lucibot.core.scene_view import SceneView
from lucibot.objective.supervision import Supervision
from lucibot.perception.result import Perception
from lucibot.record import open_run
from lucibot.settings import Parser
from lucibot.store.finished import made_from, replay_of, stage_folder, stages_finished
from lucibot.store.rollout import Rollout
from lucibot.store.run import RunDirectory
from lucibot.store.verdicts import chosen_video
from lucibot.task import Task
from lucibot.vision.clip import read_clip

SIMULATION, VIDEO, GENERATION, ROBOT = "simulation", "video", "generation", "robot"
HOST, PORTS = "127.0.0.1", range(9876, 9886)
"""Where rerun's viewer listens, as a rule at the first."""
ASKED = "/rerun.sdk_comms.v1alpha1.MessageProxyService/ReadMessages"
"""What only a viewer answers."""
VIEWER = ("--hide-welcome-screen",)
OPENING_S = 60.0
"""A viewer is given to open."""
PICTURE_PX = 480
"""Width of the video's pictures."""
DRAWN = 12
"""Candidates of each generation, the best ones."""
ARM_COLOUR = (235, 170, 60, 255)
COLOURS = [(228, 90, 60), (60, 140, 228), (70, 180, 90), (200, 120, 210), (220, 180, 60)]


def command(argv: list[str]) -> int:
    """`lucibot view`.

    Raises:
        UserError: not a run, one of which nothing has finished, or rerun is not installed.
    """
    p = Parser(
        "lucibot view", "RUN [--save FILE.rrd]",
        "Open a run in rerun's viewer: scene, camera, video, masks, poses, candidates over generations, the "
        "replay, an arm's plans and what it did, on time lines.",
    )  # fmt: skip
    p.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    p.add_argument("--save", type=Path, metavar="FILE.rrd",
                   help="write a file in place of opening the viewer")  # fmt: skip
    a, _ = p.parse(argv)
    told = view(a["run"], save=a.get("save"))
    print(told)
    return 0


def view(run: Path, *, save: Path | None = None) -> str:
    """Show what a run has finished; returns a line that says what was shown.

    Args:
        save: a file to write (rerun's .rrd) in place of opening the viewer.

    Raises:
        UserError: see `command`.
    """
    try:
        import rerun as rr
    except ImportError:
        raise UserError("lucibot view needs rerun: pip install 'lucibot[view]'") from None
    directory, task, _, seed = open_run(run)
    done = stages_finished(directory)
    if "scene" not in done:
        raise UserError(f"{run}: nothing has finished that could be shown; {resume_hint(run)}")
    if save is not None and not save.parent.is_dir():
        raise UserError(f"--save {save}: there is no folder {save.parent}")
    if save is not None and save.is_dir():
        raise UserError(f"--save {save} is a folder; give a file's name")
    if save is None and sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):  # fmt: skip
        raise UserError(f"there is no screen here for rerun's viewer; `lucibot view {run} --save "
                        "run.rrd` writes a file for it")  # fmt: skip
    recording = rr.RecordingStream("lucibot", recording_id=f"{directory.path.name}")
    shown = _Shown(rr, recording, directory, task)
    if save is None:
        recording.connect_grpc(_viewer())
        _show(shown, done)
    else:
        part = save.with_name(f".{save.name}.part")
        try:
            part.touch()
            recording.save(str(part))
            _show(shown, done)
            recording.disconnect()
            part.replace(save)
        except OSError as e:
            raise UserError(f"--save {save}: cannot be written ({e.strerror})") from None
        finally:
            part.unlink(missing_ok=True)
    what = ", ".join(shown.parts)
    where = f"written to {save}; `rerun {save}` opens it" if save else "sent to the viewer"
    return f"{task.name}, seed {seed}: {what}; {where}"


def _viewer() -> str:
    """Where a viewer listens, to this machine alone: the first of some ports at which one does already, or at
    which nobody does, where one is opened. (rerun's own `spawn` would open one that listens to every network that
    the machine is in.)

    Raises:
        UserError: it cannot be opened.
    """
    for port in PORTS:
        if not _listens(port):
            _open_viewer(port)
        elif not _is_viewer(port):
            continue
        return f"rerun+http://{HOST}:{port}/proxy"
    raise UserError(f"rerun's viewer finds no port: other programs listen at {PORTS[0]} to {PORTS[-1]}; "
                    "--save FILE.rrd writes a file for it")  # fmt: skip


def _open_viewer(port: int) -> None:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "rerun", *VIEWER, "--bind", HOST, "--port", str(port)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
            start_new_session=True,
        )  # fmt: skip
        ends = time.monotonic() + OPENING_S
        while not _listens(port) and process.poll() is None and time.monotonic() < ends:
            time.sleep(0.1)
        if not _listens(port):
            process.kill()
            said.seek(0)
            lines = [x.strip() for x in said.read().decode(errors="replace").split("\n")]
            why = next((x for x in lines if "error" in x.lower()), "no answer")
            raise UserError(f"rerun's viewer cannot be opened ({why[:200]}); --save FILE.rrd "
                            "writes a file for it")  # fmt: skip


def _listens(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex((HOST, port)) == 0


def _is_viewer(port: int) -> bool:
    """Whether who listens there answers as rerun's viewer does, which speaks gRPC."""
    connection = http.client.HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("POST", ASKED, headers={"content-type": "application/grpc-web"})
        kind = connection.getresponse().getheader("content-type", "")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return kind.startswith("application/grpc")


def _show(shown: _Shown, done: list[str]) -> None:
    """Send what the finished stages have made, whole."""
    shown.scene()
    if "perceive" in done:
        shown.perceived()
    if "optimize" in done:
        shown.searched()
    if "execute" in done:
        shown.replayed()
        shown.plans()
    if "robot" in done:
        shown.performed()
    shown.recording.send_blueprint(_layout())
    shown.recording.flush()


def _layout() -> Any:
    """The scene beside what the camera sees and the losses; the replay's time."""
    from rerun import blueprint as rrb

    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Spatial3DView(origin="world", name="scene"),
            rrb.Vertical(
                rrb.Spatial2DView(origin="world/camera", name="video"),
                rrb.TimeSeriesView(origin="loss", name="loss (time line: generation)"),
                rrb.TimeSeriesView(origin="terms", name="terms of the best (generation)"),
            ),
            column_shares=[3, 2],
        ),
        rrb.TimePanel(timeline=SIMULATION, state="collapsed"),
        rrb.SelectionPanel(state="collapsed"), rrb.BlueprintPanel(state="collapsed"),
    )  # fmt: skip


class _Shown:
    def __init__(self, rr: Any, recording: Any, run: RunDirectory, task: Task):
        self.rr, self.recording, self.run, self.task = rr, recording, run, task
        self.parts: list[str] = []
        self._execute = self._perceive = None
        if "execute" in stages_finished(run):
            # What goes together: the replay, and what it was made from.
            self._execute = stage_folder(run, "execute")
            self._perceive = made_from(run, self._execute, "perceive")
        elif "perceive" in stages_finished(run):
            self._perceive = stage_folder(run, "perceive")

    def log(self, path: str, thing: Any, *, static: bool = False, **times: float | int) -> None:
        self.recording.reset_time()
        for line, t in times.items():
            if line == GENERATION:
                self.recording.set_time(line, sequence=t)
            else:
                self.recording.set_time(line, duration=t)
        self.recording.log(path, thing, static=static)

    def scene(self) -> None:
        rr, view = self.rr, SceneView.load(stage_folder(self.run, "scene"))
        self.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        for thing in self.task.spec.background:
            self.log(f"world/scene/{thing.name}", self._mesh(thing, (150, 150, 150)), static=True)
            self.log(
                f"world/scene/{thing.name}", self._transform(thing.T_world_object), static=True
            )
        c = view.camera
        self.log("world/camera", self._transform(c.T_world_cam), static=True)
        self.log("world/camera", rr.Pinhole(
            focal_length=[c.fx, c.fy], principal_point=[c.cx, c.cy], resolution=[c.width, c.height],
            image_plane_distance=0.1, camera_xyz=rr.ViewCoordinates.RDF,
        ), static=True)  # fmt: skip
        if self._perceive is None:
            self.log("world/camera/first_frame", self._jpeg(view.first_frame), static=True)
        self.parts.append("scene")

    def perceived(self) -> None:
        """The chosen video with masks, and poses as they were read."""
        rr, folder = self.rr, self._perceive
        video = read_clip(
            chosen_video(
                made_from(self.run, folder, "imagine"), made_from(self.run, folder, "select")
            )
        )
        found, times = Perception.load(folder), self._clocks(len(video), video.fps)
        names = [o.name for o in self.task.objects]
        classes = [(i + 1, n, COLOURS[i % len(COLOURS)]) for i, n in enumerate(names)]
        classes += [(0, "background", (0, 0, 0, 0)), (len(names) + 1, "hand", (250, 220, 190))]
        self.log("world/camera/masks", rr.AnnotationContext(classes), static=True)
        scale = min(1.0, PICTURE_PX / video.frames.shape[2])
        for t, frame in enumerate(video.frames):
            self.log("world/camera/video", self._jpeg(frame, scale), **times[t])
            labels = np.zeros(found.tracks.masks.shape[2:], np.uint8)
            for i in range(len(names)):
                labels[found.tracks.masks[t, i]] = i + 1
            labels[found.tracks.hand[t]] = len(names) + 1
            small = cv2.resize(labels, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
            self.log("world/camera/masks", rr.SegmentationImage(small, opacity=0.5), **times[t])
        for i, obj in enumerate(self.task.objects):
            if not np.isfinite(found.poses[:, i]).any():
                continue
            path, colour = f"world/read/{obj.name}", COLOURS[i % len(COLOURS)]
            self.log(path, self._mesh(obj, (*colour, 110)), static=True)
            for t, pose in enumerate(found.poses[:, i]):
                if np.isfinite(pose).all():
                    self.log(path, self._pose(pose), **times[t])
        self.parts.append("video, masks and poses")

    def searched(self) -> None:
        """The best candidates of every generation as paths through their waypoints, and the losses."""
        rr = self.rr
        optimize = (
            made_from(self.run, self._execute, "optimize")
            if self._execute else stage_folder(self.run, "optimize")
        )  # fmt: skip
        with np.load(optimize / "history.npz") as z:
            history = {n: z[n] for n in z.files}
        waypoints, loss = history.pop("waypoints"), history.pop("loss")
        failed, best = history.pop("failed"), np.inf
        for g in range(len(loss)):
            order = np.argsort(np.where(failed[g], np.inf, loss[g]), kind="stable")
            order = [i for i in order[:DRAWN] if not failed[g, i]]
            if not order:
                continue
            best = min(best, float(loss[g, order[0]]))
            for a, obj in enumerate(self.task.actuators):
                strips = [waypoints[g, i, :, a, :3] for i in order]
                greens = [(int(40 + 215 * k / DRAWN), int(220 - 160 * k / DRAWN), 90, 200)
                          for k in range(len(order))]  # fmt: skip
                lines = rr.LineStrips3D(strips, colors=greens, radii=0.0008)
                self.log(f"world/candidates/{obj.name}", lines, **{GENERATION: g})
            told = {"best_so_far": best, "best": float(loss[g, order[0]]),
                    "median": float(np.median(loss[g][~failed[g]]))}  # fmt: skip
            for name, value in told.items():
                self.log(f"loss/{name}", rr.Scalars(value), **{GENERATION: g})
            for name, values in history.items():
                value = float(values[g, order[0]])
                if np.isfinite(value):
                    self.log(f"terms/{name}", rr.Scalars(value), **{GENERATION: g})
        self.parts.append(f"{len(loss)} generations")

    def replayed(self) -> None:
        """The best trajectory as it was simulated."""
        self._moves(replay_of(self.run, self._execute), "world/replay", SIMULATION)
        self.parts.append("replay")

    def _moves(self, r: Rollout, root: str, line: str) -> None:
        """Every object of a rollout, on one time line; on others nothing of it is seen."""
        rr = self.rr
        for i, obj in enumerate(self.task.objects):
            path, colour = f"{root}/{obj.name}", COLOURS[i % len(COLOURS)]
            if obj.name in r.bodies:
                b = r.bodies.index(obj.name)
                self.log(path, self._mesh(obj, colour), **{line: float(r.times_s[0])})
                for s, t in enumerate(r.times_s):
                    place = rr.Transform3D(
                        translation=r.positions_m[s, b],
                        quaternion=rr.Quaternion(xyzw=np.roll(r.quaternions[s, b], -1)),
                    )
                    self.log(path, place, **{line: float(t)})
            for s, cloud in zip(r.particle_steps, r.particles.get(obj.name, ()), strict=False):
                points = rr.Points3D(
                    cloud, colors=colour, radii=0.5 * self.task.particle_size_m(obj)
                )
                self.log(path, points, **{line: float(r.times_s[s])})

    def performed(self) -> None:
        """What an arm did in the simulation (stage "robot"), and all else that moved with it."""
        folder = stage_folder(self.run, "robot")
        if not (folder / "rollout.npz").is_file():
            return  # There was no way for the arm.
        r = replay_of(self.run, folder)
        self._moves(r, "world/robot", ROBOT)
        world = self._arm_world(r.arm, r.arm_folder, r.T_world_base)
        if world is None:
            return
        root = f"world/robot/{r.arm}"
        for g, shape in world.own_shapes().items():
            self.log(f"{root}/{g}", self._drawn(shape, ARM_COLOUR), **{ROBOT: float(r.times_s[0])})
        for t, angles, opening in zip(r.times_s, r.arm_angles, r.arm_opening_m, strict=True):
            for g, T in world.shape_poses(angles, float(opening)).items():
                self.log(f"{root}/{g}", self._transform(T), **{ROBOT: float(t)})
        self.parts.append(f"what arm {r.arm} did")

    def plans(self) -> None:
        """Arms that were planned for this run (`lucibot robot`)."""
        for path in sorted(self.run.path.glob("robot/*/*.npz")):
            with read_npz(path) as plan:
                if "simulated_s" not in plan:
                    continue
            name = str(plan["arm"])
            world = self._arm_world(name, str(plan.get("arm_folder", "")), plan["T_world_base"],
                                    opening_m=float(plan["width_m"]))  # fmt: skip
            if world is None:
                continue
            root = f"world/arms/{name}/{path.stem}"
            begin = {SIMULATION: float(plan["simulated_s"][0])}
            for g, shape in world.own_shapes().items():
                self.log(f"{root}/{g}", self._drawn(shape, ARM_COLOUR), **begin)
            for t, angles in zip(plan["simulated_s"], plan["angles"], strict=True):
                for g, T in world.shape_poses(angles).items():
                    self.log(f"{root}/{g}", self._transform(T), **{SIMULATION: float(t)})
            self._say(f"plan of arm {name}")

    def _arm_world(self, name: str, folder: str, T_world_base: np.ndarray, **how: float) -> Any:
        """An arm where it stands, as a `CollisionWorld`; None, and said so, if it is there no more."""
        from lucibot.robot.arm import kept_arm
        from lucibot.robot.collision import CollisionWorld

        try:
            return CollisionWorld(kept_arm(name, folder), T_world_base, self.task, **how)
        except UserError as e:
            self._say(f"not the arm ({e})")
            return None

    def _say(self, part: str) -> None:
        if part not in self.parts:
            self.parts.append(part)

    def _clocks(self, frames: int, fps: float) -> list[dict[str, float]]:
        """The time of each frame of the video, on its own time line and on the simulation's."""
        own = np.arange(frames) / fps
        if self._execute is None:
            return [{VIDEO: float(t)} for t in own]
        keyframes = Supervision.load(self._perceive / "supervision.npz").keyframes
        sim = self.task.spec.simulation
        reached = (np.arange(len(keyframes)) + 1) * sim.steps_per_waypoint * sim.dt_s
        # Before the first keyframe is reached the video is at its first contact; a little before that, too.
        at = np.concatenate([[0.0], reached])
        first = max(0.0, keyframes[0] - (keyframes[1] - keyframes[0] if len(keyframes) > 1 else 1))
        in_step = np.interp(np.arange(frames), np.concatenate([[first], keyframes]), at)
        return [{VIDEO: float(t), SIMULATION: float(s)} for t, s in zip(own, in_step, strict=True)]

    def _mesh(self, thing: Any, colour: tuple[int, ...]) -> Any:
        return self._drawn(self.task.mesh(thing), colour)

    def _drawn(self, mesh: Any, colour: tuple[int, ...]) -> Any:
        return self.rr.Mesh3D(vertex_positions=mesh.vertices, triangle_indices=mesh.faces,
                              vertex_normals=mesh.vertex_normals, albedo_factor=colour)  # fmt: skip

    def _transform(self, T: np.ndarray) -> Any:
        return self.rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3])

    def _pose(self, pose: np.ndarray) -> Any:
        import torch

        q = rotvec_to_quat(torch.as_tensor(pose[3:], dtype=torch.float64)).numpy()
        return self.rr.Transform3D(
            translation=pose[:3], quaternion=self.rr.Quaternion(xyzw=np.roll(q, -1))
        )

    def _jpeg(self, picture: np.ndarray, scale: float = 1.0) -> Any:
        if scale < 1:
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        _, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]),
                               [cv2.IMWRITE_JPEG_QUALITY, 85])  # fmt: skip
        return self.rr.EncodedImage(contents=data.tobytes(), media_type="image/jpeg")
