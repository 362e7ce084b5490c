"""Names of a task's things where files speak of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from lucibot.core.errors import UserError
from lucibot.core.schema import Name, Spec
from lucibot.task.task import Task


@dataclass(frozen=True)
class Names:
    """Marks a schema's field as the name of something in the task."""

    what: Literal["object", "solid"]
    besides: tuple[str, ...] = ()
    """Words that have a meaning of their own there."""


ObjectName = Annotated[Name, Names("object")]
"""The name of a foreground object."""
SolidName = Annotated[Name, Names("solid")]
"""The name of a foreground object or of something in the background."""


def ensure_named(task: Task, spec: Spec, where: str) -> None:
    """Every `ObjectName` and `SolidName` in a schema's instance, at any depth, is a thing's name.

    Raises:
        UserError: one is not; it names the nearest.
    """
    for field, info in type(spec).model_fields.items():
        value = getattr(spec, field)
        place = f"{where}: {field}"
        for mark in (m for m in _marks(info) if isinstance(m, Names)):
            for name in [value] if isinstance(value, str) else value or []:
                if name in mark.besides:
                    continue
                find = task.object if mark.what == "object" else task.solid
                try:
                    find(name)
                except UserError as e:
                    raise UserError(f"{place}: {e}") from None
        _deeper(task, value, place)


def _marks(info: Any) -> list[Any]:
    """What annotates a field, or the members of its list or union."""

    def inside(kind: Any) -> list[Any]:
        own = list(getattr(kind, "__metadata__", ()))
        return own + [m for a in getattr(kind, "__args__", ()) for m in inside(a)]

    return [*info.metadata, *inside(info.annotation)]


def _deeper(task: Task, value: Any, place: str) -> None:
    if isinstance(value, Spec):
        ensure_named(task, value, place)
    elif isinstance(value, list):
        for i, v in enumerate(value):
            _deeper(task, v, f"{place}.{i}")
    elif isinstance(value, dict):
        for k, v in value.items():
            _deeper(task, v, f"{place}.{k}")
