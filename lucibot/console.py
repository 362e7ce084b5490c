"""How a run shows itself on a terminal (a live line) and in a log (a line now and then)."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from lucibot.core.progress import Progress as Report
from lucibot.pipeline import Stage, StageConsole

QUIET_S = 5.0
"""Seconds between two lines of one stage where there is no terminal."""


class RichConsole(StageConsole):
    def __init__(self) -> None:
        # Messages are text, also where they hold square brackets: no markup anywhere.
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._live = self._console.is_terminal
        self._bar: Progress | None = None
        self._last = 0.0

    def start(self, stage: Stage) -> Report:
        self._stop()
        if self._live:
            self._bar = Progress(
                SpinnerColumn(), TextColumn(f"{stage.name:<9}", style="bold"), BarColumn(bar_width=24),
                TimeElapsedColumn(), TextColumn("{task.description}", markup=False),
                console=self._console, transient=True,
            )  # fmt: skip
            self._bar.start()
            task = self._bar.add_task("", total=None)

            def report(message: str, done: float | None = None) -> None:
                if done is None:
                    self._bar.update(task, description=message)
                else:
                    self._bar.update(task, description=message, total=1.0, completed=done)

            return report
        self._console.print(f"{stage.name:<9} ...")
        self._last = time.monotonic()

        def say(message: str, done: float | None = None) -> None:
            if time.monotonic() - self._last >= QUIET_S:
                share = "" if done is None else f"{100 * done:3.0f}% "
                self._console.print(f"{stage.name:<9} {share}{message}")
                self._last = time.monotonic()

        return say

    def done(self, stage: Stage, seconds: float, skipped: bool) -> None:
        self._stop()
        mark = "kept from before" if skipped else f"{seconds:.1f} s"
        self._console.print(Text.assemble((f"{stage.name:<9}", "bold"), f" {mark}"))

    def say(self, message: str) -> None:
        (self._bar.console if self._bar else self._console).print(f"          {message}")

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def close(self) -> None:
        self._stop()
        sys.stderr.flush()
