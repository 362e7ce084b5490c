"""Clips of both artists with what was drawn in them, drawn once and kept on disk."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import cKDTree

from lucibot.core.geometry import pose_np
from lucibot.core.progress import silent
from lucibot.core.prompt import Prompt
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video, read_video, sha256_file, write_video
from lucibot.providers.video.base import Job, VideoRequest
from lucibot.providers.video.storyboard import StoryboardVideo, read_planted
from lucibot.stages.scene import build_view
from lucibot.store.finished import stage_folder
from lucibot.store.run import RunDirectory
from lucibot.task import Task
from lucibot.vision.clip import study
from lucibot.vision.touching import contact_pairs, surface_points

from .artist import HAND, Artist, Finish
from .paths import FAULTS, Plan, make_plan, read_path

ARTISTS = ("storyboard", "second")
VERSION = 1
"""Of the second artist's clips; another one draws them anew."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    artist: str
    task: Task
    seed: int
    number: int
    """0 is the valid one; others carry a fault."""
    folder: Path
    scene: Path

    @property
    def key(self) -> str:
        return f"{self.artist}-{self.task.name}-{self.seed}-{self.number}"

    def view(self) -> SceneView:
        return SceneView.load(self.scene)

    def video(self) -> Video:
        """As those read it who judge and perceive."""
        video = read_video(self.folder / "candidate.mp4")
        return study(video, self.view())[0].applied(video)

    def drawn(self) -> dict:
        """What was drawn: `fault`, `goal` (a frame or None), `contact_pairs`, `masks` (T, N, H, W),
        `hand` (T, H, W), `poses` (T, N, 6), NaN for what has none, `contact` (T, pairs)."""
        return read_planted(self.folder / "planted", 0)


def clips(task: Task, artist: str, seed: int, *, cache: Path, run: Path, faulty: int) -> list[Clip]:
    """The valid clip and `faulty` others of one artist, drawn if they are not there yet.

    Args:
        run: a finished run directory of the task.
    """
    out = []
    for number in range(faulty + 1):
        base = cache / artist / task.name
        folder = base / f"{seed}-{number}"
        scene = (
            base / f"scene-{seed}"
            if artist == "second"
            else stage_folder(RunDirectory.open(run), "scene")
        )
        clip = Clip(artist=artist, task=task, seed=seed, number=number, folder=folder, scene=scene)
        stamp = f"{VERSION} {task.digest_of('scene', 'roles', 'storyboard')}"
        done = folder / "drawn.txt"
        if not done.is_file() or done.read_text() != stamp:
            # Beside its place first: another process may draw it at the same time.
            part = replace(clip, folder=base / f".{folder.name}.{os.getpid()}")
            part.folder.mkdir(parents=True)
            (_second if artist == "second" else _storyboard)(part, run)
            (part.folder / done.name).write_text(stamp)
            shutil.rmtree(folder, ignore_errors=True)
            part.folder.replace(folder)
        out.append(clip)
    return out


def _kind(clip: Clip) -> int:
    """Which of four faults a faulty clip has: they take turns over numbers, seeds and tasks."""
    return (clip.number - 1 + clip.seed + sum(clip.task.name.encode())) % len(FAULTS)


def _storyboard(clip: Clip, run: Path) -> None:
    """By the built-in video model, asked as the pipeline asks it."""
    view = clip.view()
    if clip.number == 0:
        config, index = StoryboardVideo(candidates=1, faulty=0), 0
    else:
        # Of four faulty ones each has another fault.
        config, index = StoryboardVideo(candidates=4, faulty=4), _kind(clip)
    first = clip.scene / "first_frame.png"
    request = VideoRequest(
        task=clip.task, view=view, scene="", first_frame=first, first_frame_sha256=sha256_file(first),
        prompt=Prompt(text="", negative=""), seed=clip.seed, index=index,
    )  # fmt: skip
    config.create().fetch(Job(id="here", request=request), clip.folder, silent)
    for path in (clip.folder / "planted").iterdir():
        path.rename(path.with_stem("candidate_0"))


def _second(clip: Clip, run: Path) -> None:
    task = clip.task
    fault = "" if clip.number == 0 else FAULTS[_kind(clip)]
    plan = make_plan(task, read_path(task, run), clip.seed, fault)
    artist = Artist(task, clip.seed, plan)
    if not (clip.scene / "view.json").is_file():
        build_view(task, artist).save(clip.scene)
    names, frames = [o.name for o in task.objects], len(plan)
    h, w = task.camera.height, task.camera.width
    video = np.empty((frames, h, w, 3), np.uint8)
    masks, hand = np.zeros((frames, len(names), h, w), bool), np.zeros((frames, h, w), bool)
    finish, warp = Finish(clip.seed, frames), plan.extra.get("camera")
    for t in range(frames):
        d = artist.frame(t)
        rgb, labels = d.rgb, d.labels
        if warp is not None:
            rgb = cv2.warpAffine(rgb, warp[t], (w, h), borderMode=cv2.BORDER_REPLICATE)
            labels = cv2.warpAffine(labels, warp[t], (w, h), flags=cv2.INTER_NEAREST)
        video[t] = finish(rgb, t)
        masks[t] = labels == np.arange(1, len(names) + 1)[:, None, None]
        hand[t] = labels == HAND
    write_video(clip.folder / "candidate.mp4", Video(frames=video, fps=plan.fps), crf=21)
    pairs = contact_pairs(task)
    poses = np.full((frames, len(names), 6), np.nan, np.float32)
    for i, n in enumerate(names):
        if n in plan.poses:
            poses[:, i] = pose_np(plan.poses[n])
    folder = clip.folder / "planted"
    folder.mkdir()
    np.savez_compressed(
        folder / "candidate_0.npz",
        masks=np.packbits(masks.reshape(*masks.shape[:2], -1), axis=-1),
        mask_shape=np.array(masks.shape), hand=np.packbits(hand.reshape(frames, -1), axis=-1),
        poses=poses, scale=np.stack([plan.scale[n] for n in names], 1),
        contact=touching(task, plan, pairs),
    )  # fmt: skip
    meta = {
        "fault": fault, "goal": plan.goal, "contact_pairs": [list(p) for p in pairs], "fps": plan.fps,
        "names": names,
    }  # fmt: skip
    (folder / "candidate_0.json").write_text(json.dumps(meta, indent=1))


def touching(task: Task, plan: Plan, pairs) -> np.ndarray:
    """(T, pairs) bool: which surfaces come within the task's `contact_m`, by the measure of the
    simulation: points on meshes, and half a particle's size around particles."""
    surfaces = {n: surface_points(task, task.object(n)) for n in plan.poses}

    def cloud(name: str, t: int) -> np.ndarray:
        if name in plan.clouds:
            return plan.clouds[name][t]
        T = plan.poses[name][t]
        return surfaces[name] @ T[:3, :3].T + T[:3, 3]

    def outside(name: str) -> float:
        return 0.5 * task.object(name).material.particle_size_m if name in plan.clouds else 0.0

    out = np.zeros((len(plan), len(pairs)), bool)
    for k, (a, b) in enumerate(pairs):
        reach = task.spec.contact_m + outside(a) + outside(b)
        for t in range(len(plan)):
            near = cKDTree(cloud(b, t)).query(cloud(a, t), distance_upper_bound=reach)[0]
            out[t, k] = np.isfinite(near).any()
    return out
