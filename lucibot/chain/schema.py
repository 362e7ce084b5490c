"""The file of a chain: one scene, and what is to be done in it, in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from lucibot.core.errors import UserError
from lucibot.core.schema import Index, Name, Spec, Words, parse
from lucibot.task.files import read_toml


class StepSpec(Spec):
    """One task of the chain. What a step does not say, its `task` does."""

    name: Name
    task: Words | None = None
    """A shipped task's name, or a task folder beside the chain's file: whose instruction, roles, hands,
    goal, success and storyboard hold here. Its objects are the scene's, by name."""
    instruction: Words | None = None
    actuators: list[Name] = Field(default_factory=list)
    """Objects that are moved; the task's if empty."""
    targets: list[Name] = Field(default_factory=list)
    """Objects that are to change; the task's if empty."""
    hands: Literal["expected", "optional", "none"] | None = None
    goal: list[dict[str, Any]] = Field(default_factory=list)
    success: list[dict[str, Any]] = Field(default_factory=list)
    storyboard: Words | None = None
    """A storyboard's file, beside the chain's."""
    video: Words | None = None
    """What imagines this step, as `--video` takes it; files lie beside the chain's."""

    @model_validator(mode="after")
    def _says_what(self):
        if self.task is None:
            missing = [n for n in ("instruction", "actuators", "targets", "success")
                       if not getattr(self, n)]  # fmt: skip
            if missing:
                raise ValueError(
                    f"step {self.name!r} names no task, so it needs {', '.join(missing)}"
                )
        return self


class ChainSpec(Spec):
    """The schema of a chain's file."""

    title: Words
    scene: Words
    """A shipped task's name, or a task folder beside the file: what stands where at the beginning."""
    retries: Index = Field(1, le=100)
    """Further tries of a step that fails, each with another seed."""
    step: list[StepSpec] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _told_apart(self):
        names = [s.name for s in self.step]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"two steps have the name {twice[0]!r}")
        return self


def read_chain(file: Path) -> ChainSpec:
    """
    Raises:
        UserError: there is no such file, or it does not follow the schema.
    """
    if not file.is_file():
        raise UserError(f"no such file: {file}; docs/chain.md says how a chain is written")
    return parse(ChainSpec, read_toml(file), str(file))


def beside(file: Path, name: str) -> Path:
    """The path of what a chain's file names."""
    return (file.parent / name).resolve()
