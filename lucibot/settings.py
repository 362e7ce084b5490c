"""Every setting of a config as a flag of the command line, by its own name and in any order.

    --optimize.search.population 64      a field, by its path
    --scene.renderer raster              a family's member, by its kind
    --scene.renderer.samples 2           a setting of a member; it chooses the member that has it

Configs are frozen dataclasses; the docstring under a field is its help.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lucibot.core.config import WrongSetting
from lucibot.core.errors import UserError, unknown_name
from lucibot.store.configs import classes, field_default, field_texts, plain_types

NONE, YES, NO = "none", "yes", "no"
WIDEST = 100
"""Columns of a help text."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One flag."""

    path: str
    """As it is written after the two dashes."""
    values: str
    """What it takes, in a word."""
    help: str
    default: Any
    group: str
    """Heading under which it is listed."""
    chosen: bool
    """Whether it is of a member that the default has chosen."""


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose complaints are one line, and name the nearest flag."""

    def __init__(self, prog: str, usage: str, description: str, epilog: str | None = None):
        def format(prog: str) -> argparse.HelpFormatter:
            width = min(WIDEST, int(os.environ.get("COLUMNS", WIDEST)))
            return argparse.HelpFormatter(prog, max_help_position=30, width=width)

        super().__init__(
            prog=prog, usage=f"{prog} {usage}", description=description, epilog=epilog,
            formatter_class=format, allow_abbrev=False, argument_default=argparse.SUPPRESS,
        )  # fmt: skip
        self._paths: list[str] = []

    def error(self, message: str):
        raise UserError(f"{message}; `{self.prog} --help` lists what there is")

    def parse(self, argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """What was given: the options of the command, and the settings by their paths. What was not
        given is in neither.

        Raises:
            UserError: an unknown flag, or one without a value.
        """
        argv = [_hyphens(word) for word in argv]
        # A flag that does not exist would make its value pass for something else.
        known = [o for a in self._actions for o in a.option_strings]
        for word in argv:
            name = word.partition("=")[0]
            if name.startswith("--") and len(name) > 2 and name not in known:
                raise unknown_flag(name, known)
        given, left = self.parse_known_args(argv)
        if left:
            self.error(f"unexpected {left[0]!r}")
        options = vars(given)
        return options, {p: options.pop(p) for p in self._paths if p in options}

    def add_shorthand(self, name: str, metavar: str, help: str) -> None:
        """A flag that stands for several settings; `parse` gives it among them, by its name."""
        self._paths.append(name)
        self.add_argument(f"--{name}", dest=name, metavar=metavar, help=help)

    def add_settings(self, kind: Any, config: Any = None) -> None:
        """A flag for every setting of a config of type `kind`, listed with the values of `config`."""
        groups: dict[str, Any] = {}
        for s in settings(kind, config):
            self._paths.append(s.path)
            group = groups.get(s.group) or self.add_argument_group(s.group)
            groups[s.group] = group
            text = f"{s.help} " if s.help else ""
            shown = f"(default: {_shown(s.default)})"
            if config is None or s.default is dataclasses.MISSING:
                shown = ""
            group.add_argument(
                f"--{s.path}", dest=s.path, metavar=s.values,
                help=(text + shown).strip().replace("%", "%%"),
            )  # fmt: skip


def unknown_flag(flag: str, known: Sequence[str]) -> UserError:
    """An error that names the nearest flag: the list of all of them is for `--help`."""
    text = str(unknown_name("setting", flag, known))
    near = re.search(r"Did you mean '(.*?)'\?", text)
    hint = f" Did you mean {near[1]!r}?" if near else ""
    return UserError(f"unknown setting {flag!r}.{hint} `--help` lists them all")


def settings(kind: Any, default: Any, path: str = "", group: str = "") -> Iterator[Setting]:
    """All settings of a config (or a union of configs), in the order of its fields. What several
    members of a family have by one name is one setting, told as the first of them tells it, but of
    the member that `default` has chosen.

    Args:
        default: the config whose values are shown; those of members that it has not chosen are
            the members' own.
    """
    found: dict[str, Setting] = {}
    for s in _every_setting(kind, default, path, group):
        if s.path not in found or s.chosen:
            found[s.path] = s
    yield from found.values()


def _every_setting(kind: Any, default: Any, path: str, group: str) -> Iterator[Setting]:
    members = classes(kind)
    for cls in members:
        chosen = default if type(default) is cls else None
        heading = group
        if path:
            heading = path if len(members) == 1 else f"{path}, {_member_name(kind, cls)}"
        texts, hints = field_texts(cls), typing.get_type_hints(cls)
        for f in dataclasses.fields(cls):
            if f.name == "kind":
                continue
            value = getattr(chosen, f.name) if chosen is not None else field_default(f)
            here = f"{path}.{_flag(f.name)}" if path else _flag(f.name)
            inner = classes(hints[f.name])
            if not inner:
                yield Setting(path=here, values=_values(hints[f.name]), default=value,
                              help=texts.get(f.name, ""), group=heading or "settings",
                              chosen=chosen is not None)  # fmt: skip
                continue
            names = member_names(hints[f.name])
            if len(names) > 1:
                yield Setting(path=here, values="|".join(names), help=texts.get(f.name, ""),
                              default=_member_name(hints[f.name], type(value)),
                              group=here, chosen=chosen is not None)  # fmt: skip
            yield from settings(hints[f.name], value, here, here)


def configured(config: Any, given: Mapping[str, str]) -> Any:
    """`config` with the given settings, a text each by its path.

    Raises:
        UserError: no such setting or member, a value of another kind, or one that the config refuses.
    """
    known = [s.path for s in settings(type(config), config)]
    for path in given:
        if path not in known:
            raise unknown_flag(f"--{path}", [f"--{k}" for k in known])
    return _build(type(config), config, "", dict(given))


def _build(kind: Any, default: Any, path: str, given: Mapping[str, str]) -> Any:
    """The value at `path`: `default` where nothing is given at or below it."""
    members = classes(kind)
    if not members:
        return read_value(kind, given[path], f"--{path}") if path in given else default
    mine = [p for p in given if not path or p == path or p.startswith(f"{path}.")]
    if not mine:
        return default
    cls = _chosen(kind, default, path, given, mine)
    if cls is type(None):
        return None
    hints, values = typing.get_type_hints(cls), {}
    for f in dataclasses.fields(cls):
        here = f"{path}.{_flag(f.name)}" if path else _flag(f.name)
        value = getattr(default, f.name) if type(default) is cls else field_default(f)
        if f.name != "kind":
            value = _build(hints[f.name], value, here, given)
        if value is dataclasses.MISSING:
            raise UserError(f"--{path} {_member_name(kind, cls)} needs --{here}")
        values[f.name] = value
    try:
        return cls(**values)
    except WrongSetting as e:
        where = f"{path}.{_flag(e.field)}" if path else _flag(e.field)
        raise UserError(f"--{where} {_shown(e.value)}: {e.problem}") from None


def _chosen(kind: Any, default: Any, path: str, given: Mapping[str, str], mine: list[str]) -> type:
    """The member of a family that the given settings ask for."""
    names = {_member_name(kind, c): c for c in (*classes(kind), *_nothing(kind))}
    settled = [p for p in mine if p != path]
    having = {
        name: cls for name, cls in names.items()
        if cls is not type(None)
        and set(settled) <= {s.path for s in settings(cls, None, path)} | {path}
    }  # fmt: skip
    if path in given:
        name = given[path]
        if name not in names:
            raise unknown_name(f"--{path}", name, names)
        if settled and name not in having:
            raise UserError(f"--{settled[0]} is no setting of --{path} {name}")
        return names[name]
    if _member_name(kind, type(default)) in having:
        return type(default)
    if len(having) != 1:
        raise UserError(
            f"--{settled[0]} needs a choice: --{path} {'|'.join(having) or '|'.join(names)}"
        )
    return next(iter(having.values()))


def read_value(kind: Any, text: str, flag: str) -> Any:
    """A value of a plain type from its text.

    Raises:
        UserError: the text is none.
    """
    options = plain_types(kind)
    if type(None) in options and text.lower() == NONE:
        return None
    for option in options:
        if typing.get_origin(option) is Literal:
            for value in typing.get_args(option):
                if str(value) == text:
                    return value
        elif option is bool:
            if text.lower() in (YES, NO, "true", "false"):
                return text.lower() in (YES, "true")
        elif option in (int, float):
            try:
                value = option(text)
            except ValueError:
                continue
            if math.isfinite(value):
                return value
        elif option is Path:
            return Path(text).expanduser().resolve()
        elif option is str:
            return text
        elif typing.get_origin(option) is tuple and listed(text):
            return tuple(
                read_value(typing.get_args(option)[0], part, flag) for part in listed(text)
            )
    choices = [str(v) for o in options if typing.get_origin(o) is Literal
               for v in typing.get_args(o)]  # fmt: skip
    if choices:
        raise unknown_name(f"value of {flag}", text, choices)
    raise UserError(f"{flag} {text}: expected {_values(kind)}")


def listed(text: str) -> list[str]:
    """The values of a setting that takes several: commas stand between them, unless there is a file
    of that very name."""
    if Path(text).expanduser().is_file():
        return [text]
    return [part for part in text.split(",") if part]


def _values(kind: Any) -> str:
    words = {bool: f"{YES}|{NO}", int: "INT", float: "FLOAT", Path: "PATH", str: "TEXT",
             type(None): NONE}  # fmt: skip
    return "|".join(
        "|".join(str(v) for v in typing.get_args(o))
        if typing.get_origin(o) is Literal
        else f"{_values(typing.get_args(o)[0])},..."
        if typing.get_origin(o) is tuple
        else words.get(o, "TEXT")
        for o in plain_types(kind)
    )


def member_names(kind: Any) -> list[str]:
    """The names by which a family's members are chosen."""
    return [_member_name(kind, c) for c in (*classes(kind), *_nothing(kind))]


def _member_name(kind: Any, cls: type) -> str:
    """A member's `kind`; "on" for the one member of a part that may be left out."""
    if cls is type(None):
        return NONE
    named = next((f.default for f in dataclasses.fields(cls) if f.name == "kind"), None)
    if isinstance(named, str):
        return named
    return (
        "on"
        if len(classes(kind)) == 1
        else _flag(re.sub(r"(?<=.)(?=[A-Z][a-z])", "-", cls.__name__).lower())
    )


def _nothing(kind: Any) -> list[type]:
    return [type(None)] if type(None) in plain_types(kind) else []


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _hyphens(word: str) -> str:
    """A flag as it is listed; underscores are as good as hyphens."""
    name, equals, value = word.partition("=")
    return _flag(name) + equals + value if name.startswith("--") else word


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return YES if value else NO
    return NONE if value is None else str(value)
