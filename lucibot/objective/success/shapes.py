"""The shape that particles have taken: pieces, rings, layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from lucibot.core.schema import Count, Distance, Fraction, Positive
from lucibot.objective.success.footprint import footprint_m2, on_top
from lucibot.objective.success.judgement import (
    Judgement,
    Predicate,
    at_least,
    placed,
)
from lucibot.objective.success.loops import enclosed, longest_step, loop_of
from lucibot.objective.success.pieces import piece_fractions
from lucibot.task import Task
from lucibot.task.references import SolidName


class Pieces(Predicate):
    """The object's particles form exactly `count` connected pieces, crumbs apart."""

    predicate: ClassVar[str] = "pieces"
    made_of: ClassVar[str] = "particles"
    count: Count
    min_fraction: Fraction = 0.2
    """Smallest share of the particles that each piece may have."""
    spacings: Positive = Field(1.5, ge=1, le=100)
    """Particles nearer to each other than this many particle sizes are connected."""

    def judge(self, task: Task, state: Any) -> Judgement:
        p = state.particles[self.object]
        sizes = piece_fractions(p.final, self.spacings * float(p.size_m))
        ok = self._holds(sizes)
        # Where the pieces still hang together: how finely one must look to see them apart.
        finer = np.linspace(self.spacings, 1.0, 11)[1:]
        seen = (s for s in finer if self._holds(piece_fractions(p.final, s * float(p.size_m))))
        score = 1.0 if ok else next(seen, 0.0) / self.spacings
        return Judgement(
            name=f"{self.predicate}({self.object})", value=float(len(sizes)), ok=ok, score=score,
            threshold=float(self.count),
            metrics={
                f"{self.object}.pieces": float(len(sizes)),
                f"{self.object}.smallest_piece_fraction": float(sizes.min(initial=1.0)),
            },
        )  # fmt: skip

    def _holds(self, sizes: np.ndarray) -> bool:
        return len(sizes) == self.count and bool((sizes >= self.min_fraction).all())


class InsideDomain(Predicate):
    """No particle of the object ever touched the border of the simulated domain."""

    predicate: ClassVar[str] = "inside_domain"
    made_of: ClassVar[str] = "particles"
    margin_m: Distance = 1e-4

    def judge(self, task: Task, state: Any) -> Judgement:
        p = state.particles[self.object]
        room = np.minimum(p.reached_lower_m - p.lower_m, p.upper_m - p.reached_upper_m).min()
        ok = bool(room > self.margin_m)
        return Judgement(
            name=f"{self.predicate}({self.object})", value=float(room), threshold=self.margin_m,
            score=float(ok), ok=ok, metrics={f"{self.object}.room_in_domain_m": float(room)},
        )  # fmt: skip


class StaysOn(Predicate):
    """At least `min_fraction` of the particles lie on `on`: over it, and lower than `within_m` above
    its top."""

    predicate: ClassVar[str] = "stays_on"
    made_of: ClassVar[str] = "particles"
    on: SolidName
    min_fraction: Fraction
    within_m: Distance = 0.03

    def judge(self, task: Task, state: Any) -> Judgement:
        p = state.particles[self.object]
        share = float(_lies_on(task, state, self.on, p.final, p, self.within_m).mean())
        return at_least(self, share, self.min_fraction, f"{self.object}.share_on_{self.on}")


class Covers(Predicate):
    """Seen from above, the particles that lie on `on` hide at least `min_ratio` times the area that
    they hid at first."""

    predicate: ClassVar[str] = "covers"
    made_of: ClassVar[str] = "particles"
    on: SolidName
    min_ratio: Positive = Field(le=1000)
    within_m: Distance = 0.03

    def judge(self, task: Task, state: Any) -> Judgement:
        p = state.particles[self.object]
        first, last = (
            footprint_m2(x[_lies_on(task, state, self.on, x, p, self.within_m)], float(p.size_m))
            for x in (p.initial, p.final)
        )
        found = at_least(self, last / first if first else 0.0, self.min_ratio,
                          f"{self.object}.area_ratio")  # fmt: skip
        return replace(found, metrics=found.metrics | {f"{self.object}.area_m2": last})


class Encloses(Predicate):
    """The object, a ring about its own z axis at first, is whole and goes around each of `around`:
    it winds about the foot, below the top, so that it neither lies on top nor hovers above."""

    predicate: ClassVar[str] = "encloses"
    made_of: ClassVar[str] = "particles"
    around: list[SolidName] = Field(min_length=1)
    stretch: Positive = Field(3.0, le=1000)
    """Neighbouring stretches of the ring that are this much farther apart than at first: torn."""

    def judge(self, task: Task, state: Any) -> Judgement:
        p = state.particles[self.object]
        things = [placed(task, state, name) for name in self.around]
        world = [np.asarray(m.vertices) @ T[:3, :3].T + T[:3, 3] for m, T in things]
        feet = np.stack([w[:, :2].mean(0) for w in world])
        tops = np.array([w[:, 2].max() for w in world])
        axis = task.object(self.object).T_world_object[:3, 2]
        count = max(8, int(np.cbrt(len(p.initial)) * 4))
        before, loop = (loop_of(p.initial, x, axis, count) for x in (p.initial, p.final))
        torn = float(longest_step(loop) / longest_step(before))
        share = float(enclosed(loop, feet, tops).mean()) * (torn < self.stretch)
        found = at_least(self, share, 1.0, f"{self.object}.enclosed_share")
        return replace(found, metrics=found.metrics | {f"{self.object}.longest_stretch": torn})


def _lies_on(
    task: Task, state: Any, name: str, points_m: np.ndarray, particles: Any, within_m: float
) -> np.ndarray:
    """(N,) bool: on top of a body or of something in the background."""
    mesh, T_world = placed(task, state, name)
    return on_top(mesh, T_world, points_m, -float(particles.size_m), within_m)
