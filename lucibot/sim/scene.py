"""`SimScene`: a task as a batch of Genesis environments (paper, section 3.1).

Built once, reset as a whole between generations. Rigid objects are free bodies, or hang on a joint;
free actuators carry a servo that follows one target per environment. Everything that is read comes
as torch tensors over the simulator's own memory where that is possible.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lucibot.core.camera import Camera
from lucibot.core.errors import RunFailed
from lucibot.core.progress import Progress, silent
from lucibot.sim.cpic import separate_by_moving_bodies_only
from lucibot.sim.engine import start_genesis, view
from lucibot.sim.grip import Grip
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
from lucibot.sim.moment import Moment
from lucibot.sim.particles import take_over
from lucibot.sim.parts import LINK_SIZES
from lucibot.task import BackgroundSpec, ObjectSpec, Task

HASH_CELLS = 8
"""Cells along each side of the grid in which liquid particles look for their neighbours."""
PAD_CELLS = 3
"""So far from its MPM grid's border Genesis keeps particles away."""
ABSURD_SPEED_M_S = 20.0
ABSURD_DISTANCE_M = 3.0
RECONSTRUCTION_RADII = (1.0, 1.01, 1.03)
"""Scales of the particles' radius with which a surface is laid around them for a picture, in turn:
splashsurf fails where its grid touches the surface just so, which another grid does not."""


