"""The answerer family: the questions about a video that the paper asks a VLM (section 3.3)."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lucibot.core.answers import Answers
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.task import Task


class Answerer(Protocol):
    def answer(self, task: Task, view: SceneView, video: Video, tracks: Tracks,
               poses: np.ndarray, depth_of) -> Answers:  # fmt: skip
        """`poses` (T, N, 6) refined pose vectors (NaN for deformables); `depth_of(frames)` gives
        depth images (F, H, W) [m]."""
        ...
