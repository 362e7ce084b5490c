"""Where the time of an evaluation goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PARTS = ("physics", "control", "observe", "losses", "ask and tell", "Python")
"""Of a generation; the last is what is left."""


class Timer:
    """Adds up the time that parts of the work take. A part within another counts as its own alone, so
    that all of them together are the whole.

    Args:
        synchronize: waits for what a GPU has been told; without it its time is that of whoever waits
            for it next.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None):
        self.synchronize = synchronize
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        self._count()
        self._open.append(name)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def _count(self) -> None:
        if self.synchronize is not None:
            self.synchronize()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now
