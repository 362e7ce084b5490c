"""The tracker family: where every foreground object is in every frame (paper, section 3.3)."""

from __future__ import annotations

from typing import Protocol

from lucibot.core.progress import Progress
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.task import Task


class Tracker(Protocol):
    def track(self, task: Task, view: SceneView, video: Video, *, progress: Progress) -> Tracks: ...
