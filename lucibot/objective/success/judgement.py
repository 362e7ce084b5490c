"""What a predicate says, and what predicates ask of a final state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lucibot.core.errors import UserError
from lucibot.core.geometry import matrix_np
from lucibot.task import Task


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


def less(predicate: Any, value: float, limit: float, metric: str) -> Judgement:
    """`value` must not exceed `limit`; the score falls as limit / value."""
    ok = value <= limit
    return Judgement(
        name=f"{predicate.predicate}({predicate.object})", value=value, threshold=limit,
        score=1.0 if ok else limit / value if math.isfinite(value) else 0.0, ok=ok,
        metrics={metric: value},
    )  # fmt: skip


def at_least(predicate: Any, value: float, limit: float, metric: str) -> Judgement:
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


def particles(predicate: Any, state: Any):
    if predicate.object not in state.particles:
        raise UserError(
            f"success predicate {predicate.predicate!r}: {predicate.object!r} is not made of "
            "particles"
        )
    return state.particles[predicate.object]


def body(predicate: Any, state: Any, name: str):
    if name not in state.bodies:
        raise UserError(f"success predicate {predicate.predicate!r}: {name!r} is not a rigid body")
    return state.bodies[name]
