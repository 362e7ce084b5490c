"""perceive: from a video's pixels to `Supervision` (paper, sections 3.3 and 3.4)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.progress import Progress
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.objective.supervision import Supervision
from lucibot.perception.affordance import affordance_points
from lucibot.perception.draw import fit_camera
from lucibot.perception.keyframes import KeyframeConfig, sample_keyframes
from lucibot.perception.poses import refine_poses
from lucibot.perception.problem import PoseConfig
from lucibot.perception.supervise import SuperviseConfig, build_supervision
from lucibot.providers.answerer import AnswererConfig, PixelAnswerer
from lucibot.providers.answerer.base import Answers
from lucibot.providers.depth import DepthConfig, FillDepth
from lucibot.providers.hand import HandConfig
from lucibot.providers.tracker import EmbeddedTracker, TrackerConfig
from lucibot.providers.tracker.base import Tracks
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class PerceiveConfig:
    """Who sees what, and how finely."""

    tracker: TrackerConfig = field(default_factory=EmbeddedTracker)
    poses: PoseConfig = field(default_factory=PoseConfig)
    depth: DepthConfig = field(default_factory=FillDepth)
    hand: HandConfig = field(default_factory=HandConfig)
    answerer: AnswererConfig = field(default_factory=PixelAnswerer)
    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)
    supervise: SuperviseConfig = field(default_factory=SuperviseConfig)
    seed: int = 0
    """Seed of samples drawn while fitting poses and of the choice of cloud points."""


@dataclass(frozen=True, kw_only=True)
class Perception:
    """All that was read from one video."""

    tracks: Tracks
    """Masks and hands; its poses are the refined ones."""
    scale: np.ndarray
    """(T, N) float32 apparent size of each object against its mesh."""
    fit: np.ndarray
    """(T, N) float32 IoU of the drawn pose with the mask, where it can be judged."""
    answers: Answers
    depth_m: np.ndarray
    """(K, H, W) float32 [m] at the keyframes, NaN where a hand is."""
    supervision: Supervision

    @property
    def poses(self) -> np.ndarray:
        """(T, N, 6) float32 object pose vectors; NaN for deformables."""
        return self.tracks.poses

    @property
    def confidence(self) -> np.ndarray:
        """(T, N) float32 in [0, 1]."""
        return self.tracks.confidence

    @property
    def lost(self) -> np.ndarray:
        """(T, N) bool."""
        return self.tracks.lost

    def save(self, folder: Path) -> None:
        """Writes `supervision.npz`, `tracks.npz`, `answers.json` and a depth picture a keyframe."""
        folder.mkdir(parents=True, exist_ok=True)
        self.supervision.save(folder / "supervision.npz")
        t, a = self.tracks, self.answers
        np.savez_compressed(
            folder / "tracks.npz", shape=np.array(t.masks.shape), masks=np.packbits(t.masks),
            hand=np.packbits(t.hand), confidence=t.confidence, lost=t.lost, poses=t.poses,
            scale=self.scale, fit=self.fit, held=a.held, contact=a.contact,
        )  # fmt: skip
        meta = {
            "first_contact": a.first_contact, "goal": a.goal, "contact_pairs": a.contact_pairs,
            "reasons": a.reasons, "keyframes": self.supervision.keyframes.tolist(),
        }  # fmt: skip
        (folder / "answers.json").write_text(json.dumps(meta, indent=1))
        for k, depth in enumerate(self.depth_m):
            # Tenths of a millimetre in 16 bits; 0 is unknown.
            tenths = np.nan_to_num(np.clip(depth * 1e4, 0, 65535), nan=0.0)
            cv2.imwrite(str(folder / f"depth_{k:02d}.png"), tenths.round().astype(np.uint16))

    @classmethod
    def load(cls, folder: Path) -> Perception:
        meta = json.loads((folder / "answers.json").read_text())
        with np.load(folder / "tracks.npz") as z:
            data = {k: z[k] for k in z.files}
        t, n, h, w = data["shape"]
        masks = np.unpackbits(data["masks"], count=t * n * h * w).astype(bool).reshape(t, n, h, w)
        hand = np.unpackbits(data["hand"], count=t * h * w).astype(bool).reshape(t, h, w)
        pictures = [
            cv2.imread(str(folder / f"depth_{k:02d}.png"), cv2.IMREAD_UNCHANGED)
            for k in range(len(meta["keyframes"]))
        ]
        depth = np.stack(pictures).astype(np.float32) / 1e4
        return cls(
            tracks=Tracks(
                masks=masks, hand=hand, confidence=data["confidence"], lost=data["lost"],
                poses=data["poses"],
            ),
            scale=data["scale"], fit=data["fit"],
            answers=Answers(
                first_contact=meta["first_contact"], goal=meta["goal"], held=data["held"],
                contact_pairs=tuple(tuple(p) for p in meta["contact_pairs"]),
                contact=data["contact"], reasons=meta["reasons"],
            ),
            depth_m=np.where(depth > 0, depth, np.nan),
            supervision=Supervision.load(folder / "supervision.npz"),
        )  # fmt: skip


def perceive(
    task: Task, view: SceneView, video: Video, config: PerceiveConfig, progress: Progress
) -> Perception:
    """Reads everything that the search needs from `video`, given the known first moment."""
    tracks = config.tracker.create().track(task, view, video, progress=_part(progress, 0, 0.7))
    return read_tracks(task, view, video, tracks, config, _part(progress, 0.7, 1))


def read_tracks(
    task: Task, view: SceneView, video: Video, tracks: Tracks, config: PerceiveConfig,
    progress: Progress,
) -> Perception:  # fmt: skip
    """All of perception after the tracker."""
    depth_model = config.depth.create()
    measured = None
    if getattr(depth_model, "measures_objects", True):
        progress("estimating depth", 0.0)
        everything = depth_model.estimate(task, view, video, tracks, np.arange(len(video)))
        measured = _on_grid(everything, fit_camera(view.camera, config.poses.width))
    found = refine_poses(
        task, view, tracks, video.fps, config.poses, depth_m=measured, seed=config.seed,
        progress=_part(progress, 0.05, 0.7),
    )  # fmt: skip
    tracks = replace(
        tracks, poses=found.poses, confidence=np.minimum(found.confidence, tracks.confidence),
        lost=found.lost,
    )  # fmt: skip

    def depth_of(frames: np.ndarray) -> np.ndarray:
        return depth_model.estimate(task, view, video, tracks, frames)

    progress("asking what happens when", 0.7)
    answers = config.answerer.create().answer(task, view, video, tracks, found.poses, depth_of)
    actuators = [task.label(o.name) - 1 for o in task.actuators]
    quality = tracks.confidence[:, actuators].min(1)
    keyframes = sample_keyframes(
        answers.first_contact, answers.goal, answers.held, quality, video.fps, config.keyframes
    )
    progress("looking for finger tips", 0.85)
    touched = first_held(task, answers)
    affordance = affordance_points(
        task, view, video, tracks, found.poses, config.hand.create(), touched,
        answers.first_contact, count=config.supervise.affordance_points, seed=config.seed,
    )  # fmt: skip
    progress("writing supervision", 0.95)
    depth = depth_of(keyframes)
    supervision = build_supervision(
        task, view, tracks, found.poses, tracks.confidence, answers, keyframes, depth, affordance,
        touched, config.supervise, seed=config.seed,
    )  # fmt: skip
    return Perception(
        tracks=tracks, scale=found.scale, fit=found.iou, answers=answers, depth_m=depth,
        supervision=supervision,
    )  # fmt: skip


def first_held(task: Task, answers: Answers) -> str:
    """The first actuator that a hand takes; the first of the task if none is ever held."""
    starts = [int(np.argmax(h)) if h.any() else len(h) for h in answers.held.T]
    return task.actuators[int(np.argmin(starts))].name if starts else ""


def _on_grid(depth: np.ndarray, camera) -> np.ndarray:
    size = (camera.width, camera.height)
    small = [cv2.resize(d, size, interpolation=cv2.INTER_NEAREST) for d in depth]
    return np.nan_to_num(np.stack(small), nan=0.0)


def _part(progress: Progress, start: float, end: float) -> Progress:
    """The stretch of the bar that one step of the stage may fill."""

    def say(message: str, done: float | None = None) -> None:
        progress(message, None if done is None else start + (end - start) * done)

    return say
