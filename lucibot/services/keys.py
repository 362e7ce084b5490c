"""Keys: read from the environment, kept out of everything that is written or said."""

from __future__ import annotations

import os
import threading

from lucibot.core.errors import UserError
from lucibot.services.config import OPENAI, VlmConfig

SHORTEST = 6
"""A shorter value is no key; hiding it would tear words apart."""

_lock = threading.Lock()
_used: set[str] = set()


def key(variable: str, *, wanted_for: str) -> str:
    """The key in an environment variable.

    Raises:
        UserError: it is not set, or holds what is no key.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        raise UserError(f"{wanted_for} needs a key: set the environment variable {variable}")
    keep_out(value)
    if not (value.isascii() and value.isprintable()):
        # Libraries would repeat it in their errors.
        raise UserError(
            f"the environment variable {variable} holds a line break or another character that is in no "
            "key; does it hold several lines of a file?"
        )
    return value


def keep_out(value: str) -> None:
    """Let `hidden` hide this as well: what is made from a key and as good as one, such as a token."""
    with _lock:
        _used.add(value)


def server_key(config: VlmConfig) -> str:
    """The key of a model server; "none" where it is one's own and asks for none.

    Raises:
        UserError: it is not set.
    """
    if config.base_url is not None and not os.environ.get(config.key_variable):
        return "none"  # The client wants some text.
    where = config.base_url or OPENAI
    return key(config.key_variable, wanted_for=f"the model server {where}")


def hidden(text: str) -> str:
    """`text` without any key that has been read: what a server says may repeat what it was sent."""
    with _lock:
        values = sorted((v for v in _used if len(v) >= SHORTEST), key=len, reverse=True)
    for value in values:
        for written in (value, repr(value)[1:-1]):
            text = text.replace(written, "[key]")
    return text


def quoted(text: str, longest: int = 300) -> str:
    """What others have said, on one line, for a message: hidden before it is cut, for what is left of
    a key that was cut in two is not found any more."""
    return " ".join(hidden(text).split())[:longest]
