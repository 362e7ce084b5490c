"""What is wrong with a task file, in one line."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from lucibot.core.errors import unknown_name
from lucibot.task.schema import TaskSpec


def first_error(e: ValidationError) -> str:
    """One line for the first error; a mistyped key names the nearest valid one."""
    first = e.errors()[0]
    where = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        model: Any = TaskSpec
        fields = _field_names(model, first["loc"][:-1])
        return str(unknown_name(f"key at {where.rpartition('.')[0] or 'top level'}:",
                                str(first["loc"][-1]), fields))  # fmt: skip
    return f"{where}: {first['msg']}" if where else first["msg"]


def _field_names(model: Any, loc: tuple) -> list[str]:
    """The field names valid at `loc` below `model`; a union contributes all its members' names."""
    import typing

    def models(t: Any) -> list[type[BaseModel]]:
        if isinstance(t, type) and issubclass(t, BaseModel):
            return [t]
        return [m for a in typing.get_args(t) for m in models(a)]

    current = [model]
    for part in loc:
        if isinstance(part, int) or not any(part in m.model_fields for m in current):
            continue
        current = [
            sub for m in current if part in m.model_fields
            for sub in models(m.model_fields[part].annotation)
        ]  # fmt: skip
    return sorted({n for m in current for n in m.model_fields})
