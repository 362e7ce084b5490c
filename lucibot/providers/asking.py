"""What members share that ask a vision-language model: words in files of their own, and frames.

The words of each call site lie beside it, in a text file that anyone can read and change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import numpy as np
from pydantic import AfterValidator

from lucibot.core.video import Video
from lucibot.task import Task

T = TypeVar("T")


def _some(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Text = Annotated[str, AfterValidator(_some)]
"""Text of an answer. Its length is checked here: hosted services refuse schemas that speak of it."""


class Later(Generic[T]):
    """Work in a thread that nobody waits for where a run is ended meanwhile."""

    def __init__(self, work: Callable[[], T]):
        self._work, self._found, self._error = work, None, None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._work()
        except BaseException as e:  # It is raised where the result is wanted.
            self._error = e

    def result(self) -> T:
        """What came of it; raises what the work has raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found


def words(beside: str, file: str) -> str:
    """A text file in the folder of a module, which gives its `__file__`."""
    return Path(beside).with_name(file).read_text().strip()


def listed(names: Sequence[str], nothing: str) -> str:
    """Objects' names in words: "the knife and the dough"."""
    spoken = [f"the {n.replace('_', ' ')}" for n in dict.fromkeys(names)]
    if not spoken:
        return nothing
    return " and ".join(p for p in (", ".join(spoken[:-1]), spoken[-1]) if p)


def told(task: Task) -> str:
    """The task in words, as every question begins: what is to be done, and with what."""
    rest = [o.name for o in task.objects if o not in (*task.actuators, *task.targets)]
    lines = [
        f"Instruction: {' '.join(task.instruction.split())}",
        f"Taken in the hand: {listed([o.name for o in task.actuators], 'nothing in particular')}.",
        f"To be changed: {listed([o.name for o in task.targets], 'nothing in particular')}.",
    ]
    if rest:
        lines.append(f"Also there: {listed(rest, '')}.")
    return "\n".join(lines)


def evenly(first: int, last: int, most: int) -> np.ndarray:
    """At most `most` frames from `first` to `last`, both among them where there is room."""
    count = min(most, last - first + 1)
    return np.unique(np.linspace(last if count == 1 else first, last, count).round().astype(int))


def captions(video: Video, frames: Sequence[int]) -> list[str]:
    """What stands before each frame."""
    last = len(video) - 1
    return [f"Frame {t} of {last}, at {t / video.fps:.2f} s:" for t in frames]
