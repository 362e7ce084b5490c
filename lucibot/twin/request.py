"""What a user asks a twin to be: one thing a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lucibot.core.errors import UserError, unknown_name
from lucibot.core.schema import NAME
from lucibot.twin.entries import lacking
from lucibot.twin.fit import LONGEST
from lucibot.twin.marks import Mark, read_mark, read_mask
from lucibot.twin.shapes import SHAPES

MATERIALS = ("rigid", "elastic", "elastoplastic", "sand", "liquid")
RELATIONS = {
    "inside": ("object", "container"), "moved": ("object", "least"),
    "carried": ("object", "carrier", "least"), "lifted": ("object", "least"),
    "pieces": ("object", "count"), "spread": ("object", "least"),
}  # fmt: skip
"""The goal relations that a flag can say, and what follows their name."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something that is seen, or that fills what is seen."""

    name: str
    mark: Mark | None = None
    """None for what is not seen."""
    shape: str = "box"
    """One of `SHAPES`, "ladle", "model" (by the modeller), or a mesh file."""
    material: str = "rigid"
    told: dict[str, float] = field(default_factory=dict)
    """Lengths that are known [m]."""
    filling: str | None = None
    """What it fills or lies in."""
    level: float = 0.8
    """Up to which share of the inside."""
    on: str | None = None
    """What it stands on; the table otherwise."""
    wall_m: float | None = None
    hinge: str = "left"
    """On which side a door hangs."""


@dataclass(frozen=True, kw_only=True)
class Request:
    things: dict[str, Thing]
    moved: list[str]
    """Actuators."""
    goals: list[dict[str, Any]]

    @property
    def targets(self) -> list[str]:
        """What is to change: what the goals speak of first."""
        return list(dict.fromkeys(g["object"] for g in self.goals)) or self.moved


def read_request(options: dict[str, Any], shape: tuple[int, int]) -> Request:
    """The request of the command's flags.

    Args:
        options: name of the flag -> what was given, a list where it may be given often.
        shape: (H, W) of the photo.

    Raises:
        UserError: a flag that says nothing that can be understood; the line says which.
    """
    marks: dict[str, list[str]] = {}
    for name, text in pairs(options, "object"):
        marks.setdefault(name, []).append(text)
    beside: dict[str, list[str]] = {}
    for name, text in pairs(options, "not"):
        if name not in marks:
            raise unknown_name("object of --not", name, marks)
        beside.setdefault(name, []).append(text)
    found = {
        name: read_mark(name, texts, shape, tuple(beside.get(name, ())))
        for name, texts in marks.items()
    }
    for name, text in pairs(options, "mask"):
        found[name] = Mark(mask=read_mask(Path(text), shape))
    fields: dict[str, dict[str, Any]] = {name: {"mark": mark} for name, mark in found.items()}
    for name, text in pairs(options, "fill"):
        vessel, _, level = text.partition(",")
        told = {"filling": vessel, "shape": "content"}
        if level:
            told["level"] = number(f"--fill {name}={text}", level, 0.02, 1.0)
        fields.setdefault(name, {}).update(told)
    if not fields:
        raise UserError("name at least one thing: --object NAME=x,y or --mask NAME=FILE")

    def of(name: str, flag: str) -> dict[str, Any]:
        if name not in fields:
            raise unknown_name(f"object of --{flag}", name, fields)
        return fields[name]

    for name, text in pairs(options, "shape"):
        if text not in (*SHAPES, "ladle", "model") and not Path(text).is_file():
            raise unknown_name(
                f"shape of --shape {name}", text, [*SHAPES, "ladle", "model", "FILE"]
            )
        of(name, "shape")["shape"] = text
    for name, text in pairs(options, "material"):
        if text not in MATERIALS:
            raise unknown_name(f"material of --material {name}", text, MATERIALS)
        of(name, "material")["material"] = text
    for key, text in pairs(options, "length"):
        name, _, size = key.partition(".")
        told = of(name, "length").setdefault("told", {})
        told[size or LONGEST] = number(f"--length {key}={text}", text, 1e-3, 5.0)
    for name, text in pairs(options, "on"):
        of(text, "on")
        of(name, "on")["on"] = text
    for name, text in pairs(options, "wall"):
        of(name, "wall")["wall_m"] = number(f"--wall {name}={text}", text, 5e-4, 0.05)
    for name, text in pairs(options, "hinge"):
        if text not in ("left", "right"):
            raise unknown_name(f"side of --hinge {name}", text, ("left", "right"))
        of(name, "hinge")["hinge"] = text
    things = {name: Thing(name=name, **told) for name, told in fields.items()}
    for t in things.values():
        below = under(things, t.name)
        if t.name in below:
            raise UserError(
                f"--on, --fill: nothing rests on itself: {' on '.join([t.name, *below])}"
            )
        if t.filling is not None:
            of(t.filling, "fill")
            vessel = things[t.filling].shape
            if lack := lacking(vessel, outlined=t.mark is not None):
                raise UserError(
                    f"--fill {t.name}={t.filling}: {t.filling} is a {vessel}, which has not {lack}"
                )
        sizes = [*SHAPES[t.shape].sizes, LONGEST] if t.shape in SHAPES else [LONGEST]
        for size in t.told:
            if size not in sizes:
                raise unknown_name(f"length of --length {t.name}", size, sizes)
    moved = list(options.get("move", [])) or [next(iter(things))]
    for name in moved:
        of(name, "move")
    return Request(things=things, moved=moved, goals=[
        read_goal(text, things) for text in options.get("goal", [])
    ])  # fmt: skip


def under(things: Mapping[str, Thing], name: str) -> list[str]:
    """What a thing stands on or fills, what that does, and so on down, as far as these are among
    `things`; it ends where something comes again."""
    found: list[str] = []
    at = name
    while (at := things[at].filling or things[at].on) in things and at not in found:
        found.append(at)
    return found


def read_goal(text: str, things: Iterable[str]) -> dict[str, Any]:
    """`inside roll bowl` as a goal relation.

    Raises:
        UserError: it says nothing that can be understood.
    """
    words = text.split()
    if not words or words[0] not in RELATIONS:
        raise unknown_name("relation of --goal", words[0] if words else "", RELATIONS)
    names = RELATIONS[words[0]]
    if len(words) != 1 + len(names):
        raise UserError(
            f"--goal {text!r}: expected `{words[0]} {' '.join(n.upper() for n in names)}`"
        )
    goal: dict[str, Any] = {"relation": words[0]}
    for key, word in zip(names, words[1:], strict=True):
        if key in ("least", "count"):
            value = number(f"--goal {text!r}", word, 0, 100)
            goal[key] = int(value) if key == "count" else value
        elif word not in set(things):
            raise unknown_name("object of --goal", word, things)
        else:
            goal[key] = word
    return goal


def pairs(options: dict[str, Any], flag: str) -> list[tuple[str, str]]:
    """NAME=VALUE of a flag that may be given often.

    Raises:
        UserError: there is no name, or it cannot name a thing.
    """
    import re

    found = []
    for text in options.get(flag, []):
        name, equals, value = text.partition("=")
        if not equals or not value or not re.fullmatch(NAME, name.partition(".")[0]):
            raise UserError(
                f"--{flag} {text}: expected NAME=VALUE; names are small letters, digits and underscores"
            )
        found.append((name, value))
    return found


def number(what: str, text: Any, low: float, high: float) -> float:
    """
    Raises:
        UserError: it is none, or out of bounds.
    """
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = np.nan
    if not low <= value <= high:
        raise UserError(f"{what}: expected a number from {low:g} to {high:g}")
    return value
