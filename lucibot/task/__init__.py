"""The task folder: `task.toml`, `instruction.md`, `storyboard.toml`, `assets/`.

A task is the paper's scene configuration (section 3.1): foreground objects, some of them actuators
and some targets, stationary background objects and a stationary camera, with an instruction. It is
plain data; nothing in a task folder is imported.
"""

from __future__ import annotations

from lucibot.task.folders import checkout_folder, find_task, task_names, tasks_folder
from lucibot.task.loading import load_task
from lucibot.task.schema import (
    CREASE_DEG,
    BackgroundSpec,
    LightSpec,
    Look,
    ObjectSpec,
    Particles,
    Rigid,
    TaskSpec,
)
from lucibot.task.task import Task

__all__ = [
    "CREASE_DEG", "BackgroundSpec", "LightSpec", "Look", "ObjectSpec", "Particles", "Rigid", "Task",
    "TaskSpec", "checkout_folder", "find_task", "load_task", "task_names", "tasks_folder",
]  # fmt: skip
