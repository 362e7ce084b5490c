"""What `twin.toml` may say of a thing: which shape it is, and that shape's own numbers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, create_model, model_validator

from lucibot.core.errors import UserError, unknown_name
from lucibot.core.schema import FileName, Fraction, Length, Metres, Name, Positive, Spec, parse_kind
from lucibot.twin.ladle import HANDLE_M, WALL_M
from lucibot.twin.shapes import SHAPES

Along = Annotated[list[Metres], Field(min_length=4)]


class EntrySpec(Spec):
    """Of every shape."""

    colour: tuple[Fraction, Fraction, Fraction] | None = None
    """sRGB."""


class LadleSpec(EntrySpec):
    """See `lucibot.twin.ladle.Ladle`."""

    x_m: Along
    left_m: Along
    right_m: Along
    depth_m: Length
    handle_m: Length = HANDLE_M
    wall_m: Length = WALL_M

    @model_validator(mode="after")
    def _is_an_outline(self) -> LadleSpec:
        if not len(self.x_m) == len(self.left_m) == len(self.right_m):
            raise ValueError("x_m, left_m and right_m must be equally many")
        if any(b <= a for a, b in itertools.pairwise(self.x_m)):
            raise ValueError("x_m must rise")
        if any(left <= right for left, right in zip(self.left_m, self.right_m, strict=True)):
            raise ValueError("left_m must be more than right_m everywhere")
        return self


class ContentSpec(EntrySpec):
    """What fills a vessel up to a level, or lies in it within an outline."""

    of: Name
    level: Annotated[Fraction, Field(ge=0.02)] | None = None
    """Share of the vessel's inside."""
    top_m: Metres | None = None
    outline_m: Annotated[list[tuple[Metres, Metres]], Field(min_length=3)] | None = None

    @model_validator(mode="after")
    def _is_said_in_one_way(self) -> ContentSpec:
        given = [n for n in ("level", "top_m", "outline_m") if getattr(self, n) is not None]
        if given not in (["level"], ["top_m", "outline_m"]):
            raise ValueError("give either level, or top_m and outline_m")
        return self


class MeshSpec(EntrySpec):
    """A mesh that was given."""

    file: FileName
    scale: Positive


KINDS: dict[str, type[EntrySpec]] = {
    "ladle": LadleSpec, "content": ContentSpec, "mesh": MeshSpec,
    **{
        s.name: create_model(
            f"{s.name} entry", __base__=EntrySpec, wall_m=(Length, ...),
            **{n: (Positive if n in s.unitless else Length, ...) for n in s.sizes},
        )
        for s in SHAPES.values()
    },
}  # fmt: skip


def ensure_entries(values: dict[str, Any], folder: Path, where: str) -> None:
    """Every value is a table of some shape, with that shape's numbers.

    Args:
        folder: where users' meshes lie.
        where: the file, for the error.

    Raises:
        UserError: one is not; it names the thing and what is wrong with it.
    """
    for name, entry in values.items():
        if not isinstance(entry, dict):
            raise UserError(f"{where}: {name} is no table; write it below the [name] of a thing")
        parse_kind(KINDS, "shape", entry, f"{where}: {name}")
    for name, entry in values.items():
        if entry["shape"] == "mesh" and not (folder / entry["file"]).is_file():
            raise UserError(f"{where}: {name}: file {entry['file']} is not there")
        if entry["shape"] != "content":
            continue
        if entry["of"] not in values:
            raise unknown_name(f"vessel of {name} in {where}:", entry["of"], values)
        kind = values[entry["of"]]["shape"]
        if lack := lacking(kind, outlined="outline_m" in entry):
            raise UserError(f"{where}: {name}: {entry['of']} is a {kind}, which has not {lack}")


def lacking(kind: str, *, outlined: bool) -> str:
    """What a thing of a shape has not and would need to be filled; empty if nothing.

    Args:
        outlined: whether it is known where the content ends, and not only how high it stands.
    """
    if kind == "ladle":
        return "" if outlined else "a level in it"
    return "" if kind in SHAPES and SHAPES[kind].cavity is not None else "an inside"
