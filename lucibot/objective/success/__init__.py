"""Success predicates over the simulator's final state, as `[[success]]` in a task file lists them.

Only the report and the benchmark may ask them: a search that did would optimize its own exam. Pure
NumPy. `state` is a `lucibot.sim.state.FinalState`, or anything with the same fields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_args

import numpy as np

from lucibot.core.errors import UserError, unknown_name
from lucibot.objective.success.bodies import JointAngle, JointOpening, Nested, Upright
from lucibot.objective.success.containers import HeldAbove, Inside, SpilledLess
from lucibot.objective.success.judgement import Judgement
from lucibot.objective.success.motion import At, AtRest, DisplacedLess, Lifted
from lucibot.objective.success.shapes import Covers, Encloses, InsideDomain, Pieces, StaysOn
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What all predicates of a task found of one rollout."""

    success: bool
    score: float
    """Mean of the predicates' scores."""
    metrics: dict[str, float]
    judgements: tuple[Judgement, ...]


Predicate = (
    Pieces | At | DisplacedLess | Lifted | InsideDomain | Upright | Nested | AtRest | JointAngle
    | JointOpening | Inside | SpilledLess | HeldAbove | StaysOn | Covers | Encloses
)  # fmt: skip
KINDS: dict[str, type] = {c.predicate: c for c in get_args(Predicate)}
WANTED: dict[str, Callable[[Any], bool]] = {
    "str": lambda v: isinstance(v, str),
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "float": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "list[str]": lambda v: isinstance(v, list) and all(map(WANTED["str"], v)),
    "list[float]": lambda v: isinstance(v, list) and all(map(WANTED["float"], v)),
}
"""Whether TOML gave what a field of that type wants."""


def predicates(task: Task) -> list[Predicate]:
    """The task's success predicates.

    Raises:
        UserError: an unknown predicate, key or object, or a missing or ill-typed value.
    """
    return [_parse(task, i, dict(entry)) for i, entry in enumerate(task.spec.success)]


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


def _parse(task: Task, index: int, entry: dict[str, Any]) -> Predicate:
    where = f"task {task.name!r}, success[{index}]"
    kind = entry.pop("predicate", None)
    if kind is None:
        raise UserError(f"{where}: needs a predicate, one of {', '.join(sorted(KINDS))}")
    if kind not in KINDS:
        raise unknown_name(f"predicate at {where}:", str(kind), KINDS)
    cls = KINDS[kind]
    known = {f.name: f for f in fields(cls)}
    for key, value in entry.items():
        if key not in known:
            raise unknown_name(f"key at {where} ({kind}):", key, known)
        if not WANTED[str(known[key].type)](value):
            raise UserError(f"{where} ({kind}): {key} must be a {known[key].type}, got {value!r}")
    missing = [n for n, f in known.items() if f.default is MISSING and n not in entry]
    if missing:
        raise UserError(f"{where} ({kind}): {missing[0]} is missing")
    task.object(entry["object"])
    for key in ("container", "bowl", "above", "held_by", "on"):
        if entry.get(key):
            task.solid(entry[key])
    for name in entry.get("containers", []):
        task.solid(name)
    return cls(**entry)
