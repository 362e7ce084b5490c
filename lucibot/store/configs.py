"""Config dataclasses to plain dictionaries and back for `run.json`, and what of them enters a
fingerprint."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lucibot.core.errors import UserError


def to_dict(config: Any) -> Any:
    """A config as json-ready values; every dataclass carries its class name under "type"."""
    if dataclasses.is_dataclass(config):
        values = {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
        return {"type": type(config).__name__, **values}
    if isinstance(config, (tuple, list)):
        return [to_dict(v) for v in config]
    if isinstance(config, dict):
        return {k: to_dict(v) for k, v in config.items()}
    return str(config) if isinstance(config, Path) else config


NO_EFFECT = {"fingerprint": False}
"""Metadata of a field that changes how a stage works, and nothing of what comes out."""
CHECKPOINT = {"checkpoint": True}
"""Metadata of a field that names a model's weights: a folder counts by its content, as a file does."""


def settled(config: Any, content: Callable[[Path], str], *, defaults: bool = False) -> Any:
    """What of a config enters a fingerprint: what is not the default, so that a new field with a
    default changes no fingerprint of before, and a file by its content.

    Who changes a default bumps the version of the stage that reads it.

    Args:
        content: the digest of a file.
        defaults: give those too, for `agrees`.
    """
    if dataclasses.is_dataclass(config):
        values = {
            f.name: settled(_told(f, value), content, defaults=defaults)
            for f in dataclasses.fields(config)
            if f.metadata.get("fingerprint", True)
            and ((value := getattr(config, f.name)) != field_default(f) or defaults)
        }
        return {"type": type(config).__name__, **values}
    if isinstance(config, (tuple, list)):
        return [settled(v, content, defaults=defaults) for v in config]
    if isinstance(config, dict):
        return {k: settled(v, content, defaults=defaults) for k, v in config.items()}
    return content(config) if isinstance(config, Path) else config


def agrees(then: Any, config: Any, content: Callable[[Path], str]) -> bool:
    """Whether settings that were written down (`settled` with defaults) are those of `config`.

    A field that is new has its own default; one that there is no more does not count.
    """
    if dataclasses.is_dataclass(config):
        return (
            isinstance(then, dict)
            and then.get("type") == type(config).__name__
            and all(
                agrees(then[f.name], _told(f, getattr(config, f.name)), content)
                if f.name in then
                else getattr(config, f.name) == field_default(f)
                for f in dataclasses.fields(config)
                if f.metadata.get("fingerprint", True)
            )
        )
    if isinstance(config, (tuple, list)):
        return (
            isinstance(then, list)
            and len(then) == len(config)
            and all(agrees(t, c, content) for t, c in zip(then, config, strict=True))
        )
    return then == settled(config, content, defaults=True)


def _told(f: dataclasses.Field, value: Any) -> Any:
    """A field's value, a checkpoint's folder as a path."""
    is_folder = f.metadata.get("checkpoint", False) and Path(value).is_dir()
    return Path(value) if is_folder else value


def files(config: Any) -> list[Path]:
    """All files and folders that a config names."""
    found: list[Path] = []
    settled(config, lambda path: found.append(path) or "")
    return found


def field_default(f: dataclasses.Field) -> Any:
    """A field's default; `dataclasses.MISSING` where it must be given."""
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return f.default


def from_dict(kind: Any, value: Any) -> Any:
    """Rebuild a config of type `kind` from `to_dict`'s output.

    Raises:
        UserError: the dictionary is of another version of LuciBot.
    """
    if isinstance(value, dict) and "type" in value:
        for cls in classes(kind):
            if cls.__name__ == value["type"]:
                hints = typing.get_type_hints(cls)
                names = {f.name for f in dataclasses.fields(cls)}
                extra = set(value) - names - {"type"}
                if extra:
                    raise UserError(
                        f"run.json is of another version of LuciBot: {cls.__name__} has no setting "
                        f"{sorted(extra)[0]!r} any more; start a new run"
                    )
                return cls(**{n: from_dict(hints[n], value[n]) for n in names & set(value)})
        raise UserError(
            f"run.json is of another version of LuciBot, which had {value['type']!r}; start a new run"
        )
    if isinstance(value, list):
        inner = (*typing.get_args(kind), Any)[0]
        return tuple(from_dict(inner, v) for v in value)
    if isinstance(value, str) and Path in plain_types(kind):
        return Path(value)
    if not any(_fits(t, value) for t in plain_types(kind)):
        raise UserError(f"run.json: {value!r} is not of type {kind}; it is damaged")
    return value


def plain_types(kind: Any) -> list[Any]:
    """The types that a value of type `kind` may have, a `Literal` as one."""
    if typing.get_origin(kind) is typing.Annotated:
        return plain_types(typing.get_args(kind)[0])
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return [t for a in typing.get_args(kind) for t in plain_types(a)]
    return [kind]


def _fits(kind: Any, value: Any) -> bool:
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (bool, int, str, type(None)):
        return type(value) is kind
    return not dataclasses.is_dataclass(kind)


def classes(kind: Any) -> list[type]:
    """The dataclasses that a value of type `kind` may be of."""
    if dataclasses.is_dataclass(kind):
        return [kind]
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) in (typing.Union, tuple):
        return [c for a in typing.get_args(kind) for c in classes(a)]
    if typing.get_origin(kind) is typing.Annotated:
        return classes(typing.get_args(kind)[0])
    return []


@functools.cache
def field_texts(cls: type) -> dict[str, str]:
    """Field -> the docstring under it, also those of the classes it rests on."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= _module_texts(inspect.getmodule(base)).get(base.__name__, {})
    return texts


@functools.cache
def _module_texts(module: types.ModuleType) -> dict[str, dict[str, str]]:
    """Class -> field -> the docstring under it."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {
                field.target.id: inspect.cleandoc(text.value.value).replace("\n", " ")
                for field, text in zip(node.body, node.body[1:], strict=False)
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            }  # fmt: skip
    return found
