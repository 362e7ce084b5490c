"""What differs from episode to episode: where objects begin, materials, camera and light.

Each draw rests on the collection's seed and a number alone: poses, camera and light on the episode's, materials
on that of the batch whose simulation several episodes share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from lucibot.checks.overlaps import DEEPEST_M, overlaps
from lucibot.core.errors import UserError
from lucibot.core.euler import euler_xyz_deg_to_matrix, matrix_to_euler_xyz_deg
from lucibot.core.schema import Spec
from lucibot.sim.scene import begins_elsewhere
from lucibot.task import BackgroundSpec, ObjectSpec, Task, TaskSpec

DRAWS = 100
"""Places that are tried until nothing stands in anything else."""
RESTS_M = 0.003
"""What stands on another thing's top is within this of it."""
MARGIN_SIZES = 2.0
"""Particles begin at least this many particle sizes from their domain's border, or as near as in the task."""
VARIED = {
    "rigid": ("mass_kg", "friction", "coup_friction"),
    "elastoplastic": ("youngs_modulus_pa", "yield_strain", "density_kg_m3"),
    "elastic": ("youngs_modulus_pa", "density_kg_m3"),
    "sand": ("friction_angle_deg", "density_kg_m3"),
    "liquid": ("viscosity_m2_s",),
    "background": ("friction", "coup_friction"),
}
"""By kind of material: what of it varies."""


@dataclass(frozen=True, kw_only=True)
class Varied:
    """One episode's scene."""

    task: Task
    """As it begins; it has the folder of the task that it was drawn from."""
    displaced: dict[str, np.ndarray]
    """(4, 4) by object: from where it begins in the task to where it begins here, world."""
    told: dict
    """What differs, in numbers, for the record."""


def groups(task: Task) -> list[tuple[str, ...]]:
    """What is displaced as one: names of objects, and of background that goes along. What stays is in none."""
    spec = task.spec.collect
    joined = {name: {name} for name in [o.name for o in task.objects]}

    def join(*names: str) -> None:
        whole = set().union(*(joined.get(n, {n}) for n in names))
        for n in whole:
            joined[n] = whole

    for together in spec.together:
        join(*together)
    still = set(spec.still)
    shapes = {t.name: _placed(task, t) for t in (*task.objects, *task.spec.background)}
    for o in task.objects:
        if o.joint is not None:
            if o.joint.parent is not None:
                join(o.name, o.joint.parent)
            elif not any(o.name in t for t in spec.together):
                still.add(o.name)
            continue
        for other in task.objects:
            if other is not o and (
                _within(shapes[o.name], shapes[other.name])
                or _on(shapes[o.name], shapes[other.name])
            ):
                join(o.name, other.name)
        for thing in task.spec.background:
            if thing.mesh is not None and _within(shapes[o.name], shapes[thing.name]):
                if thing.name in joined:
                    join(o.name, thing.name)
                else:
                    still.add(o.name)
    found = {frozenset(whole) for whole in joined.values() if not whole & still}
    order = [t.name for t in (*task.objects, *task.spec.background)]
    return sorted(
        (tuple(sorted(g, key=order.index)) for g in found), key=lambda g: order.index(g[0])
    )  # fmt: skip


def vary_materials(task: Task, rng: np.random.Generator) -> tuple[Task, dict]:
    """The task with other materials, and the factors by which they differ: to the other side where the
    schema's bounds are on this one."""
    share, spec, told = task.spec.collect.material_share, _given(task), {}

    def varied(values: dict, thing, fields: tuple[str, ...], where: str) -> None:
        for field in fields:
            factor = _allowed(thing, field, 1 + share * rng.uniform(-1, 1))
            values[field] = getattr(thing, field) * factor
            told[f"{where}.{field}"] = factor

    for values, o in zip(spec["objects"], task.objects, strict=True):
        varied(values["material"], o.material, VARIED[o.material.kind], o.name)
        if o.joint is not None and o.joint.friction > 0:
            varied(values["joint"], o.joint, ("friction",), f"{o.name}.joint")
    for values, b in zip(spec["background"], task.spec.background, strict=True):
        if b.solid:
            varied(values, b, VARIED["background"], b.name)
    return _task(task, spec), told


def vary(task: Task, moved: list[tuple[str, ...]], rng: np.random.Generator) -> Varied:
    """One episode's places, camera and light.

    Args:
        moved: as `groups` finds them.

    Raises:
        UserError: the ranges leave no room for the objects.
    """
    ranges = task.spec.collect
    for _ in range(DRAWS):
        spec, displaced, told = _given(task), {o.name: np.eye(4) for o in task.objects}, []
        for group in moved:
            shift = ranges.position_m * rng.uniform(-1, 1, 2)
            turn = ranges.rotation_deg * rng.uniform(-1, 1)
            D = _about(task.solid(group[0]).T_world_object[:3, 3], shift, turn)
            displaced |= {n: D for n in group if n in displaced}
            told.append({"moved": list(group), "shift_m": shift.tolist(), "turn_deg": turn})
            _displace(spec, task, group, D)
        camera, light = _camera(task, rng), _light(task, rng)
        spec["camera"] |= camera
        spec["light"] = {**spec.get("light", {}), **light}
        for photo in ("photo", "photo_background"):
            spec["camera"].pop(photo, None)  # They show the scene from elsewhere.
        try:
            drawn = _task(task, spec)
        except ValidationError:
            continue
        if _has_room(task, drawn) and not _in_walls(drawn, {n for g in moved for n in g}):
            return Varied(
                task=drawn, displaced=displaced,
                told={"objects": told, "camera": camera, "light": light},
            )  # fmt: skip
    raise UserError(
        f"{task.name}: in {DRAWS} draws objects stood in each other, out of sight, out of bounds or at the "
        "border of their domain: narrow the ranges of [collect] in its task.toml"
    )


