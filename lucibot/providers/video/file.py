"""A video from a file: anything that PyAV decodes (paper, section 3.2, an external video model)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lucibot.core.progress import Progress
from lucibot.core.scene_view import SceneView
from lucibot.core.video import write_video
from lucibot.task import Task
from lucibot.vision.intake import IntakeConfig, take_in


@dataclass(frozen=True, kw_only=True)
class FileVideo:
    """Takes one video file as the only candidate."""

    kind: Literal["file"] = "file"
    path: Path
    """Anything that PyAV decodes; it must start with the task's scene."""
    intake: IntakeConfig = field(default_factory=IntakeConfig)
    """What the file may be like."""

    def create(self) -> FileVideoModel:
        return FileVideoModel(self)


class FileVideoModel:
    kind = "file"

    def __init__(self, config: FileVideo):
        self.config = config

    def imagine(
        self, task: Task, view: SceneView, *, seed: int, out_dir: Path, progress: Progress
    ) -> list[Path]:
        """Fit the file to the task and write what was done beside it, `candidate_0.intake.json`;
        `seed` is not used, nothing here is random.

        Raises:
            UserError: what `take_in` refuses.
        """
        video, report = take_in(self.config.path, task, view, self.config.intake, progress=progress)
        out = out_dir / "candidate_0.mp4"
        write_video(out, video, crf=14)
        text = json.dumps(report.to_dict(), indent=1)
        out.with_suffix(".intake.json").write_text(text + "\n")
        return [out]
