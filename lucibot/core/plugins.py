"""What other packages add: found by the name of an entry point, or by where it is in Python."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from lucibot.core.errors import UserError, unknown_name


def find_plugin(group: str, name: str) -> Any:
    """What `name` stands for: an entry point of `group`, or "module:attribute".

    Raises:
        UserError: there is no such thing, or it cannot be imported.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError) as e:
            raise UserError(f"{name!r} cannot be imported ({e}): is it on the PYTHONPATH?") from e
        return found
    known = {e.name: e for e in entry_points(group=group)}
    if name not in known:
        error = unknown_name(f"entry point of {group!r}", name, known)
        raise UserError(f"{error}. Is the package that has it installed? Or write module:attribute")
    try:
        return known[name].load()
    except (ImportError, AttributeError) as e:
        raise UserError(f"entry point {name!r} of {group!r} cannot be imported: {e}") from e


def path_of(thing: Any) -> str:
    """The "module:attribute" under which other processes find a class or function.

    Raises:
        UserError: they would not find it there.
    """
    path = f"{thing.__module__}:{thing.__qualname__}"
    if thing.__module__ == "__main__" or "<" in thing.__qualname__:
        raise UserError(
            f"{path} cannot be found by worker processes nor on resume: put it into a module of its "
            "own, at the top level"
        )
    return path
