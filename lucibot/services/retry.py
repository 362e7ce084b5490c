"""Tries again where a service is busy, broken or out of reach, and waits longer each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from lucibot.core.errors import RunFailed

T = TypeVar("T")

LONGEST_WAIT_S = 60.0


class Again(Exception):
    """Raised by a call that may be tried again.

    Args:
        after_s: what the service asks to be waited (Retry-After).
    """

    def __init__(self, why: str, *, after_s: float | None = None):
        super().__init__(why)
        self.why, self.after_s = why, after_s


class GaveUp(RunFailed):
    """The last try failed."""


def retry_after(headers: Any) -> float | None:
    """Seconds that an answer's headers ask to be waited; None where they say nothing."""
    try:
        return max(float(headers.get("retry-after")), 0.0)
    except (TypeError, ValueError):
        return None


def with_retries(
    call: Callable[[], T],
    *,
    tries: int,
    first_wait_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """`call()`, up to `tries` times while it raises `Again`.

    Raises:
        GaveUp: it raised `Again` every time, or the service asks for a wait of more than a minute.
    """
    for k in range(tries):
        try:
            return call()
        except Again as e:
            wait_s = min(first_wait_s * 2**k, LONGEST_WAIT_S) if e.after_s is None else e.after_s
            if wait_s > LONGEST_WAIT_S:
                raise GaveUp(f"{e.why}; it asks to be left alone for {wait_s:.0f} s") from None
            if k + 1 == tries:
                raise GaveUp(f"{e.why}, {tries} times") from None
            sleep(wait_s)
    raise AssertionError("tries is at least one")
