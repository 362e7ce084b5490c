"""What all configs share: their values are checked when one is made.

A field's type says what it takes; `lucibot.core.schema` has names for the usual bounds. A plain
`int` or `float` is finite and not negative: hardly any setting is.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from lucibot.core.errors import UserError
from lucibot.core.schema import Finite, wording

Plain = {
    int: Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)],
    float: Annotated[Finite, Field(ge=0, le=1e12)],
    bool: Annotated[bool, Field(strict=True)],
}
"""What a type without bounds of its own takes."""


class WrongSetting(UserError):
    """A setting's value is none that it takes."""

    def __init__(self, config: object, field: str, value: Any, problem: str):
        super().__init__(f"{type(config).__name__}.{field} = {value!r}: {problem}")
        self.field, self.value, self.problem = field, value, problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configs."""

    def __post_init__(self) -> None:
        for name, takes in _takes(type(self)).items():
            value = getattr(self, name)
            try:
                takes.validate_python(value)
            except ValidationError as e:
                raise WrongSetting(self, name, value, wording(e)) from None
        self.check()

    def check(self) -> None:
        """Look at what several fields must be together; see `refuse`."""

    def refuse(self, field: str, problem: str) -> typing.NoReturn:
        """
        Raises:
            WrongSetting: always.
        """
        raise WrongSetting(self, field, getattr(self, field), problem)


@functools.cache
def _takes(cls: type) -> dict[str, TypeAdapter]:
    """What each field takes, but those that hold configs: these have checked themselves."""
    hints = typing.get_type_hints(cls, include_extras=True)
    arbitrary = ConfigDict(arbitrary_types_allowed=True)
    return {
        f.name: TypeAdapter(_bounded(hints[f.name]), config=arbitrary)
        for f in dataclasses.fields(cls)
        if not _holds_configs(hints[f.name])
    }


def _bounded(kind: Any) -> Any:
    """A type with the usual bounds where it has none."""
    if kind in Plain:
        return Plain[kind]
    if typing.get_origin(kind) is Annotated or not typing.get_args(kind):
        return kind
    if typing.get_origin(kind) is typing.Literal:
        return kind
    parts = tuple(_bounded(k) for k in typing.get_args(kind))
    if typing.get_origin(kind) in (tuple, list):
        return typing.get_origin(kind)[parts]
    return functools.reduce(lambda a, b: a | b, parts)


def _holds_configs(kind: Any) -> bool:
    if typing.get_origin(kind) is Annotated:
        return _holds_configs(typing.get_args(kind)[0])
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return True
    return any(_holds_configs(k) for k in typing.get_args(kind))