def together(task: Task, moved: list[tuple[str, ...]]) -> bool:
    """Whether episodes can share a simulation, each in an environment of its own."""
    objects = {o.name: o for o in task.objects}
    return all(n in objects and begins_elsewhere(objects[n]) for group in moved for n in group)


def _about(middle_m: np.ndarray, shift_m: np.ndarray, turn_deg: float) -> np.ndarray:
    """(4, 4) a turn about the upright through `middle_m`, then a shift on the plane."""
    D = euler_xyz_deg_to_matrix((0, 0, 0), (0, 0, turn_deg))
    D[:3, 3] = middle_m - D[:3, :3] @ middle_m + [*shift_m, 0]
    return D


def _displace(spec: dict, task: Task, group: tuple[str, ...], D: np.ndarray) -> None:
    for kind, things in (("objects", task.objects), ("background", task.spec.background)):
        for values, thing in zip(spec[kind], things, strict=True):
            if thing.name in group:
                values["position_m"], values["rotation_deg"] = matrix_to_euler_xyz_deg(
                    D @ thing.T_world_object
                )


def _camera(task: Task, rng: np.random.Generator) -> dict:
    c, ranges = task.spec.camera, task.spec.collect
    return {
        "position_m": (np.array(c.position_m) + ranges.camera_m * rng.uniform(-1, 1, 3)).tolist(),
        "look_at_m": (np.array(c.look_at_m) + ranges.look_m * rng.uniform(-1, 1, 3)).tolist(),
    }  # fmt: skip


def _light(task: Task, rng: np.random.Generator) -> dict:
    light, ranges = task.spec.light, task.spec.collect
    tilt = euler_xyz_deg_to_matrix((0, 0, 0), [*(ranges.light_deg * rng.uniform(-1, 1, 2)), 0])
    bright = 1 + ranges.light_share * rng.uniform(-1, 1, 2)
    return {
        "direction": (tilt[:3, :3] @ np.array(light.direction)).tolist(),
        "intensity": light.intensity * _allowed(light, "intensity", bright[0]),
        "ambient": light.ambient * _allowed(light, "ambient", bright[1]),
    }


def _allowed(thing: Spec, field: str, factor: float) -> float:
    """A factor on a field, or as much to the other side of 1 where the schema refuses its value."""
    try:
        type(thing).model_validate(thing.model_dump() | {field: getattr(thing, field) * factor})
    except ValidationError:
        return 2 - factor
    return factor


def _has_room(task: Task, drawn: Task) -> bool:
    """Nothing stands in anything else, particles are in their domain, and the camera sees all of it."""
    sim = task.spec.simulation
    for o in drawn.objects:
        centre = _placed(drawn, o).bounds.mean(0)
        (u, v), z = drawn.camera.project(centre)
        if z < 0.01 or not (0 < u < drawn.camera.width and 0 < v < drawn.camera.height):
            return False
        if o.is_rigid:
            continue
        domain = sim.sph if o.is_liquid else sim.mpm
        now, first = (_margin(t, t.object(o.name), domain) for t in (drawn, task))
        if (now < np.minimum(first, MARGIN_SIZES * drawn.particle_size_m(o))).any():
            return False
    try:
        overlaps(drawn)
    except UserError:
        return False
    return True


def _in_walls(task: Task, moved: set[str]) -> bool:
    """Whether background that was displaced has come to be in a box that was not, such as the wall."""
    walls = [b for b in task.spec.background if b.size_m is not None and b.name not in moved]
    for thing in (b for b in task.spec.background if b.name in moved):
        corners = _placed(task, thing).vertices
        for wall in walls:
            T = wall.T_world_object
            inside = (
                np.abs((corners - T[:3, 3]) @ T[:3, :3]) < np.array(wall.size_m) / 2 - DEEPEST_M
            )
            if inside.all(1).any():
                return True
    return False


def _margin(task: Task, obj: ObjectSpec, domain) -> np.ndarray:
    """(6,) how far [m] an object is from each side of its domain."""
    low, high = _placed(task, obj).bounds
    return np.concatenate([low - domain.lower_m, np.array(domain.upper_m) - high]) + 1e-9


def _placed(task: Task, thing: ObjectSpec | BackgroundSpec):
    mesh = task.mesh(thing).copy()
    mesh.apply_transform(thing.T_world_object)
    return mesh


def _within(a, b) -> bool:
    """Whether most of mesh `a` is in the hull of mesh `b`."""
    hull = b.convex_hull
    away = np.einsum("fc,pc->pf", hull.face_normals, a.vertices) - np.einsum(
        "fc,fc->f", hull.face_normals, hull.triangles[:, 0]
    )
    return float((away.max(1) < 1e-4).mean()) > 0.5


def _on(a, b) -> bool:
    """Whether mesh `a` stands on the top of mesh `b`, by their boxes."""
    (low, high), (below, top) = a.bounds, b.bounds
    meet = (low[:2] < top[:2]).all() and (high[:2] > below[:2]).all()
    return bool(meet and abs(low[2] - top[2]) < RESTS_M)


def _given(task: Task) -> dict:
    """What the task file says, to be changed; nothing that it leaves to defaults."""
    return task.spec.model_dump(mode="json", exclude_unset=True)


def _task(task: Task, spec: dict) -> Task:
    return Task(task.folder, TaskSpec.model_validate(spec), task.instruction)
