"""Depth of a video's frames, each estimated once and kept for whoever asks next."""

from __future__ import annotations

import numpy as np

from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.depth.base import DepthModel
from lucibot.task import Task


class KeptDepth:
    """Depth (F, H, W) float32 [m] of frames (F,), see `DepthModel`.

    Args:
        tracks: what the model is told of objects and hands; for a model that rests on poses the
            refined ones.
        seed: of a model that samples.
    """

    def __init__(
        self, model: DepthModel, task: Task, view: SceneView, video: Video, tracks: Tracks, *,
        seed: int, progress: Progress = silent,
    ):  # fmt: skip
        self._model, self._of, self._seed = model, (task, view, video, tracks), seed
        self._progress = progress
        self._kept: dict[int, np.ndarray] = {}

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        wanted = [int(t) for t in frames]
        missing = [t for t in dict.fromkeys(wanted) if t not in self._kept]
        batch = self._model.batch or max(len(missing), 1)
        for first in range(0, len(missing), batch):
            part = missing[first : first + batch]
            found = self._model.estimate(
                *self._of, np.array(part), seed=self._seed, progress=self._progress
            )
            self._kept.update(zip(part, found, strict=True))
        return np.stack([self._kept[t] for t in wanted])
