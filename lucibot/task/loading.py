"""From a task folder to a `Task`."""

from __future__ import annotations

from pathlib import Path

from lucibot.core.errors import UserError
from lucibot.core.schema import parse
from lucibot.task.files import read_text, read_toml, within
from lucibot.task.folders import find_task
from lucibot.task.schema import TaskSpec
from lucibot.task.task import Task


def load_task(name_or_folder: str | Path) -> Task:
    """Load a shipped task by name, or any task folder by path.

    Raises:
        UserError: no such task, or its files do not follow the schema; the message names the field.
    """
    folder = find_task(name_or_folder)
    file = within(folder, "task.toml")
    spec = parse(TaskSpec, read_toml(file), str(file))
    instruction = folder / "instruction.md"
    if not instruction.is_file():
        raise UserError(
            f"task {folder.name!r} has no instruction.md: write what is to be done there"
        )
    words = read_text(within(folder, "instruction.md")).strip()
    if not words:
        raise UserError(f"{instruction} is empty: write there what is to be done")
    return Task(folder, spec, words)
