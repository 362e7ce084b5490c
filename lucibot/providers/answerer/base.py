"""The answerer family: the questions about a video that the paper asks a VLM (section 3.3).

First the span in which the task is done, from which keyframes are chosen; then what touches at the
keyframes. What hands hold and what goes around what is measured, not asked.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lucibot.core.answers import Contacts, Span
from lucibot.core.events import Events
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.task import Task


class Answerer(Protocol):
    def span(
        self, task: Task, view: SceneView, video: Video, tracks: Tracks, events: Events
    ) -> Span:
        """From the first contact to the goal.

        Raises:
            UserError: nothing is done in this video.
        """
        ...

    def contact(
        self,
        task: Task,
        view: SceneView,
        video: Video,
        tracks: Tracks,
        events: Events,
        keyframes: np.ndarray,
    ) -> Contacts:
        """Whether `events.contact_pairs` touch at `keyframes` (K,)."""
        ...
