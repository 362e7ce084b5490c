"""`[[goal]]` of a task, proposed by a vision-language model from its instruction and first frame."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field, create_model, model_validator

from lucibot.core.errors import UserError
from lucibot.core.progress import silent
from lucibot.providers.asking import Text, told, words
from lucibot.providers.renderer import PhotoRenderer, RasterRenderer
from lucibot.providers.verifier.goals import RELATIONS, read_relation
from lucibot.services import Services
from lucibot.task import Task
from lucibot.task.files import read_text, within
from lucibot.task.references import ObjectName, SolidName

FILE = "task.toml"


def propose(task: Task, services: Services, model: str) -> tuple[list[dict[str, Any]], str]:
    """What `[[goal]]` may say, by the schema of task files, and why.

    Raises:
        UserError: the server refuses. RunFailed: it does not answer, or not with relations.
    """
    photo = task.spec.camera.photo is not None
    renderer = (PhotoRenderer() if photo else RasterRenderer()).create()
    picture = renderer.render(task, foreground=True, progress=silent)
    said = services.vlm.ask(
        _answer(task), model=model, call_site="goals", instructions=words(__file__, "goals.txt"),
        question=told(task), pictures=[np.asarray(picture)],
    )  # fmt: skip
    return [entry.model_dump() for entry in said.goal], said.reason


def as_text(entries: list[dict[str, Any]]) -> str:
    """As it stands in a task file."""
    tables = ("\n".join(f"{k} = {json.dumps(v)}" for k, v in entry.items()) for entry in entries)
    return "\n\n".join(f"[[goal]]\n{table}" for table in tables) + "\n"


def write_goal(task: Task, entries: list[dict[str, Any]]) -> Path:
    """Put them into the task's file, before `[[success]]` or at the end; all other text stays.

    Raises:
        UserError: there is a goal already, or the file cannot be written.
    """
    path = task.folder / FILE
    before = read_text(within(task.folder, FILE))
    then = tomllib.loads(before)
    if "goal" in then:
        raise UserError(f"{path} has a goal already; edit it, or remove it first")
    after = _with_goal(before, as_text(entries))
    if tomllib.loads(after) != {**then, "goal": entries}:
        raise UserError(f"{path}: there is no clear place for the goal; put it in by hand")
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(after)
        part.replace(path)
    except OSError as e:
        raise UserError(
            f"{path} cannot be written ({e.strerror}); copy the task folder to where you may write"
        ) from None
    return path


def _with_goal(text: str, goal: str) -> str:
    """Before the first `[[success]]` and the comments that belong to it, else at the end."""
    found = re.search(r"(?m)^(?:[ \t]*#.*\n)*[ \t]*\[\[\s*success\s*\]\]", text)
    if found is None:
        return f"{text.rstrip()}\n\n{goal}"
    return f"{text[: found.start()]}{goal}\n{text[found.start() :]}"


def _answer(task: Task) -> type[BaseModel]:
    """The answer's type: the relations of task files, with this task's names."""
    objects = Literal[tuple(o.name for o in task.objects)]
    solids = Literal[tuple(s.name for s in (*task.objects, *task.spec.background))]
    kinds = [_kind(name, objects, solids) for name in RELATIONS]
    union = reduce(lambda a, b: a | b, kinds)

    class Proposal(BaseModel):
        reason: Text = Field(description="What is seen when the task is done.")
        goal: list[union]

        @model_validator(mode="after")
        def _as_in_task_files(self):
            for i, entry in enumerate(self.goal):
                try:
                    read_relation(task, entry.model_dump(), f"goal.{i}")
                except UserError as e:
                    raise ValueError(str(e)) from None
            return self

    return Proposal


def _kind(name: str, objects: Any, solids: Any) -> type[BaseModel]:
    """One relation: its name, its fields, and what is measured as its description."""
    spec, measured = RELATIONS[name]
    types = {ObjectName: objects, SolidName: solids, list[SolidName]: list[solids]}
    fields = {}
    for field, info in spec.model_fields.items():
        declared = inspect.get_annotations(_owner(spec, field), eval_str=True)[field]
        fields[field] = (types.get(declared) or info.annotation, ...)
    text = " ".join((inspect.getdoc(measured) or "").split())
    return create_model(
        name.capitalize(), __doc__=text, relation=(Literal[name], ...), **fields
    )  # fmt: skip


def _owner(spec: type, field: str) -> type:
    return next(c for c in spec.__mro__ if field in inspect.get_annotations(c))
