"""Ctrl-C, SIGTERM and a terminal that is closed: work is unwound, and what does not unwind soon is ended.

Whatever is written is renamed into place, so a process may end anywhere; what must not happen is
that threads and children go on burning cores after the user has said stop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 4.0
"""How long work may take to unwind."""

_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
_how_to_go_on: list[str] = []
_groups: set[int] = set()
"""Of programs that run in sessions of their own, where no terminal reaches them."""


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
def ending_too(group: int) -> Iterator[None]:
    """A process group that a stop ends as well, from whichever thread it was started."""
    _groups.add(group)
    try:
        yield
    finally:
        _groups.discard(group)


def _tell(number: int) -> None:
    for group in list(_groups):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


@contextmanager
def listening() -> Iterator[None]:
    """Turn these signals into `Stopped`, in the main thread; elsewhere they stay what they are, and so
    does a hang-up that is to be ignored (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _how_to_go_on.clear()
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    heard = [n for n in _SIGNALS if not (ignored and n == signal.SIGHUP)]
    before = {n: signal.signal(n, _hear) for n in heard}
    told, sys.unraisablehook = sys.unraisablehook, _unraisable
    try:
        yield
    finally:
        sys.unraisablehook = told
        for number, handler in before.items():
            signal.signal(number, handler)


def _hear(number: int, frame: FrameType | None) -> None:
    stop = Stopped(number)
    # A second one ends everything at once, as does time.
    for n in (signal.SIGINT, signal.SIGTERM):
        signal.signal(n, lambda *_: _end(stop.status))
    _tell(number)
    timer = threading.Timer(GRACE_S, _end, [stop.status])
    timer.daemon = True
    timer.start()
    raise stop


def _unraisable(lost) -> None:
    """A signal that is heard while something is being collected raises there, where nothing can be
    raised; it is raised again right after."""
    if not isinstance(lost.exc_value, Stopped):
        sys.__unraisablehook__(lost)
        return
    number = lost.exc_value.status - 128

    def again(*_) -> None:
        signal.signal(number, lambda *_: _end(128 + number))
        raise Stopped(number)

    signal.signal(number, again)
    main = threading.main_thread().ident
    # Sent to the main thread itself, so that a call in which it waits is interrupted.
    threading.Timer(0.02, signal.pthread_kill, [main, number]).start()


def _end(status: int) -> None:
    """End this process and its children, whatever they are at."""
    import psutil

    _tell(signal.SIGKILL)
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            pass  # It has ended by itself.
    print(line(), file=sys.stderr, flush=True)
    os._exit(status)
