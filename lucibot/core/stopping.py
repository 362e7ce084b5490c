"""Ctrl-C and SIGTERM: work is unwound, and what does not unwind soon is ended.

Whatever is written is renamed into place, so a process may end anywhere; what must not happen is
that threads and children go on burning cores after the user has said stop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 4.0
"""How long work may take to unwind."""

_how_to_go_on: list[str] = []


class Stopped(KeyboardInterrupt):
    """The user said stop; `status` is the process's."""

    def __init__(self, number: int = signal.SIGINT):
        super().__init__()
        self.status = 128 + number


def line() -> str:
    """What is said of a stop."""
    return "; ".join(["lucibot: stopped", *_how_to_go_on[-1:]])


@contextmanager
def goes_on(how: str) -> Iterator[None]:
    """What is stopped inside goes on in this way."""
    _how_to_go_on.append(how)
    yield
    # Not if it was stopped: then it is about to be said.
    _how_to_go_on.remove(how)


@contextmanager
def listening() -> Iterator[None]:
    """Turn both signals into `Stopped`, in the main thread; elsewhere they stay what they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _how_to_go_on.clear()
    before = {n: signal.signal(n, _hear) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hear(number: int, frame: FrameType | None) -> None:
    stop = Stopped(number)
    # A second one ends everything at once, as does time.
    for n in (signal.SIGINT, signal.SIGTERM):
        signal.signal(n, lambda *_: _end(stop.status))
    timer = threading.Timer(GRACE_S, _end, [stop.status])
    timer.daemon = True
    timer.start()
    raise stop


def _end(status: int) -> None:
    """End this process and its children, whatever they are at."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            pass  # It has ended by itself.
    print(line(), file=sys.stderr, flush=True)
    os._exit(status)
