"""What rollouts bring home: pictures and states for a judge outside of the simulation. Light to import.

A judge that compares rollouts with one another, asks a service or holds a large model is in one place;
workers only bring what it looks at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lucibot.core.config import Config
from lucibot.objective.config import VideoObjective

if TYPE_CHECKING:
    from torch import Tensor

    from lucibot.objective.objective import Objective
    from lucibot.objective.supervision import Supervision
    from lucibot.task import Task

Moment = Literal["goal", "settled"]
"""The last keyframe, with what is held still held, or the end, when all has been let go and rests."""


@dataclass(frozen=True, kw_only=True)
class BringHome(Config):
    """Bring home what there is at one moment."""

    moment: Moment
    picture: bool = False
    """"label" (P, H, W) uint8 and "depth" (P, H, W) float16 [m] on the observation grid."""
    state: bool = False
    """"position/NAME" (P, 3) [m, world] and "quaternion/NAME" (P, 4) wxyz of rigid bodies,
    "particles/NAME" (P, N, 3) [m, world] of others."""
    beside: VideoObjective | None = None
    """Terms that are scored all the same."""

    def term_weights(self) -> dict[str, float]:
        """See `Scored`."""
        return {} if self.beside is None else self.beside.term_weights()

    def create(
        self, task: Task, supervision: Supervision, rest: Mapping[str, Tensor], device: str
    ) -> Objective:
        """See `Scored`."""
        from lucibot.objective.bringing import Bringing

        beside = self.beside and self.beside.create(task, supervision, rest, device)
        return Bringing(self, beside)
