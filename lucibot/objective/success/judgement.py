"""What a predicate says, and what predicates ask of a final state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lucibot.core.errors import UserError
from lucibot.core.geometry import matrix_np
from lucibot.core.schema import Spec
from lucibot.task import Task
from lucibot.task.references import ObjectName


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one predicate found."""

    name: str
    value: float
    threshold: float
    score: float
    """In [0, 1], 1 where the predicate holds, falling with the distance to its threshold."""
    ok: bool
    metrics: dict[str, float]
    """Named measurements [SI units]."""


class Predicate(Spec):
    """Base of the predicates: what `[[success]]` of a task file gives to one of them."""

    predicate: ClassVar[str]
    """Its name in task files."""
    made_of: ClassVar[str] = "anything"
    """What it can judge: "particles", a rigid "body", or "anything"."""
    object: ObjectName

    def check(self, task: Task) -> None:
        """
        Raises:
            UserError: it can never be judged in this task.
        """
        body = task.object(self.object).is_rigid
        if self.made_of == "particles" and body:
            raise UserError(f"object {self.object!r} is not made of particles")
        if self.made_of == "body" and not body:
            raise UserError(f"object {self.object!r} is not a rigid body")

    def judge(self, task: Task, state: Any) -> Judgement:
        """What the final state says."""
        raise NotImplementedError


def less(predicate: Predicate, value: float, limit: float, metric: str) -> Judgement:
    """`value` must not exceed `limit`; the score falls as limit / value."""
    ok = value <= limit
    return Judgement(
        name=f"{predicate.predicate}({predicate.object})", value=value, threshold=limit,
        score=1.0 if ok else limit / value if math.isfinite(value) else 0.0, ok=ok,
        metrics={metric: value},
    )  # fmt: skip


def at_least(predicate: Predicate, value: float, limit: float, metric: str) -> Judgement:
    """`value` must reach `limit`; the score falls as value / limit."""
    ok = value >= limit
    return Judgement(
        name=f"{predicate.predicate}({predicate.object})", value=value, threshold=limit,
        score=1.0 if ok else max(0.0, value / limit), ok=ok, metrics={metric: value},
    )  # fmt: skip


def placed(task: Task, state: Any, name: str) -> tuple[Any, np.ndarray]:
    """Mesh and pose (4, 4) of a body or of something in the background."""
    if name in state.bodies:
        return task.mesh(task.object(name)), matrix_np(state.bodies[name].pose)
    item = task.solid(name)
    return task.mesh(item), item.T_world_object
