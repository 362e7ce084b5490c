"""Success predicates over the simulator's final state, as `[[success]]` in a task file lists them.

Only the report and the benchmark may ask them: a search that did would optimize its own exam. Pure
NumPy. `state` is a `lucibot.sim.state.FinalState`, or anything with the same fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lucibot.core.errors import UserError
from lucibot.core.schema import parse_kind
from lucibot.objective.success.bodies import JointAngle, JointOpening, Nested, Upright
from lucibot.objective.success.containers import HeldAbove, Inside, SpilledLess
from lucibot.objective.success.judgement import Judgement, Predicate
from lucibot.objective.success.motion import At, AtRest, DisplacedLess, Lifted
from lucibot.objective.success.shapes import Covers, Encloses, InsideDomain, Pieces, StaysOn
from lucibot.task import Task
from lucibot.task.references import ensure_named


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What all predicates of a task found of one rollout."""

    success: bool
    score: float
    """Mean of the predicates' scores."""
    metrics: dict[str, float]
    judgements: tuple[Judgement, ...]


KINDS: dict[str, type[Predicate]] = {c.predicate: c for c in (
    Pieces, At, DisplacedLess, Lifted, InsideDomain, Upright, Nested, AtRest, JointAngle,
    JointOpening, Inside, SpilledLess, HeldAbove, StaysOn, Covers, Encloses,
)}  # fmt: skip


def predicates(task: Task) -> list[Predicate]:
    """The task's success predicates.

    Raises:
        UserError: an unknown predicate, key or object, a missing or ill-typed value, or what can
            never be judged in this task.
    """
    found = []
    for i, entry in enumerate(task.spec.success):
        where = f"{task.folder / 'task.toml'}: success.{i}"
        predicate = parse_kind(KINDS, "predicate", entry, where)
        where += f" ({predicate.predicate})"
        ensure_named(task, predicate, where)
        try:
            predicate.check(task)
        except UserError as e:
            raise UserError(f"{where}: {e}") from None
        found.append(predicate)
    return found


def judge(task: Task, state: Any) -> Metrics:
    """Judge one final state by all of the task's predicates; without any, nothing succeeds."""
    found = tuple(p.judge(task, state) for p in predicates(task))
    metrics = {k: v for j in found for k, v in j.metrics.items()}
    return Metrics(
        success=bool(found) and all(j.ok for j in found),
        score=float(np.mean([j.score for j in found])) if found else 0.0,
        metrics=metrics,
        judgements=found,
    )
