"""How far things have moved, and whether they have come to rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lucibot.core.errors import UserError
from lucibot.objective.success.judgement import Judgement, at_least, less, particles
from lucibot.objective.success.pieces import CRUMB_FRACTION, connected_pieces
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class DisplacedLess:
    """Nothing of the object moved further than `max_m`.

    A body is judged by its origin, particles by the mean displacement of each connected piece, so
    that a piece that was dragged away is not hidden by one that stayed.
    """

    predicate: ClassVar[str] = "displaced_less"
    object: str
    max_m: float
    spacings: float = 1.5

    def judge(self, task: Task, state: Any) -> Judgement:
        if self.object in state.bodies:
            body = state.bodies[self.object]
            moved = float(np.linalg.norm(body.pose[:3] - body.initial_pose[:3]))
        else:
            p = particles(self, state)
            owner = connected_pieces(p.final, self.spacings * float(p.size_m))
            shift = p.final.astype(float) - p.initial
            large = [
                owner == i for i in range(owner.max() + 1) if (owner == i).mean() >= CRUMB_FRACTION
            ]
            moved = max((float(np.linalg.norm(shift[m].mean(0))) for m in large), default=math.inf)
        return less(self, moved, self.max_m, f"{self.object}.displacement_m")


@dataclass(frozen=True, kw_only=True)
class At:
    """The object is at most `max_m` away from `position_m`: a body's origin, or the particles'
    centroid."""

    predicate: ClassVar[str] = "at"
    object: str
    position_m: list[float]
    max_m: float

    def __post_init__(self) -> None:
        if len(self.position_m) != 3:
            raise UserError(
                f"success predicate {self.predicate!r}: position_m must be three numbers, got "
                f"{self.position_m}"
            )

    def judge(self, task: Task, state: Any) -> Judgement:
        if self.object in state.bodies:
            here = state.bodies[self.object].pose[:3]
        else:
            here = particles(self, state).final.mean(0)
        away = float(np.linalg.norm(here - np.asarray(self.position_m)))
        return less(self, away, self.max_m, f"{self.object}.away_m")


@dataclass(frozen=True, kw_only=True)
class Lifted:
    """The particles' centroid is at least `min_m` above where it was at first, and has been for
    `hold_s`: at the last keyframe and after the rollout has settled for as long."""

    predicate: ClassVar[str] = "lifted"
    object: str
    min_m: float
    hold_s: float = 0.0

    def judge(self, task: Task, state: Any) -> Judgement:
        p = particles(self, state)
        settled_s = task.spec.simulation.settle_steps * task.spec.simulation.dt_s
        if settled_s < self.hold_s - 1e-9:
            raise UserError(
                f"success predicate {self.predicate!r}: {self.hold_s:g} s cannot be judged, the "
                f"rollout settles for {settled_s:g} s only"
            )
        heights = [float(a[:, 2].mean()) for a in (p.last_keyframe, p.final)]
        risen = min(heights) - float(p.initial[:, 2].mean())
        return at_least(self, risen, self.min_m, f"{self.object}.lifted_m")


@dataclass(frozen=True, kw_only=True)
class AtRest:
    """The object has come to rest: no point of a body, and hardly a particle (95%), is faster."""

    predicate: ClassVar[str] = "at_rest"
    object: str
    max_speed_m_s: float

    def judge(self, task: Task, state: Any) -> Judgement:
        if self.object in state.bodies:
            v = state.bodies[self.object].velocity
            reach = np.linalg.norm(task.mesh(task.object(self.object)).vertices, axis=1).max()
            speed = float(np.linalg.norm(v[:3]) + np.linalg.norm(v[3:]) * reach)
        else:
            speed = float(np.quantile(particles(self, state).speed, 0.95))
        return less(self, speed, self.max_speed_m_s, f"{self.object}.speed_m_s")
