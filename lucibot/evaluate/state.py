"""By the simulator's state: the task's success predicates, which no search has seen."""

from __future__ import annotations

from collections.abc import Sequence

from lucibot.core.errors import LuciBotError
from lucibot.evaluate.judges import Judged, Verdicts
from lucibot.evaluate.outcomes import Outcome
from lucibot.objective.success import judge
from lucibot.sim.state import FinalState
from lucibot.task import Task


class StateJudge:
    """The predicates' mean score in [0, 1] of each outcome, by the task as it is now."""

    def judge(self, outcomes: Sequence[Outcome]) -> Verdicts:
        return Verdicts(judge="state", each=tuple(judge_state(o.task, o.state) for o in outcomes))


def judge_state(task: Task, state: FinalState) -> Judged:
    """How a task's predicates see a state."""
    if not task.spec.success:
        return Judged(error=f"the task {task.name!r} has no success predicate")
    try:
        found = judge(task, state)
    except (LuciBotError, KeyError) as e:
        return Judged(error=f"its state does not fit the task as it is now ({e})")
    missed = [j.name for j in found.judgements if not j.ok]
    return Judged(score=found.score, success=found.success, told={"missed": missed})
