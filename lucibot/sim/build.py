"""From a task to a built Genesis scene (paper, section 3.1)."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lucibot.core.camera import Camera
from lucibot.sim.adapter import Adapter, build, fill
from lucibot.sim.arm import ArmModel, SimArm, add_arm
from lucibot.sim.cpic import keep_sides_within_walls, separate_by_moving_bodies_only
from lucibot.sim.materials import (
    background_material,
    background_morph,
    background_picture,
    mass_properties,
    mean_look,
    particle_material,
    rigid_material,
    rigid_morph,
    rotation_quat,
    surface,
)
from lucibot.sim.particles import QuickMPM, QuickSPH, take_over
from lucibot.task import BackgroundSpec, LightSpec, ObjectSpec, Task

HASH_CELLS = 8
"""Cells along each side of the grid in which liquid particles look for their neighbours."""
PAD_CELLS = 3
"""So far from its MPM grid's border Genesis keeps particles away."""


@dataclass(frozen=True, kw_only=True)
class BuiltScene:
    """What Genesis has built, and who computes its particles."""

    scene: Any
    """A `genesis.Scene`."""
    entities: dict[str, Any]
    """A Genesis entity for each object of the task."""
    camera: Any
    """Genesis's camera over environment 0, or None."""
    adapter: Adapter
    particles: QuickMPM | QuickSPH | None
    """Our own kernels over the scene's particles, or None where Genesis computes them."""
    arm: SimArm | None


def build_scene(
    gs: Any, task: Task, *, n_envs: int, camera: Camera | None, particles_as: str,
    own_kernels: bool, arm: ArmModel | None = None,
) -> BuiltScene:  # fmt: skip
    """Arguments as for `lucibot.sim.scene.SimScene`; `gs` is the module, started."""
    scene = gs.Scene(show_viewer=False, **_options(gs, task, armed=arm is not None))
    with tempfile.TemporaryDirectory(prefix="lucibot_scene_") as scratch:
        _add_background(gs, scene, task, Path(scratch), drawn=camera is not None)
        entities = _add_objects(gs, scene, task, Path(scratch), particles_as)
        armed = None if arm is None else add_arm(gs, scene, arm)
        filming = None if camera is None else _add_camera(scene, camera)
        adapter, particles = _build(scene, task, n_envs, own_kernels, drawn=camera is not None)
    _set_servos(task, entities)
    built = None
    if arm is not None:
        built = SimArm(scene, armed, arm, lambda name: entities[name].links[-1].idx)
    return BuiltScene(
        scene=scene, entities=entities, camera=filming, adapter=adapter, particles=particles,
        arm=built,
    )  # fmt: skip


def _build(
    scene: Any, task: Task, n_envs: int, own_kernels: bool, *, drawn: bool
) -> tuple[Adapter, QuickMPM | QuickSPH | None]:
    """Build the scene, and settle who computes its particles before Genesis compiles a step."""
    spec, taken = task.spec.simulation.mpm, []
    cpic = spec is not None and spec.cpic

    def prepare(adapter: Adapter) -> None:
        taken.append(take_over(adapter, cpic=cpic) if own_kernels else None)
        if taken[0] is None and cpic:
            separate_by_moving_bodies_only(adapter)
            keep_sides_within_walls(adapter)

    return build(scene, n_envs, prepare, drawn=drawn), taken[0]


def _set_servos(task: Task, entities: dict[str, Any]) -> None:
    """Masses and servo gains."""
    w = task.spec.simulation.servo_bandwidth_rad_s
    for obj in task.objects:
        if not obj.is_rigid:
            continue
        entity, m = entities[obj.name], obj.material.mass_kg
        entity.set_mass(m)
        if obj.joint is not None:
            # Its value is set, or left to what pushes it.
            _harden_friction(entity)
            continue
        # The body turns about its frame's origin: gains for its largest inertia about that origin, the same
        # for each axis.
        com, inertia = mass_properties(task.mesh(obj), m)
        largest = float(np.linalg.eigvalsh(inertia).max() + m * com @ com)
        entity.set_dofs_kp(np.r_[[m * w * w] * 3, [largest * w * w] * 3])
        entity.set_dofs_kv(np.r_[[2 * m * w] * 3, [2 * largest * w] * 3])


