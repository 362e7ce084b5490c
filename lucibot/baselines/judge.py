"""How a member of the family scores rollouts outside of the simulation: all of a batch at once, in one
process, whatever it costs to have it ready."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.objective.evaluation import Evaluate, Evaluation
from lucibot.objective.supervision import Supervision
from lucibot.services import Services
from lucibot.task import Task

JUDGE = "judge"
"""The folder of a stage in which a judge keeps what it must find again."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a member may look at."""

    task: Task
    view: SceneView
    supervision: Supervision
    services: Services
    folder: Path
    """Where it keeps what must outlive a stopped search."""
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """Folders of the stages in its `READS`."""
    seed: int = 0
    progress: Progress = silent
    note: Callable[[str], None] = lambda message: None


class Judge(Protocol):
    weights: Mapping[str, float]
    """Of every term that `terms` gives."""

    def terms(self, rollouts: Evaluation) -> dict[str, np.ndarray]:
        """Named, unweighted terms (P,) of P rollouts, none of which has failed; lower is better.

        Raises:
            UserError, RunFailed: it cannot.
            OtherScale: asked again it can, by another measure than before.
        """
        ...


def judged(evaluate: Evaluate, judge: Judge | None) -> Evaluate:
    """`evaluate`, with the loss that the judge gives; the terms that workers have scored stay beside it,
    without a say."""
    if judge is None:
        return evaluate

    def with_judge(waypoints: np.ndarray) -> Evaluation:
        found = evaluate(waypoints)
        return with_verdict(found, judge)

    return with_judge


def with_verdict(found: Evaluation, judge: Judge | None) -> Evaluation:
    """One evaluation with the loss that the judge gives, if there is one; what was brought home for it
    is dropped."""
    if judge is None:
        return found
    sound = np.flatnonzero(~found.failed)
    terms = {n: np.full(len(found.failed), np.nan, np.float32) for n in judge.weights}
    loss = np.full(len(found.failed), np.inf, np.float32)
    if len(sound):
        said = judge.terms(
            replace(
                found, loss=found.loss[sound], failed=found.failed[sound],
                terms={n: v[sound] for n, v in found.terms.items()},
                shown={n: v[sound] for n, v in found.shown.items()},
            )
        )  # fmt: skip
        total = np.zeros(len(sound))
        for name, weight in judge.weights.items():
            terms[name][sound] = said[name]
            total = total + weight * np.asarray(said[name], float)
        loss[sound] = total
    return replace(found, loss=loss, terms={**found.terms, **terms}, shown={})
