"""The video family: what imagines the task being done (paper, section 3.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lucibot.core.progress import Progress
from lucibot.core.scene_view import SceneView
from lucibot.task import Task


class VideoModel(Protocol):
    kind: str

    def imagine(
        self, task: Task, view: SceneView, *, seed: int, out_dir: Path, progress: Progress
    ) -> list[Path]:
        """Write candidate videos `out_dir/candidate_<i>.mp4` and return their paths in order.

        Every candidate has the task camera's size and frame rate and starts with (something like)
        `view.first_frame`.
        """
        ...
