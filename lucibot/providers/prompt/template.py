"""A prompt from a template: needs no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lucibot.core.config import Config
from lucibot.core.prompt import Prompt
from lucibot.core.scene_view import SceneView
from lucibot.providers.asking import listed, words
from lucibot.services import Services
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class TemplatePrompt(Config):
    """Fills the task's instruction and the names of its objects into a fixed text, one for each of
    the three things that a task may say of hands."""

    kind: Literal["template"] = "template"

    def create(self, services: Services | None = None) -> TemplateWriter:
        return TemplateWriter()


class TemplateWriter:
    kind = "template"

    def write(self, task: Task, view: SceneView) -> Prompt:
        moving = {o.name for o in (*task.actuators, *task.targets)}
        things = [*task.objects, *task.spec.background]
        text = words(__file__, f"template_{task.spec.hands}.txt").format(
            instruction=" ".join(task.instruction.split()),
            held=listed([o.name for o in task.actuators], "what it needs"),
            still=listed([t.name for t in things if t.name not in moving], "everything else"),
        )
        negative = words(__file__, f"negative_{task.spec.hands}.txt")
        return Prompt(text=" ".join(text.split()), negative=negative)
