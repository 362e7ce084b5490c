"""Success predicates over the simulator's final state, as `[[success]]` in a task file lists them.

Only the report and the benchmark may ask them: a search that did would optimize its own exam. Pure
NumPy. `state` is a `lucibot.sim.state.FinalState`, or anything with the same fields.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, ClassVar, get_args

import numpy as np

from lucibot.core.errors import UserError, unknown_name
from lucibot.core.geometry import matrix_np
from lucibot.objective.footprint import footprint_m2, on_top
from lucibot.objective.loops import enclosed, longest_step, loop_of
from lucibot.objective.pieces import CRUMB_FRACTION, connected_pieces, piece_fractions
from lucibot.objective.vessels import Bowl, inside_hull, over_hull
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one predicate found."""

    name: str
    value: float
    threshold: float
    score: float
    """In [0, 1], 1 where the predicate holds, falling with the distance to its threshold."""
    ok: bool
    metrics: dict[str, float]
    """Named measurements [SI units]."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What all predicates of a task found of one rollout."""

    success: bool
    score: float
    """Mean of the predicates' scores."""
    metrics: dict[str, float]
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """The object's particles form exactly `count` connected pieces, crumbs apart."""

    predicate: ClassVar[str] = "pieces"
    object: str
    count: int
    min_fraction: float = 0.2
    """Smallest share of the particles that each piece may have."""
    spacings: float = 1.5
    """Particles nearer to each other than this many particle sizes are connected."""

    def judge(self, task: Task, state: Any) -> Judgement:
        p = _particles(self, state)
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
            p = _particles(self, state)
            owner = connected_pieces(p.final, self.spacings * float(p.size_m))
            shift = p.final.astype(float) - p.initial
            large = [
                owner == i for i in range(owner.max() + 1) if (owner == i).mean() >= CRUMB_FRACTION
            ]
            moved = max((float(np.linalg.norm(shift[m].mean(0))) for m in large), default=math.inf)
        return _less(self, moved, self.max_m, f"{self.object}.displacement_m")


@dataclass(frozen=True, kw_only=True)
class Lifted:
    """The particles' centroid is at least `min_m` above where it was at first, and has been for
    `hold_s`: at the last keyframe and after the rollout has settled for as long."""

    predicate: ClassVar[str] = "lifted"
    object: str
    min_m: float
    hold_s: float = 0.0

    def judge(self, task: Task, state: Any) -> Judgement:
        p = _particles(self, state)
        settled_s = task.spec.simulation.settle_steps * task.spec.simulation.dt_s
        if settled_s < self.hold_s - 1e-9:
            raise UserError(
                f"success predicate {self.predicate!r}: {self.hold_s:g} s cannot be judged, the "
                f"rollout settles for {settled_s:g} s only"
            )
        heights = [float(a[:, 2].mean()) for a in (p.last_keyframe, p.final)]
        risen = min(heights) - float(p.initial[:, 2].mean())
        return _at_least(self, risen, self.min_m, f"{self.object}.lifted_m")


