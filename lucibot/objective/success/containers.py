"""What vessels and bowls hold, and what was spilled."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from lucibot.core.errors import UserError
from lucibot.core.schema import Distance, Fraction, Positive
from lucibot.objective.success.judgement import (
    Judgement,
    Predicate,
    at_least,
    less,
    placed,
)
from lucibot.objective.success.vessels import Bowl, inside_hull, over_hull
from lucibot.task import Task
from lucibot.task.references import SolidName


class Inside(Predicate):
    """At least `min_fraction` of the particles lie in the container: in its hull."""

    predicate: ClassVar[str] = "inside"
    made_of: ClassVar[str] = "particles"
    container: SolidName
    min_fraction: Fraction

    def judge(self, task: Task, state: Any) -> Judgement:
        p = state.particles[self.object]
        share = float(_within(task, state, self.container, p).mean())
        return at_least(self, share, self.min_fraction, f"{self.object}.share_in_{self.container}")


class SpilledLess(Predicate):
    """At most `max_fraction` of the particles lie in none of the containers.

    With a bowl in `held_by`, of the particles that left the containers: those in the bowl are held;
    of the others those beside the containers are spilled, but not those on a container's rim, or
    falling back into it.
    """

    predicate: ClassVar[str] = "spilled_less"
    made_of: ClassVar[str] = "particles"
    containers: list[SolidName] = Field(min_length=1)
    max_fraction: Fraction
    held_by: SolidName | None = None

    def check(self, task: Task) -> None:
        super().check(task)
        if self.held_by is not None:
            _bowl(task.mesh(task.solid(self.held_by)), self.held_by)

    def judge(self, task: Task, state: Any) -> Judgement:
        p = state.particles[self.object]
        spilled = ~np.any([_within(task, state, c, p) for c in self.containers], axis=0)
        whole = len(spilled)
        if self.held_by:
            whole = max(1, int(spilled.sum()))
            mesh, T_world = placed(task, state, self.held_by)
            bowl = _bowl(mesh, self.held_by)
            spilled &= ~bowl.holds(T_world, p.final, float(p.size_m))
            for c in self.containers:
                mesh, T = placed(task, state, c)
                spilled &= ~over_hull(mesh, T, p.final, 0.5 * float(p.size_m))
        share = float(spilled.sum() / whole)
        return less(self, share, self.max_fraction, f"{self.object}.spilled_share")


class HeldAbove(Predicate):
    """The bowl holds at least `min_share` of what fits in it, all of that at least `height_m` above
    the top of `above`."""

    predicate: ClassVar[str] = "held_above"
    made_of: ClassVar[str] = "particles"
    bowl: SolidName
    above: SolidName
    height_m: Distance
    min_share: Positive = Field(le=10)

    def check(self, task: Task) -> None:
        super().check(task)
        _bowl(task.mesh(task.solid(self.bowl)), self.bowl)

    def judge(self, task: Task, state: Any) -> Judgement:
        p = state.particles[self.object]
        mesh, T_world = placed(task, state, self.bowl)
        bowl = _bowl(mesh, self.bowl)
        mesh, T_above = placed(task, state, self.above)
        top = (np.asarray(mesh.vertices) @ T_above[2, :3] + T_above[2, 3]).max()
        held = bowl.holds(T_world, p.final, float(p.size_m))
        held &= p.final[:, 2] > top + self.height_m
        volume = held.sum() * task.mesh(task.object(self.object)).volume / len(held)
        share = float(volume / bowl.capacity_m3)
        return at_least(self, share, self.min_share, f"{self.bowl}.filled_share")


def _within(task: Task, state: Any, container: str, particles: Any) -> np.ndarray:
    """(N,) bool, a particle on the wall counts."""
    mesh, T_world = placed(task, state, container)
    return inside_hull(mesh, T_world, particles.final, 0.5 * float(particles.size_m))


def _bowl(mesh, name: str) -> Bowl:
    bowl = Bowl.of(mesh)
    if bowl.capacity_m3 <= 0:
        raise UserError(f"{name!r} holds nothing: it is no bowl that opens along its own z")
    return bowl
