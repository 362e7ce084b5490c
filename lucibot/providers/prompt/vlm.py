"""A prompt by a vision-language model that sees the first frame (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from lucibot.core.config import Config
from lucibot.core.prompt import Prompt
from lucibot.core.scene_view import SceneView
from lucibot.providers.asking import Text, told, words
from lucibot.services import ASKS_A_VLM, Services
from lucibot.services.estimate import Outlook, Planned
from lucibot.task import Task

SHORTEST = 40
"""Characters; less is no detailed prompt."""


@dataclass(frozen=True, kw_only=True)
class VlmPrompt(Config):
    """Asks a vision-language model for a detailed prompt; `--services.vlm` says where it is."""

    NEEDS = ASKS_A_VLM

    kind: Literal["vlm"] = "vlm"
    model: str
    """The model's name at its server."""
    longest: int = 1000
    """Characters that the prompt may have; some video models take no more."""

    def create(self, services: Services) -> VlmWriter:
        return VlmWriter(self, services)

    def planned(self, outlook: Outlook) -> list[Planned]:
        return [outlook.vlm("prompt", "the prompt", self.model, calls=1, pictures=1)]


class VlmWriter:
    kind = "vlm"

    def __init__(self, config: VlmPrompt, services: Services):
        self.config, self.vlm = config, services.vlm

    def write(self, task: Task, view: SceneView) -> Prompt:
        longest = self.config.longest

        class Written(BaseModel):
            prompt: Text = Field(description="What the video shows, in detail.")
            negative_prompt: Text = Field(description="What it must not show.")

            @field_validator("prompt")
            @classmethod
            def _detailed(cls, text: str) -> str:
                if not SHORTEST <= len(text) <= longest:
                    raise ValueError(
                        f"must have {SHORTEST} to {longest} characters, and has {len(text)}"
                    )
                return text

        question = f"{told(task)}\nThe prompt has at most {self.config.longest} characters."
        if task.spec.hands != "expected":
            question += f"\n{words(__file__, f'vlm_{task.spec.hands}.txt')}"
        written = self.vlm.ask(
            Written, model=self.config.model, call_site="prompt", instructions=words(__file__, "vlm.txt"),
            question=question, pictures=[view.first_frame],
        )  # fmt: skip
        return Prompt(text=written.prompt.strip(), negative=written.negative_prompt.strip())
