"""What rollouts bring home: pictures and states for a judge outside of the simulation.

A judge that compares rollouts with one another, asks a service or holds a large model is in one place;
workers only bring what it looks at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from lucibot.core.config import Config
from lucibot.objective.config import VideoObjective
from lucibot.objective.objective import Looks, Objective, Seen

if TYPE_CHECKING:
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
        beside = self.beside and self.beside.create(task, supervision, rest, device)
        return _Bringing(self, beside)


class _Bringing:
    """The `Objective` of a `BringHome`."""

    def __init__(self, config: BringHome, beside: Objective | None):
        self._config, self._beside = config, beside
        self.weights = {} if beside is None else beside.weights
        looks = Looks() if beside is None else beside.looks
        goal = config.moment == "goal"
        self.looks = Looks(
            masks=looks.masks, contact_pairs=looks.contact_pairs, parts=looks.parts,
            around_pairs=looks.around_pairs,
            goal=looks.goal or (config.picture and goal),
            settled=looks.settled or (config.picture and not goal),
            state=looks.state or (config.state and goal),
            settled_state=looks.settled_state or (config.state and not goal),
        )  # fmt: skip

    def score(self, seen: Seen) -> dict[str, Tensor]:
        """See `Objective`."""
        return {} if self._beside is None else self._beside.score(seen)

    def shown(self, seen: Seen) -> dict[str, Tensor]:
        """See `Objective`."""
        c, out = self._config, {}
        if c.picture:
            picture = getattr(seen, c.moment)
            out |= {"label": picture.label.to(torch.uint8), "depth": picture.depth.half()}
        if c.state:
            state = seen.state if c.moment == "goal" else seen.settled_state
            P = seen.contact.shape[1]
            out |= {f"position/{n}": x[-P:] for n, x in state.position.items()}
            out |= {f"quaternion/{n}": x[-P:] for n, x in state.quaternion.items()}
            out |= {f"particles/{n}": x[:, -P:].transpose(0, 1) for n, x in state.particles.items()}
        return out
