"""What rollouts are scored by in the simulation, as configs; light to import.

`VideoObjective` is LuciBot's own. What the search can minimise beside it is in
`lucibot.baselines.config`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from lucibot.core.config import Config
from lucibot.core.errors import UserError
from lucibot.core.schema import Fraction
from lucibot.objective.weights import FULL_WEIGHTS, TERMS, LossWeights

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from lucibot.objective.objective import Objective
    from lucibot.objective.supervision import Supervision
    from lucibot.task import Task

TAKEN = ("waypoints", "loss", "failed", "file", "allow_pickle")
"""What lies beside terms in a search's files, and what NumPy, which writes them, calls its own arguments."""


class Scored(Protocol):
    """What simulation workers are given."""

    def create(
        self, task: Task, supervision: Supervision, rest: Mapping[str, Tensor], device: str
    ) -> Objective:
        """
        Args:
            rest: particles (N, 3) [m, world] of each deformable actuator as the scene begins.

        Raises:
            UserError: a loss term of one's own is not there.
        """
        ...

    def term_weights(self) -> dict[str, float]:
        """Of every term that is scored."""
        ...


@dataclass(frozen=True, kw_only=True)
class ObjectiveMember(Config):
    """What all members of the family `optimize.objective` share. None of them sees a task's success
    predicates."""

    START: ClassVar[str] = "video"
    """Where the search starts, unless it is told: a kind of `lucibot.optimize.config.StartConfig`."""
    READS: ClassVar[tuple[str, ...]] = ()
    """Stages that it reads beside `scene` and `perceive`."""
    READS_TASK: ClassVar[tuple[str, ...]] = ()
    """Parts of the task that it reads beside those that a simulation reads."""
    JUDGED: ClassVar[bool] = False
    """Whether `judge` gives one."""

    def ensure(self) -> None:
        """
        Raises:
            UserError: what it needs is not there, which is better said before a run begins.
        """

    def ensure_suits(self, task: Task) -> None:
        """
        Raises:
            UserError: it has nothing to say of this task.
        """

    def supervised(self, supervision: Supervision) -> Supervision:
        """What of the video it works with."""
        return supervision

    def reached(self, terms: Mapping[str, float]) -> bool:
        """Whether a rollout of these terms has done what is wanted; a search that stalls short of that
        begins again, and of a member that cannot tell it ends."""
        return True

    def asked(self) -> tuple[Config, ...]:
        """Its members that may ask a vision-language model."""
        return ()

    def in_workers(self) -> Scored:
        """What the simulation's workers are given."""
        raise NotImplementedError

    def judge(self, given: Any) -> Any:
        """The `lucibot.baselines.judge.Judge` of what workers bring home, made from a
        `lucibot.baselines.judge.Given`; None where their own terms say all."""
        return None

    def followed(self, given: Any) -> np.ndarray | None:
        """Waypoints (K, A, 6) that are executed as they are, of a member that searches nothing."""
        return None


@dataclass(frozen=True, kw_only=True)
class VideoObjective(ObjectiveMember):
    """Be like the video (paper, section 3.4)."""

    kind: Literal["video"] = "video"
    weights: LossWeights = FULL_WEIGHTS
    least_target_iou: Fraction = 0.6
    """From which overlap of the targets' masks at the last keyframe on a rollout has done what the video
    shows, if all its parts and what it goes around are as well: a search that has stalled short of that
    begins again."""
    own_terms: str = ""
    """Loss terms of one's own and their weights, NAME=WEIGHT with commas between; a name is that of
    an entry point of `lucibot.loss_terms`, or module:Class."""

    def check(self) -> None:
        self.own_weights()

    def own_weights(self) -> dict[str, float]:
        """The weights of `own_terms`.

        Raises:
            UserError: they are not written as they should be.
        """
        out: dict[str, float] = {}
        for told in filter(None, (t.strip() for t in self.own_terms.split(","))):
            name, _, weight = (part.strip() for part in told.rpartition("="))
            if name in out:
                raise UserError(f"own loss term {name!r}: it is given twice")
            try:
                out[name] = float(weight)
            except ValueError:
                out[name] = math.nan
            if not name or not math.isfinite(out[name]):
                raise UserError(f"own loss term {told!r}: expected NAME=WEIGHT")
            if name in (*TERMS, *TAKEN):
                raise UserError(f"own loss term {name!r}: that name is taken")
        return out

    def reached(self, terms: Mapping[str, float]) -> bool:
        """Whether a rollout of these terms has done what the video shows, as far as terms with a weight
        can tell."""
        told = [n for n in ("part_count", "around") if getattr(self.weights, n) > 0]
        overlaps = ["target_iou"] + ["target_lasts"] * (self.weights.target_lasts > 0)
        most = 1 - self.least_target_iou
        return all(terms[n] <= most for n in overlaps) and not any(terms[n] for n in told)

    def term_weights(self) -> dict[str, float]:
        """See `Scored`."""
        return asdict(self.weights) | self.own_weights()

    def in_workers(self) -> Scored:
        """See `ObjectiveMember`."""
        return self

    def ensure(self) -> None:
        """
        Raises:
            UserError: a loss term of one's own is not there.
        """
        from lucibot.objective.terms import find_term

        for name in self.own_weights():
            find_term(name)

    def create(
        self, task: Task, supervision: Supervision, rest: Mapping[str, Tensor], device: str
    ) -> Objective:
        """See `Scored`."""
        from lucibot.objective.video import LikeTheVideo

        return LikeTheVideo(self, task, supervision, rest, device)
