"""What all schemas of input files share: one strict base model, numbers in sane bounds, one-line errors.

TOML can say `nan`, `inf`, `"two"` for 2 and any key at all. None of it passes: a number is finite,
of the right type and within bounds that leave room for any scene on a table or in a room, and a key
is known or refused.
"""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lucibot.core.errors import UserError, unknown_name


class Spec(BaseModel):
    """Base of all schemas: no unknown key, nothing is changed after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


NAME = r"[a-z][a-z0-9_]*"
"""Names of tasks and of things in them: they become names of files, of terms and of columns."""


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text) or len(text) > 64:
        raise ValueError(
            "a name is small letters, digits and underscores, a letter first, 64 at most"
        )
    return text


def _file(text: str) -> str:
    parts = PurePosixPath(text).parts
    if not parts or text.startswith(("/", "~")) or ".." in parts or not text.isprintable():
        raise ValueError(
            "a file is named by its path in the task folder, without `..` and not from the root: "
            "copy it there"
        )
    if len(text.encode()) > 200:
        raise ValueError("a path is 200 bytes long at most")
    return text


def _direction(v: tuple[float, float, float]) -> tuple[float, float, float]:
    if sum(x * x for x in v) < 1e-12:
        raise ValueError("a direction must not be zero")
    return v


def _between(low: float, high: float) -> AfterValidator:
    """Bounds that a field may narrow: its own `ge` and `le` would replace others of that kind."""

    def check(x: float) -> float:
        if not low <= x <= high:
            raise ValueError(f"must lie between {low:g} and {high:g}")
        return x

    return AfterValidator(check)


Name = Annotated[str, AfterValidator(_name)]
FileName = Annotated[str, AfterValidator(_file)]
"""A file of the task folder, by its path in it."""
Words = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True), _between(1, 100_000)]
Index = Annotated[int, Field(strict=True), _between(0, 100_000)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Number = Annotated[Finite, _between(-1e6, 1e6)]
Positive = Annotated[Finite, _between(1e-12, 1e12)]
NonNegative = Annotated[Finite, _between(0, 1e6)]
Fraction = Annotated[Finite, _between(0, 1)]
Metres = Annotated[Finite, _between(-100, 100)]
Length = Annotated[Finite, _between(1e-5, 100)]
Distance = Annotated[Finite, _between(0, 100)]
Degrees = Annotated[Finite, _between(-3600, 3600)]
Seconds = Annotated[Finite, _between(0, 3600)]
Position = tuple[Metres, Metres, Metres]
Extents = tuple[Length, Length, Length]
Rotation = tuple[Degrees, Degrees, Degrees]
Direction = Annotated[tuple[Number, Number, Number], AfterValidator(_direction)]
Spread = tuple[Distance, Distance, Distance]
"""Standard deviations of a position [m]."""
Color = tuple[Fraction, Fraction, Fraction]
"""Linear RGB."""

S = TypeVar("S", bound=Spec)


def parse(model: type[S], values: Any, where: str) -> S:
    """A schema's instance from a file's values.

    Args:
        where: the file, or the file and the place in it, for the error.

    Raises:
        UserError: one line about the first thing that is wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as e:
        raise UserError(f"{where}: {_first_error(model, e)}") from None


def parse_kind(kinds: dict[str, type[S]], tag: str, values: dict[str, Any], where: str) -> S:
    """An instance of the kind that the key `tag` of `values` names.

    Raises:
        UserError: there is no such kind, or one line about the first thing that is wrong.
    """
    if tag not in values:
        raise UserError(f"{where}: needs a {tag}, one of {', '.join(sorted(kinds))}")
    kind = values[tag]
    if not isinstance(kind, str) or kind not in kinds:
        raise unknown_name(f"{tag} at {where}:", str(kind), kinds)
    rest = {k: v for k, v in values.items() if k != tag}
    return parse(kinds[kind], rest, f"{where} ({kind})")


def increasing(times_s: Iterable[float], what: str) -> None:
    """
    Raises:
        ValueError: a time is not later than the one before it.
    """
    for a, b in itertools.pairwise(times_s):
        if b <= a:
            raise ValueError(
                f"{what} must come one after the other: {b:g} s follows {a:g} s; sort them, and "
                "leave out one of two at one time"
            )


def _first_error(model: type[BaseModel], e: ValidationError) -> str:
    """One line for the first error; a mistyped key names the nearest valid one."""
    errors = e.errors(include_url=False)
    # A misspelt key may be the one that another error misses.
    first = next((x for x in errors if x["type"] == "extra_forbidden"), errors[0])
    where = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        fields = _field_names(model, first["loc"][:-1])
        return str(unknown_name(f"key at {where.rpartition('.')[0] or 'top level'}:",
                                str(first["loc"][-1]), fields))  # fmt: skip
    if first["type"] == "missing":
        return f"{where} is missing"
    said = _words(first)
    given = first["input"]
    if isinstance(given, bool | int | float | str):
        told = repr(given)
        said += f", got {told if len(told) <= 40 else told[:37] + '...'}"
    return f"{where}: {said}" if where else said


def wording(e: ValidationError) -> str:
    """What is wrong with a single value."""
    return _words(e.errors(include_url=False)[-1])


def _words(error: Any) -> str:
    return error["msg"].removeprefix("Value error, ").replace("Input should", "must")


def _field_names(model: Any, loc: tuple) -> list[str]:
    """The field names valid at `loc` below `model`; a union contributes all its members' names."""

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
