"""Where task folders are: shipped ones by name, others by path."""

from __future__ import annotations

from pathlib import Path

from lucibot.core.errors import UserError, unknown_name


def tasks_folder() -> Path:
    """The folder of shipped tasks: beside the package in a checkout, inside it in a wheel.

    In a checkout `lucibot/tasks` is a link to the other, which is how the wheel comes to hold them.
    """
    here = Path(__file__).resolve().parent.parent
    for p in (here.parent / "tasks", here / "tasks"):
        if next(p.glob("*/task.toml"), None):
            return p
    raise UserError("the shipped tasks are not installed; give the path of a task folder")


def checkout_folder(name: str) -> Path:
    """A top-level folder of the checkout that the package was installed from.

    Raises:
        UserError: it was installed from a wheel.
    """
    folder = Path(__file__).resolve().parent.parent.parent / name
    if not folder.is_dir():
        raise UserError(f"{name}/ is not part of an installed package; use a checkout of LuciBot")
    return folder


def task_names() -> list[str]:
    return sorted(p.parent.name for p in tasks_folder().glob("*/task.toml"))


def find_task(name_or_folder: str | Path) -> Path:
    """The folder of a shipped task by name, or of any task by path; what lies here under a shipped
    task's name counts if it is a task.

    Raises:
        UserError: there is no such task.
    """
    folder = Path(name_or_folder)
    if (folder / "task.toml").is_file():
        return folder.resolve()
    if str(name_or_folder) in task_names():
        return (tasks_folder() / folder.name).resolve()
    if folder.is_dir():
        raise UserError(f"{folder} holds no task.toml; `lucibot tasks new` makes a task folder")
    raise unknown_name("task", str(name_or_folder), task_names())
