"""Writing tasks: listing them, checking one, and starting a new one."""

from __future__ import annotations

from lucibot.authoring.check import Check, check_task
from lucibot.authoring.command import command
from lucibot.authoring.new import new_task
from lucibot.task import load_task, task_names

__all__ = ["Check", "check_task", "command", "list_tasks", "new_task"]


def list_tasks() -> list[dict]:
    """One row a shipped task: name, title, materials, actuators and targets."""
    rows = []
    for name in task_names():
        task = load_task(name)
        rows.append({
            "name": name, "title": task.spec.title,
            "materials": [o.material.kind for o in task.objects],
            "actuators": [o.name for o in task.actuators],
            "targets": [o.name for o in task.targets],
        })  # fmt: skip
    return rows