@dataclass(frozen=True, kw_only=True)
class InsideDomain:
    """No particle of the object ever touched the border of the simulated domain."""

    predicate: ClassVar[str] = "inside_domain"
    object: str
    margin_m: float = 1e-4

    def judge(self, task: Task, state: Any) -> Judgement:
        p = _particles(self, state)
        room = np.minimum(p.reached_lower_m - p.lower_m, p.upper_m - p.reached_upper_m).min()
        ok = bool(room > self.margin_m)
        return Judgement(
            name=f"{self.predicate}({self.object})", value=float(room), threshold=self.margin_m,
            score=float(ok), ok=ok, metrics={f"{self.object}.room_in_domain_m": float(room)},
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Upright:
    """The object's own z axis is within `max_deg` of the vertical."""

    predicate: ClassVar[str] = "upright"
    object: str
    max_deg: float

    def judge(self, task: Task, state: Any) -> Judgement:
        up = matrix_np(_body(self, state, self.object).pose)[2, 2]
        tilt = float(np.rad2deg(np.arccos(np.clip(up, -1, 1))))
        return _less(self, tilt, self.max_deg, f"{self.object}.tilt_deg")


@dataclass(frozen=True, kw_only=True)
class Nested:
    """The object's base is inside the container: below its rim, above its underside, and no
    further than `max_offset_m` from its axis. Base and rim are the meshes' ends along their z."""

    predicate: ClassVar[str] = "nested"
    object: str
    container: str
    max_offset_m: float

    def judge(self, task: Task, state: Any) -> Judgement:
        T_world_object = matrix_np(_body(self, state, self.object).pose)
        T_world_container = matrix_np(_body(self, state, self.container).pose)
        base = np.array([0, 0, task.mesh(task.object(self.object)).bounds[0][2], 1.0])
        bottom, rim = task.mesh(task.object(self.container)).bounds[:, 2]
        x, y, z = (np.linalg.inv(T_world_container) @ T_world_object @ base)[:3]
        offset, depth = float(np.hypot(x, y)), float(rim - z)
        inside = 0 < depth < rim - bottom + 1e-4
        found = _less(self, offset, self.max_offset_m, f"{self.object}.offset_m")
        # Half of the score for standing over the container, half for being in it.
        score = 0.5 * found.score + 0.5 * (found.score if inside else 0.0)
        return Judgement(
            name=found.name, value=offset, threshold=self.max_offset_m, score=score,
            ok=found.ok and bool(inside),
            metrics=found.metrics | {f"{self.object}.below_rim_m": depth},
        )  # fmt: skip


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
            speed = float(np.quantile(_particles(self, state).speed, 0.95))
        return _less(self, speed, self.max_speed_m_s, f"{self.object}.speed_m_s")


@dataclass(frozen=True, kw_only=True)
class JointAngle:
    """The object has turned about its hinge by at least `min_deg`, either way."""

    predicate: ClassVar[str] = "joint_angle"
    object: str
    min_deg: float

    def judge(self, task: Task, state: Any) -> Judgement:
        turned = abs(float(np.rad2deg(_joint_value(self, task, state, "hinge"))))
        return _at_least(self, turned, self.min_deg, f"{self.object}.angle_deg")


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
        found = _at_least(self, share, self.min_share, f"{self.object}.opened_share")
        return replace(found, metrics=found.metrics | {f"{self.object}.opened_m": moved})


@dataclass(frozen=True, kw_only=True)
class Inside:
    """At least `min_fraction` of the particles lie in the container: in its hull."""

    predicate: ClassVar[str] = "inside"
    object: str
    container: str
    min_fraction: float

    def judge(self, task: Task, state: Any) -> Judgement:
        p = _particles(self, state)
        share = float(_within(task, state, self.container, p).mean())
        return _at_least(self, share, self.min_fraction, f"{self.object}.share_in_{self.container}")


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
        p = _particles(self, state)
        spilled = ~np.any([_within(task, state, c, p) for c in self.containers], axis=0)
        whole = len(spilled)
        if self.held_by:
            whole = max(1, int(spilled.sum()))
            bowl, T_world = _bowl(self, task, state, self.held_by)
            spilled &= ~bowl.holds(T_world, p.final, float(p.size_m))
            for c in self.containers:
                mesh, T = _placed(task, state, c)
                spilled &= ~over_hull(mesh, T, p.final, 0.5 * float(p.size_m))
        share = float(spilled.sum() / whole)
        return _less(self, share, self.max_fraction, f"{self.object}.spilled_share")


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
        p = _particles(self, state)
        bowl, T_world = _bowl(self, task, state, self.bowl)
        mesh, T_above = _placed(task, state, self.above)
        top = (np.asarray(mesh.vertices) @ T_above[2, :3] + T_above[2, 3]).max()
        held = bowl.holds(T_world, p.final, float(p.size_m))
        held &= p.final[:, 2] > top + self.height_m
        volume = held.sum() * task.mesh(task.object(self.object)).volume / len(held)
        share = float(volume / bowl.capacity_m3)
        return _at_least(self, share, self.min_share, f"{self.bowl}.filled_share")


@dataclass(frozen=True, kw_only=True)
class StaysOn:
    """At least `min_fraction` of the particles lie on `on`: over it, and lower than `within_m` above
    its top."""

    predicate: ClassVar[str] = "stays_on"
    object: str
    on: str
    min_fraction: float
    within_m: float = 0.03

    def judge(self, task: Task, state: Any) -> Judgement:
        p = _particles(self, state)
        share = float(_lies_on(task, state, self.on, p.final, p, self.within_m).mean())
        return _at_least(self, share, self.min_fraction, f"{self.object}.share_on_{self.on}")


@dataclass(frozen=True, kw_only=True)
class Covers:
    """Seen from above, the particles that lie on `on` hide at least `min_ratio` times the area that
    they hid at first."""

    predicate: ClassVar[str] = "covers"
    object: str
    on: str
    min_ratio: float
    within_m: float = 0.03

    def judge(self, task: Task, state: Any) -> Judgement:
        p = _particles(self, state)
        first, last = (
            footprint_m2(x[_lies_on(task, state, self.on, x, p, self.within_m)], float(p.size_m))
            for x in (p.initial, p.final)
        )
        found = _at_least(self, last / first if first else 0.0, self.min_ratio,
                          f"{self.object}.area_ratio")  # fmt: skip
        return replace(found, metrics=found.metrics | {f"{self.object}.area_m2": last})


@dataclass(frozen=True, kw_only=True)
class Encloses:
    """The object, a ring about its own z axis at first, is whole and goes around each of `around`:
    it winds about the foot, below the top, so that it neither lies on top nor hovers above."""

    predicate: ClassVar[str] = "encloses"
    object: str
    around: list[str]
    stretch: float = 3.0
    """Neighbouring stretches of the ring that are this much farther apart than at first: torn."""

    def judge(self, task: Task, state: Any) -> Judgement:
        p = _particles(self, state)
        placed = [_placed(task, state, name) for name in self.around]
        world = [np.asarray(m.vertices) @ T[:3, :3].T + T[:3, 3] for m, T in placed]
        feet = np.stack([w[:, :2].mean(0) for w in world])
        tops = np.array([w[:, 2].max() for w in world])
        axis = task.object(self.object).T_world_object[:3, 2]
        count = max(8, int(np.cbrt(len(p.initial)) * 4))
        before, loop = (loop_of(p.initial, x, axis, count) for x in (p.initial, p.final))
        torn = float(longest_step(loop) / longest_step(before))
        share = float(enclosed(loop, feet, tops).mean()) * (torn < self.stretch)
        found = _at_least(self, share, 1.0, f"{self.object}.enclosed_share")
        return replace(found, metrics=found.metrics | {f"{self.object}.longest_stretch": torn})


Predicate = (
    Pieces | DisplacedLess | Lifted | InsideDomain | Upright | Nested | AtRest | JointAngle
    | JointOpening | Inside | SpilledLess | HeldAbove | StaysOn | Covers
    | Encloses
)  # fmt: skip
KINDS: dict[str, type] = {c.predicate: c for c in get_args(Predicate)}
WANTED = {"str": str, "int": int, "float": (int, float), "list[str]": list}
"""What TOML must give for each type of field."""


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


def _less(predicate: Any, value: float, limit: float, metric: str) -> Judgement:
    """`value` must not exceed `limit`; the score falls as limit / value."""
    ok = value <= limit
    return Judgement(
        name=f"{predicate.predicate}({predicate.object})", value=value, threshold=limit,
        score=1.0 if ok else limit / value if math.isfinite(value) else 0.0, ok=ok,
        metrics={metric: value},
    )  # fmt: skip


def _at_least(predicate: Any, value: float, limit: float, metric: str) -> Judgement:
    """`value` must reach `limit`; the score falls as value / limit."""
    ok = value >= limit
    return Judgement(
        name=f"{predicate.predicate}({predicate.object})", value=value, threshold=limit,
        score=1.0 if ok else max(0.0, value / limit), ok=ok, metrics={metric: value},
    )  # fmt: skip


def _joint_value(predicate: Any, task: Task, state: Any, kind: str) -> float:
    """[rad or m], 0 at the initial pose."""
    joint = task.object(predicate.object).articulation
    if joint is None or joint.kind != kind:
        raise UserError(
            f"success predicate {predicate.predicate!r}: {predicate.object!r} is not on a {kind}"
        )
    return float(_body(predicate, state, predicate.object).joint)


def _placed(task: Task, state: Any, name: str) -> tuple[Any, np.ndarray]:
    """Mesh and pose (4, 4) of a body or of something in the background."""
    if name in state.bodies:
        return task.mesh(task.object(name)), matrix_np(state.bodies[name].pose)
    item = task.solid(name)
    return task.mesh(item), item.T_world_object


def _within(task: Task, state: Any, container: str, particles: Any) -> np.ndarray:
    """(N,) bool, a particle on the wall counts."""
    mesh, T_world = _placed(task, state, container)
    return inside_hull(mesh, T_world, particles.final, 0.5 * float(particles.size_m))


def _lies_on(
    task: Task, state: Any, name: str, points_m: np.ndarray, particles: Any, within_m: float
) -> np.ndarray:
    """(N,) bool: on top of a body or of something in the background."""
    mesh, T_world = _placed(task, state, name)
    return on_top(mesh, T_world, points_m, -float(particles.size_m), within_m)


def _bowl(predicate: Any, task: Task, state: Any, name: str) -> tuple[Bowl, np.ndarray]:
    mesh, T_world = _placed(task, state, name)
    bowl = Bowl.of(mesh)
    if bowl.capacity_m3 <= 0:
        raise UserError(f"success predicate {predicate.predicate!r}: {name!r} holds nothing")
    return bowl, T_world


def _particles(predicate: Any, state: Any):
    if predicate.object not in state.particles:
        raise UserError(
            f"success predicate {predicate.predicate!r}: {predicate.object!r} is not made of "
            "particles"
        )
    return state.particles[predicate.object]


def _body(predicate: Any, state: Any, name: str):
    if name not in state.bodies:
        raise UserError(f"success predicate {predicate.predicate!r}: {name!r} is not a rigid body")
    return state.bodies[name]


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
        if not isinstance(value, WANTED[str(known[key].type)]) or isinstance(value, bool):
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
