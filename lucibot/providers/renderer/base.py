"""The renderer family: the photoreal first frame (paper, section 3.2)."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lucibot.core.progress import Progress
from lucibot.task import Task


class Renderer(Protocol):
    notes: list[str]
    """What the run's records should say of how the pictures were made."""

    def render(self, task: Task, *, foreground: bool, progress: Progress) -> np.ndarray | None:
        """(H, W, 3) uint8 sRGB picture of the initial scene through the task's camera, with or
        without the foreground objects; None where there can be none without them."""
        ...
