"""Poses and joints of rigid bodies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from lucibot.core.errors import UserError
from lucibot.core.geometry import matrix_np
from lucibot.core.schema import Distance, Fraction, Positive
from lucibot.objective.success.judgement import Judgement, Predicate, at_least, less
from lucibot.task import Task
from lucibot.task.references import ObjectName


class Upright(Predicate):
    """The object's own z axis is within `max_deg` of the vertical."""

    predicate: ClassVar[str] = "upright"
    made_of: ClassVar[str] = "body"
    max_deg: Positive = Field(le=180)

    def judge(self, task: Task, state: Any) -> Judgement:
        up = matrix_np(state.bodies[self.object].pose)[2, 2]
        tilt = float(np.rad2deg(np.arccos(np.clip(up, -1, 1))))
        return less(self, tilt, self.max_deg, f"{self.object}.tilt_deg")


class Nested(Predicate):
    """The object's base is inside the container: below its rim, above its underside, and no
    further than `max_offset_m` from its axis. Base and rim are the meshes' ends along their z."""

    predicate: ClassVar[str] = "nested"
    made_of: ClassVar[str] = "body"
    container: ObjectName
    max_offset_m: Distance

    def check(self, task: Task) -> None:
        super().check(task)
        if not task.object(self.container).is_rigid:
            raise UserError(f"container {self.container!r} is not a rigid body")

    def judge(self, task: Task, state: Any) -> Judgement:
        T_world_object = matrix_np(state.bodies[self.object].pose)
        T_world_container = matrix_np(state.bodies[self.container].pose)
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


class JointAngle(Predicate):
    """The object has turned about its hinge by at least `min_deg`, either way."""

    predicate: ClassVar[str] = "joint_angle"
    made_of: ClassVar[str] = "body"
    min_deg: Positive = Field(le=360)

    def check(self, task: Task) -> None:
        super().check(task)
        _ensure_joint(task, self.object, "hinge")

    def judge(self, task: Task, state: Any) -> Judgement:
        turned = abs(float(np.rad2deg(state.bodies[self.object].joint)))
        return at_least(self, turned, self.min_deg, f"{self.object}.angle_deg")


class JointOpening(Predicate):
    """The object has slid by at least `min_share` of its travel: the way from its initial place to
    the farther of its limits."""

    predicate: ClassVar[str] = "joint_opening"
    made_of: ClassVar[str] = "body"
    min_share: Fraction

    def check(self, task: Task) -> None:
        super().check(task)
        _ensure_joint(task, self.object, "slider")

    def judge(self, task: Task, state: Any) -> Judgement:
        moved = abs(float(state.bodies[self.object].joint))
        joint = task.object(self.object).articulation
        share = moved / max(-joint.lower, joint.upper)
        found = at_least(self, share, self.min_share, f"{self.object}.opened_share")
        return replace(found, metrics=found.metrics | {f"{self.object}.opened_m": moved})


def _ensure_joint(task: Task, name: str, kind: str) -> None:
    joint = task.object(name).joint
    if joint is None or joint.kind != kind:
        raise UserError(f"object {name!r} is not on a {kind}")
