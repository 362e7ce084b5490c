"""A tracker put together from a segmenter and a hand layer."""

from __future__ import annotations

import numpy as np

from lucibot.core.errors import RunFailed
from lucibot.core.progress import Progress, part, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.hand import HandConfig
from lucibot.providers.tracker.base import Segments
from lucibot.providers.tracker.config import ComposedTracker
from lucibot.task import Task
from lucibot.vision.grid import resize_mask

LEAST_AGREEMENT = 0.3
"""IoU of a segmenter's first masks with the known ones, under which it does not know the objects."""


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


def ensure_followed(view: SceneView, found: Segments, segmenter: str) -> None:
    """Where objects are at first is known: what a segmenter says of it tells whether it knows them.

    Args:
        segmenter: its name, for messages.

    Raises:
        RunFailed: it does not.
    """
    size = view.labels.shape[::-1]
    for i, name in enumerate(view.names):
        true, first = view.labels == i + 1, resize_mask(found.masks[0, i], size)
        iou = (true & first).sum() / max((true | first).sum(), 1)
        if iou < LEAST_AGREEMENT:
            raise RunFailed(
                f"the segmenter {segmenter} does not know {name!r}: in the first frame, where its mask is "
                f"known, the two agree by {iou:.0%} (IoU, at least {LEAST_AGREEMENT:.0%} is wanted); "
                "another checkpoint may, or --perceive.tracker embedded"
            )
        if len(found.lost) > 1 and found.lost[1:, i].all():
            raise RunFailed(
                f"the segmenter {segmenter} loses {name!r} after the first frame and never finds it "
                "again; another checkpoint may, or --perceive.tracker embedded"
            )
