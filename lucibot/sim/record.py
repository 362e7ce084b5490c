"""Keeps what happens in a rollout, step by step."""

from __future__ import annotations

import numpy as np
import torch

from lucibot.core.geometry import rotvec_to_quat
from lucibot.sim.rollout import Aim
from lucibot.sim.scene import SimScene
from lucibot.store.rollout import Rollout


class RolloutRecorder:
    """Keeps what one environment of a scene does.

    Args:
        stride: particles are looked at every so many steps, and at the end.
        environment: which one.
    """

    def __init__(self, scene: SimScene, stride: int, environment: int = 0):
        self._scene, self._stride, self._environment = scene, stride, environment
        self._bodies = [o.name for o in scene.rigid_objects]
        self._joints = [o.name for o in scene.rigid_objects if o.joint is not None]
        self._poses: list[tuple[np.ndarray, ...]] = []
        self._steps: list[int] = []
        self._clouds: dict[str, list[np.ndarray]] = {o.name: [] for o in scene.particle_objects}
        self._actuators = [o.name for o in scene.task.actuators]
        self._soft = [o.name for o in scene.task.actuators if not o.is_rigid]
        self._aims: list[dict[str, Aim]] = []
        self._arm: list[tuple] = []

    def aim(self, aims: dict[str, Aim]) -> None:
        """Call before each step with where it is to bring what is held."""
        self._aims.append(dict(aims))

    def look(self, step: int) -> None:
        """Call before the first step with 0, and after each one with the number of steps done."""
        scene = self._scene

        def of_mine(read, names: list[str], *shape: int) -> np.ndarray:
            values = [read(n)[self._environment].cpu().numpy() for n in names]
            return np.array(values, np.float32).reshape(len(names), *shape)

        self._poses.append((
            of_mine(scene.position, self._bodies, 3),
            of_mine(scene.quaternion, self._bodies, 4),
            of_mine(scene.joint_value, self._joints),
        ))  # fmt: skip
        if scene.arm is not None:
            self._arm.append((scene.arm.angles, scene.arm.targets, scene.arm.opening))
        if step % self._stride == 0:
            self._look_at_particles(step)

    def _look_at_particles(self, step: int) -> None:
        self._steps.append(step)
        for name, cloud in self._clouds.items():
            cloud.append(self._scene.particles(name)[:, self._environment].cpu().numpy().copy())

    def rollout(self) -> Rollout:
        """What was seen since the start; the scene is as it was when it was last looked at."""
        last = len(self._poses) - 1
        if self._steps[-1] != last:
            self._look_at_particles(last)
        held = np.zeros((last + 1, len(self._actuators)), bool)
        for step, aims in enumerate(self._aims, 1):
            held[step] = [name in aims for name in self._actuators]
        positions, quaternions, values = (np.stack(x) for x in zip(*self._poses, strict=True))
        targets, grasped = self._targets()
        return Rollout(
            times_s=np.arange(len(self._poses)) * self._scene.dt_s, bodies=tuple(self._bodies),
            positions_m=positions, quaternions=quaternions, joints=tuple(self._joints),
            joint_values=values, held=held,
            actuators=tuple(o.name for o in self._scene.task.actuators),
            particle_steps=np.array(self._steps),
            particles={n: np.stack(c) for n, c in self._clouds.items()},
            targets_m=targets[..., :3], target_quaternions=targets[..., 3:], grasped=grasped,
            **self._joints_of_the_arm(),
        )  # fmt: skip

    def _joints_of_the_arm(self) -> dict:
        arm = self._scene.arm
        if arm is None:
            return {}
        angles, targets, openings = (np.array(x, np.float32) for x in zip(*self._arm, strict=True))
        return {"arm": arm.model.name, "arm_folder": arm.model.own_folder,
                "arm_joints": arm.model.joints, "arm_angles": angles, "arm_targets": targets,
                "arm_opening_m": openings, "T_world_base": arm.model.T_world_base}  # fmt: skip

    def _targets(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(S + 1, A, 7) positions and quaternions, and the particles that are grasped."""
        targets = np.full((len(self._poses), len(self._actuators), 7), np.nan, np.float32)
        grasped = {n: np.full(len(self._poses), -1) for n in self._soft}
        for step, aims in enumerate(self._aims, 1):
            for name, aim in aims.items():
                a = self._actuators.index(name)
                pose = aim.pose[self._environment]
                targets[step, a, :3] = pose[:3]
                targets[step, a, 3:] = rotvec_to_quat(torch.as_tensor(pose[3:])).numpy()
                if name in grasped:
                    grasped[name][step] = aim.particle[self._environment]
        return targets, grasped
