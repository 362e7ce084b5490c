"""The cheap checks of a task, in order: about a second, and nothing is simulated or rendered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lucibot.checks import shapes
from lucibot.checks.overlaps import overlaps
from lucibot.core.errors import LuciBotError, UserError
from lucibot.core.progress import Progress, silent
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class Check:
    name: str
    passed: bool
    message: str
    """What was found, in one line."""


def try_one(name: str, act: Callable[[], str]) -> Check:
    """A check of what `act` does: it returns what it found, or raises what is wrong."""
    try:
        return Check(name=name, passed=True, message=act())
    except LuciBotError as e:
        return Check(name=name, passed=False, message=str(e))


def checks(task: Task, *, storyboard: bool = True, progress: Progress = silent) -> Iterator[Check]:
    """Every check, whether or not an earlier one failed; without sound meshes those that need them
    are left out.

    Args:
        storyboard: whether the storyboard is tried as well.
    """

    def tried(name: str, act: Callable[[], str]) -> Check:
        progress(f"checking {name}")
        return try_one(name, act)

    yield tried("goal and success", lambda: goal_and_success(task))
    meshes = True
    for o in task.objects:
        check = tried(f"mesh {o.name}", lambda o=o: shapes.object_mesh(task, o))
        meshes &= check.passed
        yield check
    for b in (b for b in task.spec.background if b.mesh is not None):
        check = tried(f"mesh {b.name}", lambda b=b: shapes.background_mesh(task, b))
        meshes &= check.passed
        yield check
    yield tried("textures", lambda: shapes.textures(task))
    if storyboard:
        yield tried("storyboard", lambda: plan(task))
    if meshes:
        yield tried("sizes", lambda: shapes.sizes(task))
        yield tried("domain", lambda: shapes.domain(task))
        yield tried("overlaps", lambda: overlaps(task))


def ensure_sound(task: Task, *, storyboard: bool) -> None:
    """
    Args:
        storyboard: whether videos are to be drawn from the storyboard.

    Raises:
        UserError: the first check that fails, in one line.
    """
    if storyboard:
        from lucibot.providers.video.storyboard.schema import load_storyboard

        load_storyboard(task)  # Without one nothing can be drawn, which is no fault of a task.
    for check in checks(task, storyboard=storyboard):
        if not check.passed:
            where = "" if str(task.folder) in check.message else f"{task.folder / 'task.toml'}: "
            raise UserError(f"{where}{check.message}")


def goal_and_success(task: Task) -> str:
    from lucibot.objective.success import predicates
    from lucibot.providers.verifier.goals import relations

    goal, found = relations(task), predicates(task)
    if not found:
        raise UserError(
            "no [[success]] predicate: no run of this task could ever be called a success"
        )
    return f"{len(found)} success predicates, {len(goal)} goal relations"


def plan(task: Task) -> str:
    from lucibot.providers.video.storyboard.plan import make_plan
    from lucibot.providers.video.storyboard.schema import load_storyboard

    if not (task.folder / "storyboard.toml").is_file():
        return "none; runs need --video FILE or a video model"
    spec, rng = load_storyboard(task), np.random.default_rng(0)
    make_plan(task, spec, rng, miss=True)
    return f"valid, {len(make_plan(task, spec, np.random.default_rng(0)))} frames"
