"""Config dataclasses to plain dictionaries and back, for `run.json` and fingerprints.

A dictionary names its class under "type" only where a union leaves a choice, so that adding a
member to a union changes no fingerprint.
"""

from __future__ import annotations

import dataclasses
import types
import typing
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


def from_dict(kind: Any, value: Any) -> Any:
    """Rebuild a config of type `kind` from `to_dict`'s output.

    Raises:
        UserError: the dictionary is of another version of LuciBot.
    """
    if isinstance(value, dict) and "type" in value:
        for cls in _classes(kind):
            if cls.__name__ == value["type"]:
                hints = typing.get_type_hints(cls)
                names = {f.name for f in dataclasses.fields(cls)}
                extra = set(value) - names - {"type"}
                if extra:
                    raise UserError(f"run.json: {cls.__name__} has no setting {sorted(extra)[0]!r}")
                return cls(**{n: from_dict(hints[n], value[n]) for n in names & set(value)})
        raise UserError(f"run.json: {value['type']!r} is not known to this version of LuciBot")
    if isinstance(value, list):
        inner = (*typing.get_args(kind), Any)[0]
        return tuple(from_dict(inner, v) for v in value)
    if value is not None and any(a is Path for a in (kind, *typing.get_args(kind))):
        return Path(value)
    return value


def _classes(kind: Any) -> list[type]:
    if dataclasses.is_dataclass(kind):
        return [kind]
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) in (typing.Union, tuple):
        return [c for a in typing.get_args(kind) for c in _classes(a)]
    if typing.get_origin(kind) is typing.Annotated:
        return _classes(typing.get_args(kind)[0])
    return []
