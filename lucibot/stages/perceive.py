"""perceive: from a video's pixels to `Supervision` (paper, sections 3.3 and 3.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from lucibot.config import PerceiveConfig
from lucibot.core.answers import Answers
from lucibot.core.progress import Progress, part
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video, sha256_file, sha256_of
from lucibot.perception.affordance import frames_read, read_affordance
from lucibot.perception.around import read_around
from lucibot.perception.depth import KeptDepth
from lucibot.perception.events import held_reasons, read_events
from lucibot.perception.grasp import find_grasps, joined_path, without_hands
from lucibot.perception.keyframes import follow_path, sample_keyframes
from lucibot.perception.poses import refine_poses
from lucibot.perception.result import Perception
from lucibot.perception.supervise import build_supervision
from lucibot.pipeline import Context, version_of
from lucibot.providers.answerer.base import Answerer
from lucibot.providers.depth.base import DepthModel
from lucibot.providers.depth.replay import read_depth, write_depth
from lucibot.providers.hand import default_hand
from lucibot.providers.hand.base import Hand, HandDetector
from lucibot.providers.hand.replay import write_hands
from lucibot.providers.tracker.replay import packed, unpacked
from lucibot.services import Services
from lucibot.store.configs import settled
from lucibot.store.kept import KEPT, KeptFiles, linked
from lucibot.store.run import StageFolder
from lucibot.store.verdicts import chosen_video
from lucibot.task import Task
from lucibot.vision.clip import read_clip, reading_of
from lucibot.vision.draw import fit_camera

WANTED = {"optional": "optional", "none": "not wanted"}
"""What a task may say of hands, in words; where they are expected, none is a fault of the video."""


def run(ctx: Context) -> None:
    """Reads the chosen video; writes what `Perception.save` does."""
    view = SceneView.load(ctx.inputs["scene"])
    chosen = chosen_video(ctx.inputs["imagine"], ctx.inputs["select"])
    video = read_clip(chosen)
    readings = Readings.of(ctx, chosen)
    found = perceive(ctx.task, view, video, ctx.config, ctx.progress, ctx.services, readings)
    for text in (*found.answers.notes, *found.answers.disputes(video.fps)):
        ctx.note(text)
    if without_hands(ctx.task, found.tracks):
        ctx.note(
            f"no hand is seen, and the task says that hands are {WANTED[ctx.task.spec.hands]}: the "
            "first motion stands for the first contact, and where to take hold is left to geometry"
        )
    found.save(ctx.folder)
    # What a model took long for can be replayed.
    if readings.depth_file is not None:
        linked(readings.depth_file, ctx.folder / "depth.npz")
    write_hands(ctx.folder / "hands.npz", video.frames[found.hands_at], found.hands)


class Readings:
    """What models take long for, kept in the run: if something that comes later fails, or is to be done
    otherwise, it is read again."""

    def __init__(self, files: KeptFiles, rests_on: list):
        """`rests_on`: which video of which scene and task, json-ready."""
        self._files, self._rests_on = files, rests_on
        self.depth_file: Path | None = None
        """Where depth was measured."""

    @classmethod
    def of(cls, ctx: Context, video: Path) -> Readings:
        reading, scene = reading_of(video), ctx.inputs["scene"]
        read = [video, *([reading] if reading.is_file() else [])]
        return cls(
            KeptFiles(ctx.run.path / KEPT, ctx.note),
            [version_of("perceive"), [sha256_file(f) for f in read],
             StageFolder(scene, scene.name).digest(), ctx.task.digest_of("scene", "roles", "hands")],
        )  # fmt: skip

    def tracks(self, config: PerceiveConfig, make: Callable[[], Tracks]) -> Tracks:
        path = self._files.of(
            "tracks.npz", self._by(config.tracker, config.hand),
            lambda path: np.savez_compressed(path, **packed(make())),
        )  # fmt: skip
        with np.load(path) as z:
            return unpacked({n: z[n] for n in z.files})

    def depth(
        self, config: PerceiveConfig, video: Video, background_m: np.ndarray,
        make: Callable[[], np.ndarray],
    ) -> np.ndarray:  # fmt: skip
        self.depth_file = self._files.of(
            "depth.npz", self._by(config.tracker, config.hand, config.depth, config.seed),
            lambda path: write_depth(path, video, make(), background_m),
        )  # fmt: skip
        return read_depth(self.depth_file)

    def _by(self, *configs) -> list:
        return [*self._rests_on, *(settled(c, sha256_of) for c in configs)]


def perceive(
    task: Task, view: SceneView, video: Video, config: PerceiveConfig, progress: Progress,
    services: Services | None = None, readings: Readings | None = None,
) -> Perception:  # fmt: skip
    """Reads everything that the search needs from `video`, given the known first moment.

    Args:
        services: for members that ask others.
        readings: where tracks and depth are kept, if anywhere.

    Raises:
        UserError: a model lacks what it needs; told before the first of them begins.
        RunFailed: a model did not find what it is there for.
    """
    tracker = config.tracker.create(config.hand)
    models = Models.of(config, services)

    def track() -> Tracks:
        return tracker.track(task, view, video, progress=part(progress, 0, 0.7))

    tracks = track() if readings is None else readings.tracks(config, track)
    if task.spec.hands == "none":
        # What looks like one, a wooden spoon, is none.
        tracks = replace(tracks, hand=np.zeros_like(tracks.hand))
    if video.unseen is not None:
        tracks = replace(
            tracks, masks=tracks.masks & ~video.unseen[:, None], hand=tracks.hand & ~video.unseen,
            unseen=video.unseen,
        )  # fmt: skip
    return read_tracks(task, view, video, tracks, config, part(progress, 0.7, 1), models, readings)


@dataclass(frozen=True, kw_only=True)
class Models:
    """What is asked after the tracker; made before it, so that what they lack is told at once."""

    depth: DepthModel
    hands: HandDetector
    answerer: Answerer

    @classmethod
    def of(cls, config: PerceiveConfig, services: Services | None = None) -> Models:
        return cls(
            depth=config.depth.create(), hands=(config.hand or default_hand()).create(),
            answerer=config.answerer.create(services),
        )  # fmt: skip


def read_tracks(
    task: Task, view: SceneView, video: Video, tracks: Tracks, config: PerceiveConfig,
    progress: Progress, models: Models | None = None, readings: Readings | None = None,
) -> Perception:  # fmt: skip
    """All of perception after the tracker."""
    told = tracks
    models = models or Models.of(config)
    depth_model, answerer = models.depth, models.answerer
    every = measured = None
    if not depth_model.rests_on_poses:
        progress("estimating depth", 0.0)

        def estimate() -> np.ndarray:
            return KeptDepth(
                depth_model, task, view, video, tracks, seed=config.seed,
                progress=part(progress, 0.0, 0.05),
            )(np.arange(len(video)))  # fmt: skip

        every = (
            estimate() if readings is None
            else readings.depth(config, video, view.background_depth_m, estimate)
        )  # fmt: skip
        depth_of = every.__getitem__
        measured = _on_grid(every, fit_camera(view.camera, config.poses.width))
    found = refine_poses(
        task, view, tracks, video.fps, config.poses, depth_m=measured, seed=config.seed,
        progress=part(progress, 0.05, 0.7),
    )  # fmt: skip
    tracks = replace(
        tracks, poses=found.poses, confidence=np.minimum(found.confidence, tracks.confidence),
        lost=found.lost,
    )  # fmt: skip

    if depth_model.rests_on_poses:
        depth_of = KeptDepth(depth_model, task, view, video, tracks, seed=config.seed)
    progress("asking what happens when", 0.7)
    events = read_events(task, view, tracks, found.poses, video.fps, depth_of, config.events)
    span = answerer.span(task, view, video, tracks, events)
    area_m = config.affordance.area_m
    grasps = {
        o.name: find_grasps(task, view, tracks, o, events.held[:, a], depth_of, area_m)
        for a, o in enumerate(task.actuators) if not o.is_rigid
    }  # fmt: skip
    poses = found.poses.copy()
    for name, holds in grasps.items():
        path = joined_path(holds, len(poses)) if holds else _left_alone(task, name)
        poses[:, task.label(name) - 1] = path
    actuators = [task.label(o.name) - 1 for o in task.actuators]
    quality = tracks.confidence[:, actuators].min(1)
    keyframes = sample_keyframes(
        span.first_contact, span.goal, events.held, quality, video.fps, config.keyframes
    )
    keyframes = follow_path(
        keyframes, span.first_contact, poses[:, actuators, :3], events.held,
        events.contact.any(1), config.keyframes,
    )  # fmt: skip
    contacts = answerer.contact(task, view, video, tracks, events, keyframes)
    around_pairs, around, why_around = read_around(task, view, tracks, span.goal)
    answers = Answers.joined(
        span, contacts, held_reasons(task, events) | why_around, contact_pairs=events.contact_pairs,
        around_pairs=around_pairs, around=around,
    )  # fmt: skip
    progress("looking for finger tips", 0.85)
    hands: list[list[Hand]] = [[] for _ in video.frames]
    at = frames_read(events.held, keyframes, video.fps, config.affordance)
    found_hands = models.hands.detect(
        video.frames[at],
        hand_layer=tracks.hand[at],
        contact_masks=tracks.masks[at][:, actuators],
    )
    for t, found_here in zip(at, found_hands, strict=True):
        hands[t] = found_here
    grid = fit_camera(view.camera, config.supervise.width)
    affordance = read_affordance(
        task, view, tracks, hands, events.held, grasps, keyframes, video.fps, config.affordance,
        size=(grid.width, grid.height), seed=config.seed,
    )  # fmt: skip
    progress("writing supervision", 0.95)
    depth = depth_of(keyframes)
    supervision = build_supervision(
        task, view, video, tracks, poses, tracks.confidence, events, answers, keyframes, depth,
        affordance, config.supervise,
    )  # fmt: skip
    return Perception(
        tracks=tracks, scale=found.scale, fit=found.iou, events=events, answers=answers,
        depth_m=depth, supervision=supervision, hands_at=np.asarray(at),
        hands=found_hands, told=told, video_sha256=video.sha256(),
    )  # fmt: skip


def _left_alone(task: Task, name: str) -> np.ndarray:
    """(6,) pose vector of the grasped place of a deformable that nobody grasps: its own origin."""
    return np.array([*task.object(name).position_m, 0.0, 0.0, 0.0])


def _on_grid(depth: np.ndarray, camera) -> np.ndarray:
    size = (camera.width, camera.height)
    small = [cv2.resize(d, size, interpolation=cv2.INTER_NEAREST) for d in depth]
    return np.nan_to_num(np.stack(small), nan=0.0)
