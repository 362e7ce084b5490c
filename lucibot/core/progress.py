"""How long work tells what it is doing, without knowing about terminals."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def __call__(self, message: str, done: float | None = None) -> None:
        """Say `message`; `done` in [0, 1] moves the bar where there is one."""


def silent(message: str, done: float | None = None) -> None:
    """The `Progress` that says nothing."""


def part(progress: Progress, start: float, end: float) -> Progress:
    """The stretch of the bar, from `start` to `end` in [0, 1], that one step of a work may fill."""

    def say(message: str, done: float | None = None) -> None:
        progress(message, None if done is None else start + (end - start) * done)

    return say
