"""How far things have moved, and whether they have come to rest."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from lucibot.core.errors import UserError
from lucibot.core.schema import Distance, Length, Position, Positive, Seconds
from lucibot.objective.success.judgement import (
    Judgement,
    Predicate,
    at_least,
    less,
)
from lucibot.objective.success.pieces import CRUMB_FRACTION, connected_pieces
from lucibot.task import Task


class DisplacedLess(Predicate):
    """Nothing of the object moved further than `max_m`.

    A body is judged by its origin, particles by the mean displacement of each connected piece, so
    that a piece that was dragged away is not hidden by one that stayed.
    """

    predicate: ClassVar[str] = "displaced_less"
    max_m: Distance
    spacings: Positive = Field(1.5, le=100)

    def judge(self, task: Task, state: Any) -> Judgement:
        if self.object in state.bodies:
            body = state.bodies[self.object]
            moved = float(np.linalg.norm(body.pose[:3] - body.initial_pose[:3]))
        else:
            p = state.particles[self.object]
            owner = connected_pieces(p.final, self.spacings * float(p.size_m))
            shift = p.final.astype(float) - p.initial
            large = [
                owner == i for i in range(owner.max() + 1) if (owner == i).mean() >= CRUMB_FRACTION
            ]
            moved = max((float(np.linalg.norm(shift[m].mean(0))) for m in large), default=math.inf)
        return less(self, moved, self.max_m, f"{self.object}.displacement_m")


class At(Predicate):
    """The object is at most `max_m` away from `position_m`: a body's origin, or the particles'
    centroid."""

    predicate: ClassVar[str] = "at"
    position_m: Position
    max_m: Distance

    def judge(self, task: Task, state: Any) -> Judgement:
        if self.object in state.bodies:
            here = state.bodies[self.object].pose[:3]
        else:
            here = state.particles[self.object].final.mean(0)
        away = float(np.linalg.norm(here - np.asarray(self.position_m)))
        return less(self, away, self.max_m, f"{self.object}.away_m")


class Lifted(Predicate):
    """The particles' centroid is at least `min_m` above where it was at first, and has been for
    `hold_s`: at the last keyframe and after the rollout has settled for as long."""

    predicate: ClassVar[str] = "lifted"
    made_of: ClassVar[str] = "particles"
    min_m: Length
    hold_s: Seconds = 0.0

    def check(self, task: Task) -> None:
        super().check(task)
        settled_s = task.spec.simulation.settle_steps * task.spec.simulation.dt_s
        if settled_s < self.hold_s - 1e-9:
            raise UserError(
                f"hold_s = {self.hold_s:g} cannot be judged, the rollout settles for {settled_s:g} s "
                "only: raise settle_steps"
            )

    def judge(self, task: Task, state: Any) -> Judgement:
        p = state.particles[self.object]
        heights = [float(a[:, 2].mean()) for a in (p.last_keyframe, p.final)]
        risen = min(heights) - float(p.initial[:, 2].mean())
        return at_least(self, risen, self.min_m, f"{self.object}.lifted_m")


class AtRest(Predicate):
    """The object has come to rest: no point of a body, and hardly a particle (95%), is faster."""

    predicate: ClassVar[str] = "at_rest"
    max_speed_m_s: Positive = Field(le=1000)

    def judge(self, task: Task, state: Any) -> Judgement:
        if self.object in state.bodies:
            v = state.bodies[self.object].velocity
            reach = np.linalg.norm(task.mesh(task.object(self.object)).vertices, axis=1).max()
            speed = float(np.linalg.norm(v[:3]) + np.linalg.norm(v[3:]) * reach)
        else:
            speed = float(np.quantile(state.particles[self.object].speed, 0.95))
        return less(self, speed, self.max_speed_m_s, f"{self.object}.speed_m_s")