def _harden_friction(entity) -> None:
    """Genesis's dry friction yields to a steady force, slowly: at its default impedance a peg that
    ten times its weight could not move sinks by 10 mm/s under its weight alone."""
    for joint in entity.joints:
        if joint.n_dofs:
            timeconst, dampratio, _, _, *shape = joint.get_sol_params().tolist()
            joint.set_sol_params([timeconst, dampratio, 0.999, 0.999, *shape])


def _options(gs, task: Task, *, armed: bool) -> dict[str, Any]:
    """Solver options from `[simulation]`."""
    sim = task.spec.simulation
    particles = [o for o in task.objects if not o.is_rigid]
    # What neither collides nor hangs on a joint has no constraints, and its solver none to solve.
    jointed = armed or any(o.joint is not None for o in task.objects)
    options: dict = {
        "sim_options": gs.options.SimOptions(
            dt=sim.dt_s, substeps=sim.substeps, gravity=sim.gravity_m_s2
        ),
        "rigid_options": gs.options.RigidOptions(
            enable_collision=sim.rigid_collision,
            enable_self_collision=False,
            disable_constraint=not (sim.rigid_collision or jointed),
        ),
        "vis_options": _vis_options(gs, task),
        "profiling_options": gs.options.ProfilingOptions(show_FPS=False),
    }
    sizes = [task.particle_size_m(o) for o in particles if not o.is_liquid]
    if sim.mpm is not None and sizes:
        # A task's bounds are those that particles can reach.
        pad = PAD_CELLS / sim.mpm.grid_density
        options["mpm_options"] = gs.options.MPMOptions(
            particle_size=sizes[0], grid_density=sim.mpm.grid_density,
            enable_CPIC=sim.mpm.cpic,
            lower_bound=tuple(v - pad for v in sim.mpm.lower_m),
            upper_bound=tuple(v + pad for v in sim.mpm.upper_m),
        )  # fmt: skip
    sizes = [task.particle_size_m(o) for o in particles if o.is_liquid]
    if sim.sph is not None and sizes:
        # Neighbours are found through a grid of cells two particles wide that repeats in
        # space. A small one only adds a few candidates, while each cell costs 50 ns a substep.
        options["sph_options"] = gs.options.SPHOptions(
            particle_size=sizes[0], pressure_solver="WCSPH",
            lower_bound=sim.sph.lower_m, upper_bound=sim.sph.upper_m,
            hash_grid_res=(HASH_CELLS * 2 * sizes[0],) * 3,
        )  # fmt: skip
    return options


def _vis_options(gs, task: Task):
    """The task's light."""
    light, drawn = task.spec.light, drawn_light(task.spec.light)
    directed = {
        "type": "directional", "dir": light.direction, "color": (1.0, 1.0, 1.0),
        "intensity": drawn["intensity"],
    }  # fmt: skip
    return gs.options.VisOptions(
        rendered_envs_idx=[0], segmentation_level="entity", shadow=True, lights=[directed],
        ambient_light=(drawn["ambient"],) * 3, background_color=(0.75, 0.75, 0.75),
    )  # fmt: skip


def drawn_light(light: LightSpec) -> dict[str, float]:
    """Intensities for Genesis's camera. A task's are the ray tracer's; the rasterizer adds ambient and
    directed light where the sky is half hidden in the other, hence the factors."""
    return {"intensity": 1.6 * light.intensity, "ambient": 0.6 * light.ambient}


def _add_background(gs, scene, task: Task, scratch: Path, *, drawn: bool) -> None:
    """Solid background always, the rest only where a camera needs it.

    Each mesh that particles couple to costs CPIC 27 distance queries a particle and substep. A
    box whose top covers all that particles can reach is for them a plane, which costs next to
    nothing, and hides what lies below it.
    """
    boxes, collides = task.spec.background, task.spec.simulation.rigid_collision
    has_particles = _has_particles(task)
    floor = support_plane(task) if has_particles else None
    for item in boxes:
        hidden = floor is not None and item.size_m is not None and _top_m(item) <= floor[1]
        couples = has_particles and item.solid and not hidden
        picture = background_picture(gs, task, item, scratch) if drawn else None
        takes_part = couples or (item.solid and collides)
        if takes_part or (drawn and picture is None):
            scene.add_entity(
                background_morph(gs, task, item, scratch, takes_part=takes_part),
                material=background_material(gs, item, couples=couples),
                surface=surface(gs, task, item.look, stored=item.mesh is not None),
            )
        if picture is not None:
            scene.add_entity(
                picture, material=gs.materials.Rigid(needs_coup=False),
                surface=surface(gs, task, item.look),
            )  # fmt: skip
    if floor is not None:
        item, top_m = floor
        scene.add_entity(
            gs.morphs.Plane(pos=(0.0, 0.0, top_m), visualization=False),
            material=gs.materials.Rigid(
                friction=item.friction, coup_friction=item.coup_friction, needs_coup=True
            ),
        )


