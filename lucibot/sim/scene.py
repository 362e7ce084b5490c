"""`SimScene`: a task as a batch of Genesis environments (paper, section 3.1).

Built once, reset as a whole between generations. Rigid objects are free bodies, or hang on a joint;
free actuators carry a servo that follows one target per environment. Everything that is read comes
as torch tensors over the simulator's own memory where that is possible.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lucibot.core.camera import Camera
from lucibot.core.errors import RunFailed
from lucibot.core.geometry import pose_np, rotate, rotvec_to_quat
from lucibot.core.progress import Progress, silent
from lucibot.sim.arm import ArmModel
from lucibot.sim.build import build_scene, drawn_light
from lucibot.sim.engine import start_genesis
from lucibot.sim.grip import Grip
from lucibot.sim.moment import Moment
from lucibot.sim.particles import QuickMPM, QuickSPH
from lucibot.sim.timer import Timer
from lucibot.store.rollout import Rollout
from lucibot.task import LightSpec, ObjectSpec, Task

LINK_SIZES = 1.5
"""Particles nearer than this many particle sizes hang together: just more than the diagonal of the
lattice that bodies are sampled on. What is elastic may be stretched: it hangs together while its
particles are within one cell of the grid, the distance at which it tears."""
ABSURD_SPEED_M_S = 20.0
ABSURD_DISTANCE_M = 3.0
"""From where a body begins."""
RECONSTRUCTION_RADII = (1.0, 1.01, 1.03)
"""Scales of the particles' radius with which a surface is laid around them for a picture, in turn:
splashsurf fails where its grid touches the surface just so, which another grid does not."""


def begins_elsewhere(obj: ObjectSpec) -> bool:
    """Whether an object can begin at another place in each environment of a scene."""
    if obj.joint is not None:
        return obj.joint.parent is not None and "actuator" not in obj.roles
    return obj.is_rigid or "actuator" not in obj.roles


class SimScene:
    """B environments of one task.

    Args:
        camera: if given, environment 0 can be filmed with it; building the drawing context costs
            a second and memory, so rollouts for fitness go without.
        particles_as: how the camera draws particles: "surface", meshed anew, or "spheres".
        own_kernels: on a CPU, let our own kernels compute what particles do; otherwise, and on a
            GPU, Genesis's do.
        arm: stands in the scene as well; there is one environment then.
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
        arm: ArmModel | None = None,
        progress: Progress = silent,
    ):
        self.task, self.n_envs, self.timer = task, n_envs, Timer()
        gs = start_genesis(device)
        self.device = gs.device
        sim = task.spec.simulation
        self.dt_s = sim.dt_s
        self.rigid_objects = [o for o in task.objects if o.is_rigid]
        self.particle_objects = [o for o in task.objects if not o.is_rigid]
        self.collides = sim.rigid_collision
        progress(f"building {n_envs} environments of {task.name}")
        built = build_scene(
            gs, task, n_envs=n_envs, camera=camera, particles_as=particles_as,
            own_kernels=own_kernels, arm=arm,
        )  # fmt: skip
        self.arm = built.arm
        self._stands: list[Task] | None = None
        self._scene, self._entities = built.scene, built.entities
        self._camera, self._adapter, self._quick = built.camera, built.adapter, built.particles
        self._filming = camera
        self._bind(gs)
        self.reset()

    def _bind(self, gs) -> None:
        """Views of the state."""
        adapter = self._adapter
        self.grips = {
            o.name: Grip(adapter, self.particles(o.name), self.particle_velocity(o.name))
            for o in self.particle_objects if "actuator" in o.roles
        }  # fmt: skip
        links, dofs = adapter.links(), adapter.dofs()
        self._link_pos, self._link_quat = links.pos, links.quat
        self._coupling = [links.force, links.torque]
        # A body on a joint is the last link of its chain.
        self._link = {o.name: self._entities[o.name].links[-1].idx for o in self.rigid_objects}
        self._dofs = {
            o.name: slice(e.dof_start, e.dof_end)
            for o in self.rigid_objects
            if (e := self._entities[o.name]) is not None
        }
        self._dof_position, self._dof_velocity = dofs.position, dofs.velocity
        self._servo_on, self._servo_off = int(gs.CTRL_MODE.POSITION), int(gs.CTRL_MODE.FORCE)
        controls = [dofs.mode, dofs.target_position, dofs.target_velocity, dofs.target_force]
        self._controls = {name: [x[d] for x in controls] for name, d in self._dofs.items()}
        self._servoed: set[str] = set()  # Bodies whose servo is on.
        self._errors = adapter.errors()
        self.particle_sizes_m = {
            o.name: adapter.particle_size_m(o.is_liquid) for o in self.particle_objects
        }

    @property
    def own_kernels(self) -> bool:
        """Whether our own kernels compute the particles."""
        return self._quick is not None

    @property
    def particle_solver(self) -> QuickMPM | QuickSPH | None:
        """Those kernels."""
        return self._quick

    def link(self, name: str) -> int:
        """The link of a rigid body, as `particle_solver` counts them."""
        return self._link[name]

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
        with self.timer.part("control"):
            self._scene.reset()
            if self._stands is not None:
                self._stand()
            self._servoed.clear()
            if self._quick is not None:
                self._quick.reset()
            for grip in self.grips.values():
                grip.let_go()
            for force in self._coupling:
                force.zero_()
            if self.arm is not None:
                self.arm.reset()

    def stand(self, tasks: Sequence[Task]) -> None:
        """From the next reset on let each environment begin as one of these tasks (B,) says, which differ
        from the scene's own in where objects are. What hangs on a joint goes with its parent.

        Raises:
            ValueError: not as many as there are environments, or what cannot begin elsewhere in each of
                them: an object on a joint to the world, or what is held of a deformable actuator.
        """
        if len(tasks) != self.n_envs:
            raise ValueError(f"{len(tasks)} tasks for {self.n_envs} environments")
        for o in self.task.objects:
            there = o.T_world_object
            moved = any(not np.allclose(t.object(o.name).T_world_object, there) for t in tasks)
            if moved and not begins_elsewhere(o):
                raise ValueError(f"{o.name!r} begins in all environments at one place")
        self._stands = list(tasks)

    def T_world_object(self, name: str, environment: int) -> np.ndarray:
        """(4, 4) where an object begins."""
        task = self.task if self._stands is None else self._stands[environment]
        return task.object(name).T_world_object

    def _stand(self) -> None:
        """Put everything where it begins in each environment."""
        for o in self.task.objects:
            if o.joint is not None:
                continue
            there = o.T_world_object
            T = np.stack([self.T_world_object(o.name, b) for b in range(self.n_envs)])
            if np.array_equal(T, np.broadcast_to(there, T.shape)):
                continue
            if o.is_rigid:
                pose = torch.as_tensor(pose_np(T), device=self.device)
                q = torch.cat([pose[:, :3], rotvec_to_quat(pose[:, 3:])], -1).float()
                self._entities[o.name].set_qpos(q)
                continue
            D = torch.as_tensor(T @ np.linalg.inv(there), device=self.device, dtype=torch.float64)
            points = self.particles(o.name)
            moved = torch.einsum("bij,nbj->nbi", D[:, :3, :3], points.double()) + D[:, :3, 3]
            points.copy_(moved.to(points.dtype))

    def step(self) -> None:
        with self.timer.part("physics"):
            self._scene.step(update_visualizer=False, refresh_visualizer=False)

    def servo(self, name: str, pose_euler: Tensor, velocity: Tensor) -> None:
        """Give a free body's servo a target for this and the following steps.

        It is written where Genesis's own setter writes it, which looks up indices and takes ten
        times as long, in every step.

        Args:
            pose_euler: (6, B) position [m] and intrinsic xyz Euler angles [rad].
            velocity: (6, B) linear velocity [m/s, world axes] and angular velocity [rad/s] about the axes
                of the body at that target.
        """
        with self.timer.part("control"):
            mode, position, speed, _ = self._controls[name]
            if name not in self._servoed:
                mode.fill_(self._servo_on)
                self._servoed.add(name)
            position.copy_(pose_euler)
            speed.copy_(velocity)

    def release(self, name: str) -> None:
        """Switch a body's servo off: gravity and contacts decide from here on."""
        mode, _, _, force = self._controls[name]
        mode.fill_(self._servo_off)
        force.zero_()
        self._servoed.discard(name)

    def set_joint(self, name: str, value: Tensor) -> None:
        """Put a body on a joint at values (B,) [rad or m], at rest."""
        with self.timer.part("control"):
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
        obj = self.task.object(name)
        if obj.joint is None:  # Genesis tells a free body's turning about its own axes.
            turn = rotate(self.quaternion(name), speed[:, 3:])
            return torch.cat([speed[:, :3], turn], dim=-1)
        joint, parent, at = obj.articulation, obj.joint.parent, self.position(name)

        def everywhere(v: np.ndarray) -> Tensor:
            return torch.as_tensor(v, dtype=speed.dtype, device=speed.device).expand_as(at)

        if parent is None:
            axis, arm = everywhere(joint.world_axis), at - everywhere(joint.world_origin_m)
        else:  # Axis and origin go with the parent.
            q = self.quaternion(name)
            axis, arm = rotate(q, everywhere(joint.axis)), -rotate(q, everywhere(joint.origin_m))
        along = speed * axis
        still = torch.zeros_like(along)
        own = (torch.linalg.cross(along, arm), along) if joint.is_hinge else (along, still)
        found = torch.cat(own, dim=-1)
        if parent is not None:
            linear, turn = self.velocity(parent).split(3, dim=-1)
            apart = at - self.position(parent)
            found += torch.cat([linear + torch.linalg.cross(turn, apart), turn], dim=-1)
        return found

    def particles(self, name: str) -> Tensor:
        """(N, B, 3) [m, world]. A contiguous view of the simulator's memory."""
        return self._particle_field(name, "pos")

    def particle_velocity(self, name: str) -> Tensor:
        """(N, B, 3) [m/s, world]. A view."""
        return self._particle_field(name, "vel")

    def _particle_field(self, name: str, field: str) -> Tensor:
        entity = self._entities[name]
        values = self._adapter.particle_field(self.task.object(name).is_liquid, field)
        return values[entity.particle_start : entity.particle_end]

    def particle_bounds(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner (3,) [m] of the box that particles cannot leave."""
        return self._adapter.particle_bounds(self.task.object(name).is_liquid)

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
            begins = self._begins(name).to(p).repeat(len(p) // self.n_envs, 1)
            far = torch.linalg.vector_norm(p - begins, dim=-1) > ABSURD_DISTANCE_M
            fast = torch.linalg.vector_norm(v[:, :3], dim=-1) > ABSURD_SPEED_M_S
            bad |= far | fast | ~torch.isfinite(p).all(-1) | ~torch.isfinite(v).all(-1)
        for name, p in moment.particles.items():
            lower, upper = (
                torch.as_tensor(b, dtype=p.dtype, device=p.device)
                for b in self.particle_bounds(name)
            )
            at_border = ((p <= lower + 1e-6) | (p >= upper - 1e-6)).any(-1)
            # What is no number is not slow.
            fast = ~(moment.particle_velocity[name].abs().amax(-1) <= ABSURD_SPEED_M_S)
            bad |= at_border.float().mean(0) > 0.02
            bad |= fast.any(0) | ~torch.isfinite(p).all(-1).all(0)
        return bad

    def _begins(self, name: str) -> Tensor:
        """(B, 3) [m, world] where a body begins in each environment."""
        tasks = self._stands or [self.task] * self.n_envs
        return torch.tensor([t.object(name).position_m for t in tasks])

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

    def look_through(self, camera: Camera, light: LightSpec) -> None:
        """Film from elsewhere, with a camera of the same kind, and in another light."""
        view, _ = camera.centred()
        T = view.T_world_cam
        self._camera.set_pose(pos=T[:3, 3], lookat=T[:3, 3] + T[:3, 2], up=-T[:3, 1])
        self._adapter.light(light.direction, **drawn_light(light))
        self._filming = camera

    def show(self, rollout: Rollout, step: int) -> None:
        """Put all environments where a rollout was after a step at which it kept its particles, at rest."""
        at = int(np.flatnonzero(rollout.particle_steps == step)[0])
        for r, name in enumerate(rollout.bodies):
            if name not in rollout.joints:
                q = np.concatenate([rollout.positions_m[step, r], rollout.quaternions[step, r]])
                self._entities[name].set_qpos(self._everywhere(q))
        for j, name in enumerate(rollout.joints):
            value = rollout.joint_values[step, j]
            self._entities[name].set_dofs_position(self._everywhere(value[None]))
        for name, clouds in rollout.particles.items():
            points = torch.as_tensor(clouds[at], device=self.device)
            self.particles(name).copy_(points[:, None].expand(-1, self.n_envs, -1))

    def _everywhere(self, values: np.ndarray) -> Tensor:
        """(B, n), the same in all environments."""
        values = torch.as_tensor(np.asarray(values, np.float32), device=self.device)
        return values.expand(self.n_envs, -1)

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
        view = self._filming
        _, (x, y) = view.centred()
        return [
            None if o is None else np.asarray(o).squeeze()[y : y + view.height, x : x + view.width]
            for o in out[:3]
        ]
