"""A tracker put together from a segmenter and a hand layer."""

from __future__ import annotations

import numpy as np

from lucibot.core.progress import Progress, part, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.hand import HandConfig
from lucibot.providers.tracker.config import ComposedTracker
from lucibot.providers.tracker.known import ensure_followed
from lucibot.task import Task


class TrackBySegments:
    def __init__(self, config: ComposedTracker, hand: HandConfig | None = None):
        """
        Raises:
            UserError: what the segmenter or the hand layer needs is not there.
        """
        self._segmenter = config.segmenter.create()
        self._hand_layer = config.hand_layer.create(hand)
        self._name = config.segmenter.kind

    def track(
        self, task: Task, view: SceneView, video: Video, *, progress: Progress = silent
    ) -> Tracks:
        """Masks of the segmenter without what the hand layer covers; no poses.

        Raises:
            RunFailed: the segmenter does not see the objects where they are known to be, or never
                sees one of them after that.
        """
        found = self._segmenter.segment(task, view, video, progress=part(progress, 0.0, 0.5))
        ensure_followed(view, found, self._name)
        hand = self._hand_layer.hand_layer(task, view, video, progress=part(progress, 0.5, 1.0))
        frames, count = found.lost.shape
        return Tracks(
            masks=found.masks & ~hand[:, None], hand=hand, confidence=found.confidence,
            lost=found.lost, poses=np.full((frames, count, 6), np.nan, np.float32),
        )  # fmt: skip
