"""The prompt family: from an instruction and the first frame to what a video model is told (paper,
section 3.2). The words of each call site lie beside it in a file of their own."""

from __future__ import annotations

from typing import Protocol

from lucibot.core.prompt import Prompt
from lucibot.core.scene_view import SceneView
from lucibot.task import Task


class PromptWriter(Protocol):
    kind: str

    def write(self, task: Task, view: SceneView) -> Prompt:
        """A detailed prompt: a static camera, the hand and what it takes, or that no hand is seen
        where the task says so, what must stay, and a negative prompt."""
        ...
