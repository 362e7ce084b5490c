"""Gradients through a rollout: from what particles and a rigid tool do, back to the tool's waypoints.

Three transposes in a row. Particles: `lucibot_kernels.mpm_tape`, to how the tool moved in each substep.
The servo: how it moved, to where it was led. And the ways: where it was led, to the waypoints, by
differences of the ways themselves, which cost no physics.

Of the tool's equation of motion the servo and the inertia are transposed; how hard particles push it is
not (a newton shifts it by a quarter of a millimetre), nor how its inertia turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from lucibot.core.geometry import compose_rotvec
from lucibot.sim.build import mass_properties
from lucibot.sim.moment import Moment
from lucibot.sim.rollout import led, run_rollout
from lucibot.sim.scene import SimScene
from lucibot.task import Task

Ways = tuple[np.ndarray, np.ndarray]
"""Where a servo was led in each step, and at which velocity."""


def refused(task: Task) -> str | None:
    """Why a task has no gradients, or None where it has."""
    soft, tools = [o for o in task.objects if not o.is_rigid], task.actuators
    if not soft or any(o.is_liquid for o in soft):
        return "only what the material point method moves has gradients"
    if any(o.material.kind == "sand" for o in soft):
        return "sand has no gradient"
    free = len(tools) == 1 and tools[0].is_rigid and tools[0].joint is None
    if not free or task.spec.simulation.rigid_collision:
        return "gradients are known of one free rigid tool that meets particles only"
    return None


class RolloutGradient:
    """Rollouts of a scene whose task `refused` does not refuse, with gradients: of its last rollout,
    whoever rolled it out.

    Raises:
        ValueError: it has none.
    """

    def __init__(self, scene: SimScene):
        why = refused(scene.task)
        if why or not scene.own_kernels:
            raise ValueError(why or "gradients are those of the kernels for a CPU")
        self._scene, self._tool = scene, scene.task.actuators[0]
        self._sim = scene.task.spec.simulation
        self._tape = scene.particle_solver.record()
        self._bodies = scene.particle_solver.bodies
        link = scene.link(self._tool.name)
        self._link, self._shape = link, int(np.flatnonzero(self._bodies.link == link)[0])
        scene.reset()
        self._first = self._pose()

    def run(
        self,
        waypoints: np.ndarray,
        held: np.ndarray,
        on_keyframe: Callable[[int], None] = lambda k: None,
    ) -> list[Moment]:
        """Roll out (B, K, 1, 6) waypoints; returns the K keyframes."""
        moments: list[Moment] = []

        def keep(k: int) -> None:
            moments.append(self._scene.moment())
            on_keyframe(k)

        run_rollout(self._scene, torch.as_tensor(waypoints), held, on_keyframe=keep)
        return moments

    def _pose(self) -> tuple[np.ndarray, Rotation, Rotation]:
        """Of the tool in environment 0 at first: its origin in the axes of its shape, its turn, and the
        turn of its shape."""
        at = self._scene.position(self._tool.name)[0].numpy().astype(float)
        turn = _turn(self._scene.quaternion(self._tool.name)[0].numpy())
        shape = _turn(self._bodies.quat[self._shape, 0])
        return shape.inv().apply(at - self._bodies.pos[self._shape, 0]), turn, shape

    def back(
        self, d_particles: Mapping[int, np.ndarray], d_tool: Mapping[int, np.ndarray],
        environment: int = 0,
    ) -> Ways:  # fmt: skip
        """Gradients with respect to where the servo was led.

        Args:
            d_particles: by keyframe, (N, 3) with respect to all particles' positions.
            d_tool: by keyframe, (6,) with respect to the tool's shift [m] and turn [rad, world].

        Returns:
            (steps, 6) with respect to a shift and a turn of each step's target, and to its velocity;
            steps up to the last keyframe.
        """
        per_keyframe = self._sim.steps_per_waypoint * self._sim.substeps
        pull = self._tape.back(
            {(k + 1) * per_keyframe: d for k, d in d_particles.items()}, environment
        )
        substeps = (max([*d_particles, *d_tool], default=-1) + 1) * per_keyframe
        d_pose, d_speed, turns = self._of_tool(pull, substeps, environment)
        for k, d in d_tool.items():
            d_pose[(k + 1) * per_keyframe - 1] += d
        return self._servo_back(d_pose, d_speed, turns)

    def _of_tool(self, pull, substeps: int, b: int):
        """What the shapes and the link feel, as gradients (S, 6) with respect to pose and velocity of
        the tool's frame."""
        offset, turn, shape_turn = self._first
        d_pose, d_speed, turns = np.zeros((substeps, 6)), np.zeros((substeps, 6)), []
        shapes = np.flatnonzero(self._bodies.link == self._link)
        for s in range(substeps):
            pos, quat, _, spin, centre = (x.astype(float) for x in self._tape.moves(s, b))
            R = _turn(quat[self._shape])
            at = pos[self._shape] + R.apply(offset)
            turns.append((R * shape_turn.inv() * turn).as_matrix())
            for g in shapes:
                d_pose[s, :3] += pull.pos[s, g]
                d_pose[s, 3:] += pull.turn[s, g] + np.cross(pos[g] - at, pull.pos[s, g])
            arm, v = centre[self._link] - at, pull.velocity[s, self._link]
            d_speed[s, :3] = v
            d_speed[s, 3:] = pull.spin[s, self._link] + np.cross(arm, v)
            d_arm = pull.centre[s, self._link] + np.cross(v, spin[self._link])
            d_pose[s, :3] += pull.centre[s, self._link]
            d_pose[s, 3:] += np.cross(arm, d_arm)
        return d_pose, d_speed, turns

    def _servo_back(self, d_pose: np.ndarray, d_speed: np.ndarray, turns: list[np.ndarray]) -> Ways:
        """Transposes, in each substep, (M + h D) a = K (target - pose) + D (speed - velocity),
        velocity += h a, pose += h velocity: M the inertia at the frame's origin, K and D the gains."""
        h, w, m = (
            self._sim.dt_s / self._sim.substeps,
            self._sim.servo_bandwidth_rad_s,
            self._tool.material.mass_kg,
        )
        com, inertia = mass_properties(self._scene.task.mesh(self._tool), m)
        stiffness = np.full(6, m * w * w)
        stiffness[3:] = (np.linalg.eigvalsh(inertia).max() + m * com @ com) * w * w
        damping = 2 * stiffness / w
        steps = len(d_pose) // self._sim.substeps
        d_target, d_led = np.zeros((steps, 6)), np.zeros((steps, 6))
        later_pose, later_speed = np.zeros(6), np.zeros(6)
        for s in range(len(d_pose) - 1, -1, -1):
            later_pose = later_pose + d_pose[s]
            later_speed = later_speed + d_speed[s] + h * later_pose
            A = _mass(turns[s], com, inertia, m) + h * np.diag(damping)
            y = h * np.linalg.solve(A, later_speed)
            step = s // self._sim.substeps
            d_target[step] += stiffness * y
            d_led[step] += damping * y
            later_pose, later_speed = later_pose - stiffness * y, later_speed - damping * y
        return d_target, d_led

    def ways(self, waypoints: np.ndarray, held: np.ndarray) -> tuple[Tensor, Tensor]:
        """Where the servo is led from where the tool is at first: (P, steps, 6) poses and velocities of
        (P, K, 1, 6) waypoints, up to the last keyframe; what stands or is let go is led nowhere."""
        n, goals = self._sim.steps_per_waypoint, torch.as_tensor(np.asarray(waypoints, float))
        here = torch.as_tensor(np.asarray(self._start(), float)).expand(len(goals), 1, 6)
        poses, velocities = [], []
        for k in range(goals.shape[1]):
            goal = goals[:, k] if held[k, 0] else here
            pose, speed = led(
                torch.stack([here, goal], 1), n, self._sim.dt_s, self._sim.servo_bandwidth_rad_s
            )
            poses.append(pose[:, 0, :, 0])
            velocities.append(speed[:, 0, :, 0])
            here = goal
        return torch.cat(poses, 1), torch.cat(velocities, 1)

    def _start(self) -> np.ndarray:
        T = self._tool.T_world_object
        return np.concatenate([T[:3, 3], Rotation.from_matrix(T[:3, :3]).as_rotvec()])

    def of_samples(
        self, d_ways: Ways, waypoints: Callable[[np.ndarray], np.ndarray], z: np.ndarray, held: np.ndarray,
        step: float = 0.05,
    ) -> np.ndarray:  # fmt: skip
        """The gradient (D,) with respect to the search's coordinates, by central differences of the ways.

        Args:
            waypoints: (P, D) samples to (P, K, 1, 6) waypoints.
        """
        D = len(z)
        around = z + step * np.concatenate([np.eye(D), -np.eye(D)])
        pose, speed = self.ways(waypoints(around), held)
        shift = (pose[:D, :, :3] - pose[D:, :, :3]).numpy()
        turn = compose_rotvec(pose[:D, :, 3:], -pose[D:, :, 3:]).numpy()
        moved = np.concatenate([shift, turn], -1)
        faster = (speed[:D] - speed[D:]).numpy()
        d_target, d_led = d_ways
        moved, faster = moved[:, : len(d_target)], faster[:, : len(d_led)]
        return ((moved * d_target).sum((1, 2)) + (faster * d_led).sum((1, 2))) / (2 * step)


def _turn(quat_wxyz: np.ndarray) -> Rotation:
    return Rotation.from_quat(np.asarray(quat_wxyz, float)[[1, 2, 3, 0]])


def _mass(R: np.ndarray, com: np.ndarray, inertia: np.ndarray, m: float) -> np.ndarray:
    """(6, 6) of a body's linear and angular velocity in world axes, about its frame's origin."""
    x, y, z = R @ com
    c = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.block([[m * np.eye(3), -m * c], [m * c, R @ inertia @ R.T - m * c @ c]])
