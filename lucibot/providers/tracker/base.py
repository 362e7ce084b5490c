"""The tracker family: where every foreground object is in every frame (paper, section 3.3).

A tracker may read objects and hands from one look at each pixel, as the embedded one does, or be put
together from a segmenter, which knows no hands and no poses, and a hand layer. Poses that a tracker
gives are where the refinement of poses starts; without them it goes from frame to frame by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lucibot.core.progress import Progress
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Masks of N foreground objects (task order) over T frames."""

    masks: np.ndarray
    """(T, N, H, W) bool, visible pixels, of the video's size."""
    confidence: np.ndarray
    """(T, N) float32 in [0, 1]."""
    lost: np.ndarray
    """(T, N) bool: the mask of this frame must not be used."""


class Tracker(Protocol):
    def track(self, task: Task, view: SceneView, video: Video, *, progress: Progress) -> Tracks: ...


class Segmenter(Protocol):
    def segment(self, task: Task, view: SceneView, video: Video, *, progress: Progress) -> Segments:
        """Follow the objects of `view.labels`, which shows them in the first frame."""
        ...


class HandLayer(Protocol):
    def hand_layer(
        self, task: Task, view: SceneView, video: Video, *, progress: Progress
    ) -> np.ndarray:
        """(T, H, W) bool: hands and arms, of the video's size."""
        ...


class TrackerAndHandLayer(Tracker, HandLayer, Protocol):
    """A tracker whose hand layer can be had alone."""
