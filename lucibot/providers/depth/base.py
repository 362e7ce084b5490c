"""The depth family: depth of every frame under known background depth (paper, section 3.3)."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.task import Task


class DepthModel(Protocol):
    rests_on_poses: bool
    """Whether objects' depth follows from their poses, so that it cannot teach anything about them.
    A model that measures is asked before poses are refined, of every frame, and not again."""
    batch: int
    """Frames that it is given at once, at most; 0: all, and it minds its memory itself."""

    def estimate(
        self,
        task: Task,
        view: SceneView,
        video: Video,
        tracks: Tracks,
        frames: np.ndarray,
        *,
        seed: int,
        progress: Progress = silent,
    ) -> np.ndarray:
        """Depth (F, H, W) float32 [m] of the chosen frame indices `frames` (F,), along the optical
        axis.

        Background pixels carry the known background depth exactly.

        Args:
            seed: of what is sampled; a member that samples nothing does not use it.
        """
        ...
