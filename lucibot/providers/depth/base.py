"""The depth family: depth of every frame under known background depth (paper, section 3.3)."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.task import Task


class DepthModel(Protocol):
    def estimate(
        self, task: Task, view: SceneView, video: Video, tracks: Tracks, frames: np.ndarray
    ) -> np.ndarray:
        """Depth (F, H, W) float32 [m] of the chosen frame indices `frames` (F,).

        Background pixels carry the known background depth exactly.
        """
        ...
