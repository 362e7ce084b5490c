"""The objective family's members as configs; light to import."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lucibot.core.config import Config
from lucibot.core.errors import UserError
from lucibot.core.schema import Fraction
from lucibot.objective.weights import FULL_WEIGHTS, TERMS, LossWeights

if TYPE_CHECKING:
    from torch import Tensor

    from lucibot.objective.objective import Objective
    from lucibot.objective.supervision import Supervision
    from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class VideoObjective(Config):
    """Be like the video (paper, section 3.4)."""

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
            try:
                out[name] = float(weight)
            except ValueError:
                out[name] = math.nan
            if not name or not math.isfinite(out[name]):
                raise UserError(f"own loss term {told!r}: expected NAME=WEIGHT")
            if name in TERMS or name in ("waypoints", "loss", "failed"):
                raise UserError(f"own loss term {name!r}: that name is taken")
        return out

    def reached(self, terms: Mapping[str, float]) -> bool:
        """Whether a rollout of these terms has done what the video shows, as far as terms with a weight
        can tell."""
        told = [n for n in ("part_count", "around") if getattr(self.weights, n) > 0]
        return terms["target_iou"] <= 1 - self.least_target_iou and not any(terms[n] for n in told)

    def find_own(self) -> None:
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
        """
        Args:
            rest: particles (N, 3) [m, world] of each deformable actuator as the scene begins.

        Raises:
            UserError: a loss term of one's own is not there.
        """
        from lucibot.objective.video import LikeTheVideo

        return LikeTheVideo(self, task, supervision, rest, device)


ObjectiveConfig = VideoObjective