def _add_objects(gs, scene, task: Task, scratch: Path, particles_as: str) -> dict[str, Any]:
    """By name. What hangs on another object is added right after it: Genesis makes one tree of
    them, within which nothing collides."""
    entities = {}
    for obj in (o for o in task.objects if o.joint is None or o.joint.parent is None):
        entities[obj.name] = _add_object(gs, scene, task, obj, scratch, particles_as)
        for child in task.objects:
            if child.joint is not None and child.joint.parent == obj.name:
                entities[child.name] = _add_object(gs, scene, task, child, scratch, particles_as)
                T = np.linalg.inv(obj.T_world_object) @ child.T_world_object
                parent = entities[obj.name]
                entities[child.name].attach(
                    parent, parent.base_link.name, pos=T[:3, 3], quat=rotation_quat(T)
                )
    return entities


def _add_object(gs, scene, task: Task, obj: ObjectSpec, scratch: Path, particles_as: str):
    collides, couples = task.spec.simulation.rigid_collision, _has_particles(task)
    if obj.is_rigid:
        # Where rigid bodies do not collide nothing would carry a body's weight.
        return scene.add_entity(
            rigid_morph(gs, task, obj, scratch, collides=collides, couples=couples),
            material=rigid_material(gs, obj.material, compensated=not collides, couples=couples),
            surface=surface(gs, task, obj.look),
        )
    # Genesis's own default stretches the first mesh over the particles, across any cut.
    mode = {"surface": "recon", "spheres": "particle"}[particles_as]
    look = surface(gs, task, obj.look or mean_look(task.mesh(obj)), vis_mode=mode)
    file = scratch / f"{obj.name}.obj"
    task.mesh(obj).export(file)
    T = obj.T_world_object
    morph = gs.morphs.Mesh(
        file=str(file), pos=tuple(T[:3, 3]), euler=tuple(obj.rotation_deg), align=False
    )
    entity = scene.add_entity(morph, material=particle_material(gs, obj.material), surface=look)
    if (cloud := task.cloud(obj)) is not None:
        fill(entity, cloud @ T[:3, :3].T.astype(np.float32) + T[:3, 3].astype(np.float32))
    return entity


def _add_camera(scene, camera: Camera):
    """Genesis's pinhole camera has its principal point in the middle and square pixels: where the
    task's has not, a larger picture is drawn, out of which it is cut (`Camera.centred`)."""
    camera, _ = camera.centred()
    T = camera.T_world_cam
    eye, forward, down = T[:3, 3], T[:3, 2], T[:3, 1]
    return scene.add_camera(
        res=(camera.width, camera.height), fov=camera.vertical_fov_deg, pos=tuple(eye),
        lookat=tuple(eye + forward), up=tuple(-down), near=0.02, far=10.0,
    )  # fmt: skip


def _has_particles(task: Task) -> bool:
    return any(not o.is_rigid for o in task.objects)


def support_plane(task: Task) -> tuple[BackgroundSpec, float] | None:
    """The highest solid upright box whose top face covers every domain that has particles, with the
    height of that face [m, world]; None where there is none."""
    sim = task.spec.simulation
    domains = [sim.sph if o.is_liquid else sim.mpm for o in task.objects if not o.is_rigid]
    if not domains:
        return None
    least, most = np.array([d.lower_m for d in domains]), np.array([d.upper_m for d in domains])
    covering = []
    for item in task.spec.background:
        if not item.solid or item.size_m is None or any(item.rotation_deg):
            continue
        half, centre = np.asarray(item.size_m) / 2, np.asarray(item.position_m)
        lower, upper = centre - half, centre + half
        covers = (lower[:2] <= least[:, :2]).all() and (upper[:2] >= most[:, :2]).all()
        if covers and (upper[2] < most[:, 2]).all():
            covering.append(item)
    best = max(covering, key=_top_m, default=None)
    return None if best is None else (best, _top_m(best))


def _top_m(item: BackgroundSpec) -> float:
    """Height of a box's top [m]; of a turned box, of the ball around it."""
    half = np.asarray(item.size_m) / 2
    rise = np.linalg.norm(half) if any(item.rotation_deg) else half[2]
    return float(item.position_m[2] + rise)
