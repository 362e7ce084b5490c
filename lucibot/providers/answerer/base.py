"""The answerer family: the questions about a video that the paper asks a VLM (section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.providers.tracker.base import Tracks
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class Answers:
    first_contact: int
    """Frame where a hand first interacts with an object."""
    goal: int
    """Frame where the goal is achieved and, if that ever happens, hand and tool are out of the way."""
    held: np.ndarray
    """(T, A) bool: a hand holds (moves or has not yet released) the actuator."""
    contact_pairs: tuple[tuple[str, str], ...]
    """(object, target) pairs."""
    contact: np.ndarray
    """(T, pairs) bool: the two touch in this frame."""
    reasons: dict[str, str]
    """What each answer rests on, one sentence each."""


class Answerer(Protocol):
    def answer(self, task: Task, view: SceneView, video: Video, tracks: Tracks,
               poses: np.ndarray, depth_of) -> Answers:  # fmt: skip
        """`poses` (T, N, 6) refined pose vectors (NaN for deformables); `depth_of(frames)` gives
        depth images (F, H, W) [m]."""
        ...
