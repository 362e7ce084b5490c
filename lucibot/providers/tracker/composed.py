"""A tracker put together from a segmenter and a hand layer."""

from __future__ import annotations

import numpy as np

from lucibot.core.progress import Progress, part, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.hand import HandConfig
from lucibot.providers.tracker.config import ComposedTracker
from lucibot.task import Task


class TrackBySegments:
    def __init__(self, config: ComposedTracker, hand: HandConfig | None = None):
        self.config, self.hand = config, hand

    def track(
        self, task: Task, view: SceneView, video: Video, *, progress: Progress = silent
    ) -> Tracks:
        """Masks of the segmenter without what the hand layer covers; no poses."""
        found = self.config.segmenter.create().segment(
            task, view, video, progress=part(progress, 0.0, 0.5)
        )
        hand = self.config.hand_layer.create(self.hand).hand_layer(
            task, view, video, progress=part(progress, 0.5, 1.0)
        )
        frames, count = found.lost.shape
        return Tracks(
            masks=found.masks & ~hand[:, None], hand=hand, confidence=found.confidence,
            lost=found.lost, poses=np.full((frames, count, 6), np.nan, np.float32),
        )  # fmt: skip
