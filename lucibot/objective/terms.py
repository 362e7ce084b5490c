"""Loss terms of one's own: classes that other packages have, named in the config of the search."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from lucibot.core.errors import UserError
from lucibot.core.plugins import find_plugin

if TYPE_CHECKING:
    from torch import Tensor

    from lucibot.objective.objective import Seen
    from lucibot.objective.supervision import Supervision
    from lucibot.task import Task

GROUP = "lucibot.loss_terms"
"""Entry points of this group are loss terms, by name."""


class LossTerm:
    """Base of a loss term: derive, and give `__call__`. What does not change from one batch to the
    next is made in `__init__`, once for each video in each process."""

    sees_state: ClassVar[bool] = False
    """Whether it is shown the simulator's own poses and particles, which a video does not show."""

    def __init__(self, task: Task, supervision: Supervision, device: str):
        self.task, self.supervision, self.device = task, supervision, device

    def __call__(self, seen: Seen) -> Tensor:
        """(P,) float32, unweighted, lower is better; of each rollout by itself."""
        raise NotImplementedError


def find_term(name: str) -> type[LossTerm]:
    """The loss term of an entry point or of "module:Class".

    Raises:
        UserError: there is none of that name, or it is no `LossTerm`.
    """
    found = find_plugin(GROUP, name)
    if not (isinstance(found, type) and issubclass(found, LossTerm)):
        raise UserError(f"loss term {name!r} is {found!r}, which is not derived from LossTerm")
    return found
