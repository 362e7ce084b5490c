"""A video from a file: anything that PyAV decodes (paper, section 3.2, an external video model)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from lucibot.core.camera import Camera
from lucibot.core.errors import UserError
from lucibot.core.progress import Progress
from lucibot.core.scene_view import SceneView
from lucibot.core.similarity import scene_similarity
from lucibot.core.video import Video, read_video, write_video
from lucibot.task import Task

SHORTEST_S = 0.5
ASPECT_TOLERANCE = 0.01
"""Relative difference of the aspect ratios up to which a frame is resized without bars."""


@dataclass(frozen=True, kw_only=True)
class FileVideo:
    """Takes one video file as the only candidate."""

    kind: Literal["file"] = "file"
    path: Path
    """Anything that PyAV decodes; its first frame must show the task's scene."""
    least_similarity: float = 0.55
    """Least similarity in [-1, 1] of each object's surroundings in the video's first frame to the
    scene's: other scenes stay below 0.55 in at least one object, mostly far below; the same scene
    in another style and crop gives 0.6 and more."""

    def create(self) -> FileVideoModel:
        return FileVideoModel(self)


class FileVideoModel:
    kind = "file"

    def __init__(self, config: FileVideo):
        self.config = config

    def imagine(
        self, task: Task, view: SceneView, *, seed: int, out_dir: Path, progress: Progress
    ) -> list[Path]:
        """Resize, pad, resample and check the file; `seed` is not used, nothing here is random.

        Raises:
            UserError: it cannot be decoded, has no video stream, is too short, or starts with
                another scene.
        """
        path = Path(self.config.path)
        progress(f"reading {path.name}", 0.0)
        video = read_video(path, transform=lambda rgb: fit_to_camera(rgb, task.camera))
        if video.duration_s < SHORTEST_S:
            raise UserError(
                f"{path} lasts {video.duration_s:.2f} s; a task needs at least {SHORTEST_S} s"
            )
        similarity = scene_similarity(video.frames[0], view)
        worst = min(similarity, key=similarity.get)
        if similarity[worst] < self.config.least_similarity:
            raise UserError(
                f"{path} does not start with the scene of {task.name!r}: no {worst!r} is seen "
                f"where it should be (similarity {similarity[worst]:.2f}, at least "
                f"{self.config.least_similarity:.2f} is needed)"
            )
        video = resample(video, task.spec.camera.fps)
        progress(f"writing {len(video)} frames", 0.7)
        out = out_dir / "candidate_0.mp4"
        write_video(out, video, crf=14)
        progress("video read", 1.0)
        return [out]


def fit_to_camera(rgb: np.ndarray, camera: Camera) -> np.ndarray:
    """A frame (h, w, 3) uint8 on the camera's grid: resized, with black bars where the aspect
    differs by more than one percent."""
    h, w = rgb.shape[:2]
    aspect, wanted = w / h, camera.width / camera.height
    size = np.array([camera.width, camera.height])
    if abs(aspect / wanted - 1) > ASPECT_TOLERANCE:
        scale = min(camera.width / w, camera.height / h)
        size = np.maximum(np.round(np.array([w, h]) * scale).astype(int), 1)
    shrinks = size[0] < w
    small = cv2.resize(
        rgb, tuple(int(s) for s in size),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC,
    )  # fmt: skip
    out = np.zeros((camera.height, camera.width, 3), np.uint8)
    y, x = (camera.height - small.shape[0]) // 2, (camera.width - small.shape[1]) // 2
    out[y : y + small.shape[0], x : x + small.shape[1]] = small
    return out


def resample(video: Video, fps: float) -> Video:
    """The same duration at another frame rate; each frame is the one shown at its time."""
    if abs(video.fps / fps - 1) < 1e-3:
        return Video(frames=video.frames, fps=fps)
    count = max(round(video.duration_s * fps), 1)
    shown = np.floor((np.arange(count) + 0.5) / fps * video.fps).astype(int)
    return Video(frames=video.frames[np.clip(shown, 0, len(video) - 1)], fps=fps)
