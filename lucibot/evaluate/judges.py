"""The judges' family: what each says of outcomes, on one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lucibot.core.errors import unknown_name
from lucibot.evaluate.config import EvaluateConfig
from lucibot.evaluate.outcomes import Outcome
from lucibot.services import Services


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What one judge says of one outcome."""

    score: float = math.nan
    """Higher is better; NaN where the judge cannot tell, or did not answer."""
    success: bool | None = None
    """Where the judge decides so."""
    told: dict[str, Any] = field(default_factory=dict)
    """What is behind the score."""
    error: str = ""
    """Why there is no score, in one line."""


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What one judge says of all outcomes."""

    judge: str
    each: tuple[Judged, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    """Of the judge itself: its model, how consistent it was."""


class Judge(Protocol):
    def judge(self, outcomes: Sequence[Outcome]) -> Verdicts: ...


JUDGES = {
    "state": "the task's success predicates over the simulator's final state",
    "picture": "the embedded verifier's goal relations on the rendered last frame",
    "vlm-rank": "GPT-ranking: a model ranks last frames of one task, in rounds over shuffled orders",
    "vqa": 'VQA score: how probable a model\'s "yes" is, asked of the last frame',
}
ASKING = ("vlm-rank", "vqa")
"""Those that ask a model."""


def create(name: str, config: EvaluateConfig, services: Services) -> Judge:
    """
    Raises:
        UserError: there is no such judge, or it lacks what it needs.
    """
    if name not in JUDGES:
        raise unknown_name("judge", name, JUDGES)
    if name == "state":
        from lucibot.evaluate.state import StateJudge

        return StateJudge()
    if name == "picture":
        from lucibot.evaluate.picture import PictureJudge

        return PictureJudge()
    if name == "vlm-rank":
        from lucibot.evaluate.ranking import RankingJudge

        return RankingJudge(config, services)
    from lucibot.evaluate.vqa import VqaJudge

    return VqaJudge(config, services)
