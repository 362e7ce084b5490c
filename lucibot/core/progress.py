"""How long work tells what it is doing, without knowing about terminals."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def __call__(self, message: str, done: float | None = None) -> None:
        """Say `message`; `done` in [0, 1] moves the bar where there is one."""


def silent(message: str, done: float | None = None) -> None:
    """The `Progress` that says nothing."""
