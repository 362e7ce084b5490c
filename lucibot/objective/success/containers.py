"""What vessels and bowls hold, and what was spilled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lucibot.core.errors import UserError
from lucibot.objective.success.judgement import Judgement, at_least, less, particles, placed
from lucibot.objective.success.vessels import Bowl, inside_hull, over_hull
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class Inside:
    """At least `min_fraction` of the particles lie in the container: in its hull."""

    predicate: ClassVar[str] = "inside"
    object: str
    container: str
    min_fraction: float

    def judge(self, task: Task, state: Any) -> Judgement:
        p = particles(self, state)
        share = float(_within(task, state, self.container, p).mean())
        return at_least(self, share, self.min_fraction, f"{self.object}.share_in_{self.container}")


@dataclass(frozen=True, kw_only=True)
class SpilledLess:
    """At most `max_fraction` of the particles lie in none of the containers.

    With a bowl in `held_by`, of the particles that left the containers: those in the bowl are held;
    of the others those beside the containers are spilled, but not those on a container's rim, or
    falling back into it.
    """

    predicate: ClassVar[str] = "spilled_less"
    object: str
    containers: list[str]
    max_fraction: float
    held_by: str = ""

    def judge(self, task: Task, state: Any) -> Judgement:
        p = particles(self, state)
        spilled = ~np.any([_within(task, state, c, p) for c in self.containers], axis=0)
        whole = len(spilled)
        if self.held_by:
            whole = max(1, int(spilled.sum()))
            bowl, T_world = _bowl(self, task, state, self.held_by)
            spilled &= ~bowl.holds(T_world, p.final, float(p.size_m))
            for c in self.containers:
                mesh, T = placed(task, state, c)
                spilled &= ~over_hull(mesh, T, p.final, 0.5 * float(p.size_m))
        share = float(spilled.sum() / whole)
        return less(self, share, self.max_fraction, f"{self.object}.spilled_share")


@dataclass(frozen=True, kw_only=True)
class HeldAbove:
    """The bowl holds at least `min_share` of what fits in it, all of that at least `height_m` above
    the top of `above`."""

    predicate: ClassVar[str] = "held_above"
    object: str
    bowl: str
    above: str
    height_m: float
    min_share: float

    def judge(self, task: Task, state: Any) -> Judgement:
        p = particles(self, state)
        bowl, T_world = _bowl(self, task, state, self.bowl)
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


def _bowl(predicate: Any, task: Task, state: Any, name: str) -> tuple[Bowl, np.ndarray]:
    mesh, T_world = placed(task, state, name)
    bowl = Bowl.of(mesh)
    if bowl.capacity_m3 <= 0:
        raise UserError(f"success predicate {predicate.predicate!r}: {name!r} holds nothing")
    return bowl, T_world
