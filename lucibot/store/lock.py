"""One process at a time: a lock that ends with its process, and says who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lucibot.core.errors import RunFailed


class InUse(RunFailed):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file at `path`; the file stays, the lock goes with the process however it ends.

    Args:
        what: what is locked, for the message.
        wait: until whoever holds it is done, for locks that are held for moments.

    Raises:
        InUse: another process (or another part of this one) holds it.
    """
    with open(path, "a+") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InUse(f"{what} is in use by {_holder(f)}; wait for it or stop it") from None
        f.seek(0)
        f.truncate()
        json.dump({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}, f)
        f.flush()
        try:
            yield
        finally:
            f.seek(0)
            f.truncate()


def _holder(f) -> str:
    """The process that holds the lock, as it wrote itself into it."""
    f.seek(0)
    try:
        holder = json.loads(f.read())
        return f"process {holder['pid']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # It has locked, and not yet written.