class SimScene:
    """B environments of one task.

    Args:
        camera: if given, environment 0 can be filmed with it; building the drawing context costs
            a second and memory, so rollouts for fitness go without.
        particles_as: how the camera draws particles: "surface", meshed anew, or "spheres".
        own_kernels: on a CPU, let our own kernels compute what particles do; otherwise, and on a
            GPU, Genesis's do.
    """

    def __init__(
        self,
        task: Task,
        *,
        n_envs: int,
        device: str = "cpu",
        camera: Camera | None = None,
        particles_as: str = "surface",
        own_kernels: bool = True,
        progress: Progress = silent,
    ):
        self.task, self.n_envs = task, n_envs
        gs = start_genesis(device)
        self.device = gs.device
        sim = task.spec.simulation
        self.dt_s, self.particle_sizes_m = sim.dt_s, {}
        self.rigid_objects = [o for o in task.objects if o.is_rigid]
        self.particle_objects = [o for o in task.objects if not o.is_rigid]
        self.collides = sim.rigid_collision
        progress(f"building {n_envs} environments of {task.name}")
        self._scene = gs.Scene(show_viewer=False, **self._options(gs, camera))
        with tempfile.TemporaryDirectory(prefix="lucibot_scene_") as scratch:
            self._add_background(gs, Path(scratch), drawn=camera is not None)
            self._entities = self._add_objects(gs, Path(scratch), particles_as)
            self._camera = None if camera is None else self._add_camera(camera)
            self._build(own_kernels)
        self._bind(gs)
        self.reset()

    # Building -----------------------------------------------------------------------------------

    def _options(self, gs, camera: Camera | None) -> dict:
        """Solver options from `[simulation]`."""
        sim = self.task.spec.simulation
        # What neither collides nor hangs on a joint has no constraints, and its solver none to solve.
        constrained = sim.rigid_collision or any(o.joint is not None for o in self.task.objects)
        options: dict = {
            "sim_options": gs.options.SimOptions(
                dt=sim.dt_s, substeps=sim.substeps, gravity=sim.gravity_m_s2
            ),
            "rigid_options": gs.options.RigidOptions(
                enable_collision=sim.rigid_collision,
                enable_self_collision=False,
                disable_constraint=not constrained,
            ),
            "vis_options": self._vis_options(gs),
            "profiling_options": gs.options.ProfilingOptions(show_FPS=False),
        }
        sizes = {o.material.particle_size_m for o in self.particle_objects if not _is_liquid(o)}
        if sim.mpm is not None and sizes:
            # A task's bounds are those that particles can reach.
            pad = PAD_CELLS / sim.mpm.grid_density
            options["mpm_options"] = gs.options.MPMOptions(
                particle_size=min(sizes), grid_density=sim.mpm.grid_density,
                enable_CPIC=sim.mpm.cpic,
                lower_bound=tuple(v - pad for v in sim.mpm.lower_m),
                upper_bound=tuple(v + pad for v in sim.mpm.upper_m),
            )  # fmt: skip
        sizes = {o.material.particle_size_m for o in self.particle_objects if _is_liquid(o)}
        if sim.sph is not None and sizes:
            # Neighbours are found through a grid of cells two particles wide that repeats in
            # space. A small one only adds a few candidates, while each cell costs 50 ns a substep.
            options["sph_options"] = gs.options.SPHOptions(
                particle_size=min(sizes), pressure_solver="WCSPH",
                lower_bound=sim.sph.lower_m, upper_bound=sim.sph.upper_m,
                hash_grid_res=(HASH_CELLS * 2 * min(sizes),) * 3,
            )  # fmt: skip
        return options

    def _vis_options(self, gs):
        """The task's light. Its intensities are the ray tracer's; the rasterizer adds ambient and
        directed light where the sky is half hidden in the other, hence the factors."""
        light = self.task.spec.light
        directed = {
            "type": "directional", "dir": light.direction, "color": (1.0, 1.0, 1.0),
            "intensity": 1.6 * light.intensity,
        }  # fmt: skip
        return gs.options.VisOptions(
            rendered_envs_idx=[0], segmentation_level="entity", shadow=True, lights=[directed],
            ambient_light=(0.6 * light.ambient,) * 3, background_color=(0.75, 0.75, 0.75),
        )  # fmt: skip

    def _add_background(self, gs, scratch: Path, *, drawn: bool) -> None:
        """Solid background always, the rest only where a camera needs it.

        Each mesh that particles couple to costs CPIC 27 distance queries a particle and substep. A
        box whose top covers all that particles can reach is for them a plane, which costs next to
        nothing, and hides what lies below it.
        """
        boxes = self.task.spec.background
        floor = support_plane(self.task) if self.particle_objects else None
        for item in boxes:
            hidden = floor is not None and item.size_m is not None and _top_m(item) <= floor[1]
            couples = bool(self.particle_objects) and item.solid and not hidden
            picture = background_picture(gs, self.task, item, scratch) if drawn else None
            takes_part = couples or (item.solid and self.collides)
            if takes_part or (drawn and picture is None):
                self._scene.add_entity(
                    background_morph(gs, self.task, item, scratch, takes_part=takes_part),
                    material=background_material(gs, item, couples=couples),
                    surface=surface(gs, self.task, item.look, stored=item.mesh is not None),
                )
            if picture is not None:
                self._scene.add_entity(
                    picture, material=gs.materials.Rigid(needs_coup=False),
                    surface=surface(gs, self.task, item.look),
                )  # fmt: skip
        if floor is not None:
            item, top_m = floor
            self._scene.add_entity(
                gs.morphs.Plane(pos=(0.0, 0.0, top_m), visualization=False),
                material=gs.materials.Rigid(
                    friction=item.friction, coup_friction=item.coup_friction, needs_coup=True
                ),
            )

    def _add_objects(self, gs, scratch: Path, particles_as: str) -> dict[str, Any]:
        """By name. What hangs on another object is added right after it: Genesis makes one tree of
        them, within which nothing collides."""
        entities = {}
        for obj in (o for o in self.task.objects if o.joint is None or o.joint.parent is None):
            entities[obj.name] = self._add_object(gs, obj, scratch, particles_as)
            for child in self.task.objects:
                if child.joint is not None and child.joint.parent == obj.name:
                    entities[child.name] = self._add_object(gs, child, scratch, particles_as)
                    T = np.linalg.inv(obj.T_world_object) @ child.T_world_object
                    entities[child.name].attach(
                        entities[obj.name], obj.name, pos=T[:3, 3], quat=rotation_quat(T)
                    )
        return entities

    def _add_object(self, gs, obj: ObjectSpec, scratch: Path, particles_as: str):
        # Genesis's own default stretches the first mesh over the particles, across any cut.
        mode = {"surface": "recon", "spheres": "particle"}[particles_as]
        if obj.is_rigid:
            look = surface(gs, self.task, obj.look)
        else:
            look = surface(gs, self.task, obj.look or mean_look(self.task.mesh(obj)), vis_mode=mode)
        if obj.is_rigid:
            # Where rigid bodies do not collide nothing would carry a body's weight.
            material = rigid_material(
                gs, obj.material, compensated=not self.collides,
                couples=bool(self.particle_objects),
            )  # fmt: skip
            morph = rigid_morph(
                gs, self.task, obj, scratch, collides=self.collides,
                couples=bool(self.particle_objects),
            )  # fmt: skip
            return self._scene.add_entity(morph, material=material, surface=look)
        file = scratch / f"{obj.name}.obj"
        self.task.mesh(obj).export(file)
        T = obj.T_world_object
        morph = gs.morphs.Mesh(
            file=str(file), pos=tuple(T[:3, 3]), euler=tuple(obj.rotation_deg), align=False
        )
        return self._scene.add_entity(
            morph, material=particle_material(gs, obj.material), surface=look
        )

    def _add_camera(self, camera: Camera):
        """Genesis's pinhole camera has its principal point in the middle and square pixels."""
        T = camera.T_world_cam
        eye, forward, down = T[:3, 3], T[:3, 2], T[:3, 1]
        return self._scene.add_camera(
            res=(camera.width, camera.height), fov=camera.vertical_fov_deg, pos=tuple(eye),
            lookat=tuple(eye + forward), up=tuple(-down), near=0.02, far=10.0,
        )  # fmt: skip

    def _build(self, own_kernels: bool) -> None:
        """Build the scene, and settle who computes its particles before Genesis compiles a step."""
        mpm = self.task.spec.simulation.mpm
        cpic = mpm is not None and mpm.cpic
        self._quick, sim = None, self._scene.sim
        build = sim.build

        def build_and_take_over() -> None:
            build()
            if own_kernels:
                self._quick = take_over(self._scene, cpic=cpic)
            if self._quick is None and cpic:
                separate_by_moving_bodies_only(self._scene)

        sim.build = build_and_take_over
        self._scene.build(n_envs=self.n_envs)

    def _bind(self, gs) -> None:
        """Servo gains, and views of the state."""
        rigid = self._scene.sim.rigid_solver
        w = self.task.spec.simulation.servo_bandwidth_rad_s
        for obj in self.rigid_objects:
            entity, m = self._entities[obj.name], obj.material.mass_kg
            entity.set_mass(m)
            if obj.joint is not None:
                # Its value is set, or left to what pushes it.
                _harden_friction(entity)
                continue
            # The servo's axes are the world's while the inertia turns with the body, and the body
            # turns about its frame's origin: gains for its largest inertia about that origin.
            com, inertia = mass_properties(self.task.mesh(obj), m)
            largest = float(np.linalg.eigvalsh(inertia).max() + m * com @ com)
            entity.set_dofs_kp(np.r_[[m * w * w] * 3, [largest * w * w] * 3])
            entity.set_dofs_kv(np.r_[[2 * m * w] * 3, [2 * largest * w] * 3])
        # Genesis ends the whole batch when one environment goes wrong; here that environment is
        # marked as diverged, and the others go on.
        rigid.check_errno = lambda: None
        substep_s = self.dt_s / self.task.spec.simulation.substeps
        self.grips = {
            o.name: Grip(
                self._scene, self._entities[o.name], substep_s, in_place=self.own_kernels
            )
            for o in self.particle_objects if "actuator" in o.roles
        }  # fmt: skip
        links = rigid.dyn_state.links
        self._link_pos, self._link_quat = view(links.pos), view(links.quat)
        self._coupling = [view(links.cfrc_coupling_vel), view(links.cfrc_coupling_ang)]
        # A body on a joint is the last link of its chain.
        self._link = {o.name: self._entities[o.name].links[-1].idx for o in self.rigid_objects}
        self._dofs = {
            o.name: slice(e.dof_start, e.dof_end)
            for o in self.rigid_objects
            if (e := self._entities[o.name]) is not None
        }
        dofs = rigid.dyn_state.dofs
        self._dof_position, self._dof_velocity = view(dofs.pos), view(dofs.vel)
        self._servo_on, self._servo_off = int(gs.CTRL_MODE.POSITION), int(gs.CTRL_MODE.FORCE)
        controls = [
            view(x) for x in (dofs.ctrl_mode, dofs.ctrl_pos, dofs.ctrl_vel, dofs.ctrl_force)
        ]
        self._controls = {name: [x[d] for x in controls] for name, d in self._dofs.items()}
        self._errors = view(rigid._errno)
        self._contacts = []
        if self.collides:
            found = rigid.collider.collider_state
            geoms = found.contact_data.geom_a, found.contact_data.geom_b
            self._contacts = [view(x) for x in (found.n_contacts, found.contact_sort_idx, *geoms)]
        self._particle_solver = {
            o.name: self._scene.sim.sph_solver if _is_liquid(o) else self._scene.sim.mpm_solver
            for o in self.particle_objects
        }
        self.particle_sizes_m = {
            o.name: float(self._particle_solver[o.name].particle_size)
            for o in self.particle_objects
        }

    @property
    def own_kernels(self) -> bool:
        """Whether our own kernels compute the particles."""
        return self._quick is not None

    def link_m(self, name: str) -> float:
        """Particles of an object that are nearer to each other than this [m] hang together."""
        link = LINK_SIZES * self.particle_sizes_m[name]
        if self.task.object(name).material.kind == "elastic":
            link = max(link, 1 / self.task.spec.simulation.mpm.grid_density)
        return link

    # Running ------------------------------------------------------------------------------------

    def reset(self) -> None:
        """All environments back to the initial state; afterwards the same controls give the same
        bits.

        Genesis keeps the last substep's coupling force and adds it to the next step after a reset,
        so it is zeroed here.
        """
        self._scene.reset()
        if self._quick is not None:
            self._quick.reset()
        for grip in self.grips.values():
            grip.let_go()
        for force in self._coupling:
            force.zero_()

    def step(self) -> None:
        self._scene.step(update_visualizer=False, refresh_visualizer=False)

    def servo(self, name: str, pose_euler: Tensor, velocity: Tensor) -> None:
        """Give a free body's servo a target for this and the following steps.

        It is written where Genesis's own setter writes it, which looks up indices and takes ten
        times as long, in every step.

        Args:
            pose_euler: (6, B) position [m] and intrinsic xyz Euler angles [rad].
            velocity: (6, B) linear [m/s] and angular [rad/s] velocity, world axes.
        """
        mode, position, speed, _ = self._controls[name]
        mode.fill_(self._servo_on)
        position.copy_(pose_euler)
        speed.copy_(velocity)

    def release(self, name: str) -> None:
        """Switch a body's servo off: gravity and contacts decide from here on."""
        mode, _, _, force = self._controls[name]
        mode.fill_(self._servo_off)
        force.zero_()

    def set_joint(self, name: str, value: Tensor) -> None:
        """Put a body on a joint at values (B,) [rad or m], at rest."""
        self._entities[name].set_dofs_position(value[:, None].float())

    # Reading ------------------------------------------------------------------------------------

    def joint_value(self, name: str) -> Tensor:
        """(B,) [rad or m] of a body on a joint, 0 at its initial pose; copied."""
        return self._dof_position[self._dofs[name].start].clone()

    def position(self, name: str) -> Tensor:
        """(B, 3) [m, world]: the origin of the body's mesh frame. A view."""
        return self._link_pos[self._link[name]]

    def quaternion(self, name: str) -> Tensor:
        """(B, 4) (w, x, y, z), mesh frame to world. A view."""
        return self._link_quat[self._link[name]]

    def velocity(self, name: str) -> Tensor:
        """(B, 6): linear [m/s] and angular [rad/s] velocity of a body's mesh frame, world axes;
        copied."""
        speed = self._dof_velocity[self._dofs[name]].T.contiguous()
        joint = self.task.object(name).articulation
        if joint is None:
            return speed
        axis, origin = (
            torch.as_tensor(v, dtype=speed.dtype, device=speed.device)
            for v in (joint.world_axis, joint.world_origin_m)
        )
        if not joint.is_hinge:
            return torch.cat([speed * axis, torch.zeros_like(speed * axis)], dim=-1)
        turn = speed * axis
        return torch.cat([torch.linalg.cross(turn, self.position(name) - origin), turn], dim=-1)

    def particles(self, name: str) -> Tensor:
        """(N, B, 3) [m, world]. A contiguous view of the simulator's memory."""
        return self._particle_field(name, "pos")

    def particle_velocity(self, name: str) -> Tensor:
        """(N, B, 3) [m/s, world]. A view."""
        return self._particle_field(name, "vel")

    def _particle_field(self, name: str, field: str) -> Tensor:
        solver, entity = self._particle_solver[name], self._entities[name]
        values = view(getattr(solver.particles, field))
        if values.ndim == 4:  # MPM keeps one more axis, for the substeps of a gradient.
            values = values[0]
        return values[entity.particle_start : entity.particle_end]

    def particle_bounds(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner (3,) [m] of the box that particles cannot leave."""
        solver = self._particle_solver[name]
        if hasattr(solver, "boundary"):
            return np.array(solver.boundary.lower), np.array(solver.boundary.upper)
        return np.array(solver.lower_bound), np.array(solver.upper_bound)

    def touching(self, a: str, b: str, moment: Moment) -> Tensor:
        """(P,) bool: two rigid bodies shared a contact point in the step before this moment."""
        count, order, *geoms = moment.contacts
        most = int(count.max())
        # Contacts are where the order says; those behind an environment's own are stale.
        order = order[:most].long()
        valid = torch.arange(most, device=self.device)[:, None] < count
        geoms = [g.gather(0, order) for g in geoms]
        of_a, of_b = (
            [(g >= e.geom_start) & (g < e.geom_end) for g in geoms]
            for e in (self._entities[a], self._entities[b])
        )
        return (valid & ((of_a[0] & of_b[1]) | (of_a[1] & of_b[0]))).any(0)

    def moment(self) -> Moment:
        """What is now, copied."""
        bodies = [o.name for o in self.rigid_objects]
        clouds = [o.name for o in self.particle_objects]
        return Moment(
            position={n: self.position(n).clone() for n in bodies},
            quaternion={n: self.quaternion(n).clone() for n in bodies},
            velocity={n: self.velocity(n) for n in bodies},
            particles={n: self.particles(n).clone() for n in clouds},
            particle_velocity={n: self.particle_velocity(n).clone() for n in clouds},
            contacts=[c.clone() for c in self._contacts],
            error=self._errors > 0,
        )

    def diverged(self, moment: Moment | None = None) -> Tensor:
        """(P,) bool: environments whose numbers can no longer be believed, now or at a moment.

        Bodies raise the solver's error flag of their environment. Particles raise nothing: they are
        clamped, NaN included, to the border of the domain, so divergence shows as many particles
        there, as absurd speeds, or as a body that is far away.
        """
        moment = self.moment() if moment is None else moment
        bad = moment.error.clone()
        for name, p in moment.position.items():
            v = moment.velocity[name]
            far = torch.linalg.vector_norm(p, dim=-1) > ABSURD_DISTANCE_M
            fast = torch.linalg.vector_norm(v[:, :3], dim=-1) > ABSURD_SPEED_M_S
            bad |= far | fast | ~torch.isfinite(p).all(-1) | ~torch.isfinite(v).all(-1)
        for name, p in moment.particles.items():
            lower, upper = (
                torch.as_tensor(b, dtype=p.dtype, device=p.device)
                for b in self.particle_bounds(name)
            )
            at_border = ((p <= lower + 1e-6) | (p >= upper - 1e-6)).any(-1)
            fast = moment.particle_velocity[name].abs().amax(-1) > ABSURD_SPEED_M_S
            bad |= at_border.float().mean(0) > 0.02
            bad |= fast.any(0) | ~torch.isfinite(p).all(-1).all(0)
        return bad

    # Drawing ------------------------------------------------------------------------------------

    def film_frame(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB of environment 0.

        Raises:
            RunFailed: no surface can be laid around the particles.
        """
        for radius in RECONSTRUCTION_RADII:
            for entity in self._entities.values():
                entity.surface.recon_backend = f"splashsurf-{radius}"
            try:
                return self._draw(rgb=True)[0]
            except RuntimeError as e:
                reason = str(e).split("\n\nStack backtrace")[0]
        raise RunFailed(f"no surface can be laid around the particles: {reason}")

    def camera_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels (H, W) int32 and depth (H, W) float32 [m] of environment 0, by Genesis's camera.

        A slow twin of the observer's kernels, for checking them.
        """
        _, depth, segmentation = self._draw(rgb=False)
        labels = np.zeros(segmentation.shape, np.int32)
        key_of = {v: k for k, v in self._scene.segmentation_idx_dict.items()}
        for i, obj in enumerate(self.task.objects):
            key = key_of.get(self._entities[obj.name].idx)
            if key is not None:
                labels[segmentation == key] = i + 1
        return labels, np.asarray(depth, np.float32)

    def _draw(self, *, rgb: bool):
        if self._camera is None:
            raise ValueError("this SimScene was built without a camera")
        self._scene.visualizer.update(force=True)
        out = self._camera.render(
            rgb=rgb, depth=not rgb, segmentation=not rgb, force_render=True
        )  # fmt: skip
        return [None if o is None else np.asarray(o).squeeze() for o in out[:3]]


def _is_liquid(obj: ObjectSpec) -> bool:
    return obj.material.kind == "liquid"


def _harden_friction(entity) -> None:
    """Genesis's dry friction yields to a steady force, slowly: at its default impedance a peg that
    ten times its weight could not move sinks by 10 mm/s under its weight alone."""
    for joint in entity.joints:
        if joint.n_dofs:
            timeconst, dampratio, _, _, *shape = joint.get_sol_params().tolist()
            joint.set_sol_params([timeconst, dampratio, 0.999, 0.999, *shape])


def support_plane(task: Task) -> tuple[BackgroundSpec, float] | None:
    """The highest solid upright box whose top face covers the particles' whole domain, with the
    height of that face [m, world]; None where there is none."""
    sim = task.spec.simulation
    domain = sim.mpm or sim.sph
    if domain is None:
        return None
    covering = []
    for item in task.spec.background:
        if not item.solid or item.size_m is None or any(item.rotation_deg):
            continue
        half, centre = np.asarray(item.size_m) / 2, np.asarray(item.position_m)
        lower, upper = centre - half, centre + half
        covers = (lower[:2] <= domain.lower_m[:2]).all() and (upper[:2] >= domain.upper_m[:2]).all()
        if covers and upper[2] < domain.upper_m[2]:
            covering.append(item)
    best = max(covering, key=_top_m, default=None)
    return None if best is None else (best, _top_m(best))


def _top_m(item: BackgroundSpec) -> float:
    """Height of a box's top [m]; of a turned box, of the ball around it."""
    half = np.asarray(item.size_m) / 2
    rise = np.linalg.norm(half) if any(item.rotation_deg) else half[2]
    return float(item.position_m[2] + rise)
