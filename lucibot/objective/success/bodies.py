"""Poses and joints of rigid bodies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from lucibot.core.errors import UserError
from lucibot.core.geometry import matrix_np
from lucibot.objective.success.judgement import Judgement, at_least, body, less
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class Upright:
    """The object's own z axis is within `max_deg` of the vertical."""

    predicate: ClassVar[str] = "upright"
    object: str
    max_deg: float

    def judge(self, task: Task, state: Any) -> Judgement:
        up = matrix_np(body(self, state, self.object).pose)[2, 2]
        tilt = float(np.rad2deg(np.arccos(np.clip(up, -1, 1))))
        return less(self, tilt, self.max_deg, f"{self.object}.tilt_deg")


@dataclass(frozen=True, kw_only=True)
class Nested:
    """The object's base is inside the container: below its rim, above its underside, and no
    further than `max_offset_m` from its axis. Base and rim are the meshes' ends along their z."""

    predicate: ClassVar[str] = "nested"
    object: str
    container: str
    max_offset_m: float

    def judge(self, task: Task, state: Any) -> Judgement:
        T_world_object = matrix_np(body(self, state, self.object).pose)
        T_world_container = matrix_np(body(self, state, self.container).pose)
        base = np.array([0, 0, task.mesh(task.object(self.object)).bounds[0][2], 1.0])
        bottom, rim = task.mesh(task.object(self.container)).bounds[:, 2]
        x, y, z = (np.linalg.inv(T_world_container) @ T_world_object @ base)[:3]
        offset, depth = float(np.hypot(x, y)), float(rim - z)
        inside = 0 < depth < rim - bottom + 1e-4
        found = less(self, offset, self.max_offset_m, f"{self.object}.offset_m")
        # Half of the score for standing over the container, half for being in it.
        score = 0.5 * found.score + 0.5 * (found.score if inside else 0.0)
        return Judgement(
            name=found.name, value=offset, threshold=self.max_offset_m, score=score,
            ok=found.ok and bool(inside),
            metrics=found.metrics | {f"{self.object}.below_rim_m": depth},
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class JointAngle:
    """The object has turned about its hinge by at least `min_deg`, either way."""

    predicate: ClassVar[str] = "joint_angle"
    object: str
    min_deg: float

    def judge(self, task: Task, state: Any) -> Judgement:
        turned = abs(float(np.rad2deg(_joint_value(self, task, state, "hinge"))))
        return at_least(self, turned, self.min_deg, f"{self.object}.angle_deg")


@dataclass(frozen=True, kw_only=True)
class JointOpening:
    """The object has slid by at least `min_share` of its travel: the way from its initial place to
    the farther of its limits."""

    predicate: ClassVar[str] = "joint_opening"
    object: str
    min_share: float

    def judge(self, task: Task, state: Any) -> Judgement:
        moved = abs(_joint_value(self, task, state, "slider"))
        joint = task.object(self.object).articulation
        share = moved / max(-joint.lower, joint.upper)
        found = at_least(self, share, self.min_share, f"{self.object}.opened_share")
        return replace(found, metrics=found.metrics | {f"{self.object}.opened_m": moved})


def _joint_value(predicate: Any, task: Task, state: Any, kind: str) -> float:
    """[rad or m], 0 at the initial pose."""
    joint = task.object(predicate.object).articulation
    if joint is None or joint.kind != kind:
        raise UserError(
            f"success predicate {predicate.predicate!r}: {predicate.object!r} is not on a {kind}"
        )
    return float(body(predicate, state, predicate.object).joint)
