"""`Rollout`: one trajectory as it was simulated, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lucibot.sim.scene import SimScene


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """S steps, and the start before them; T moments at which particles were looked at."""

    times_s: np.ndarray
    """(S + 1,) of simulated time."""
    bodies: tuple[str, ...]
    """Names of the R rigid objects."""
    positions_m: np.ndarray
    """(S + 1, R, 3) float32, world: origins of the mesh frames."""
    quaternions: np.ndarray
    """(S + 1, R, 4) float32 (w, x, y, z), mesh frame to world."""
    joints: tuple[str, ...]
    """Names of the J rigid objects that hang on a joint."""
    joint_values: np.ndarray
    """(S + 1, J) float32 [rad or m], 0 at the initial pose."""
    actuators: tuple[str, ...]
    """Names of the A actuators."""
    held: np.ndarray
    """(S + 1, A) bool: whether a hand held it in the step that led here; at the start none."""
    particle_steps: np.ndarray
    """(T,) int: after how many steps particles were looked at; always at the start and the end."""
    particles: dict[str, np.ndarray]
    """By object, (T, N, 3) float32 [m, world]."""

    def save(self, path: Path) -> None:
        np.savez_compressed(
            path, times_s=self.times_s, positions_m=self.positions_m, quaternions=self.quaternions,
            joint_values=self.joint_values, held=self.held, particle_steps=self.particle_steps,
            **{n: np.array(getattr(self, n), dtype=str) for n in ("bodies", "joints", "actuators")},
            **{f"particles/{n}": p for n, p in self.particles.items()},
        )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> Rollout:
        with np.load(path) as z:
            names = {n: tuple(z[n].tolist()) for n in ("bodies", "joints", "actuators")}
            arrays = {n: z[n] for n in z.files if n not in names and "/" not in n}
            particles = {n.partition("/")[2]: z[n] for n in z.files if "/" in n}
        return cls(**names, **arrays, particles=particles)


class RolloutRecorder:
    """Keeps what the first environment of a scene does.

    Args:
        held: (K, A) bool, as in `Supervision.held`.
        stride: particles are looked at every so many steps.
    """

    def __init__(self, scene: SimScene, held: np.ndarray, stride: int):
        self._scene, self._held, self._stride = scene, held, stride
        spec = scene.task.spec.simulation
        self._per_keyframe = spec.steps_per_waypoint
        self._last = len(held) * self._per_keyframe + spec.settle_steps
        self._bodies = [o.name for o in scene.rigid_objects]
        self._joints = [o.name for o in scene.rigid_objects if o.joint is not None]
        self._poses: list[tuple[np.ndarray, ...]] = []
        self._steps: list[int] = []
        self._clouds: dict[str, list[np.ndarray]] = {o.name: [] for o in scene.particle_objects}

    def look(self, step: int) -> None:
        """Call before the first step with 0, and after each one with the number of steps done."""
        scene = self._scene

        def of_first(read, names: list[str], *shape: int) -> np.ndarray:
            values = [read(n)[0].cpu().numpy() for n in names]
            return np.array(values, np.float32).reshape(len(names), *shape)

        self._poses.append((
            of_first(scene.position, self._bodies, 3),
            of_first(scene.quaternion, self._bodies, 4),
            of_first(scene.joint_value, self._joints),
        ))  # fmt: skip
        if step % self._stride == 0 or step == self._last:
            self._steps.append(step)
            for name, cloud in self._clouds.items():
                cloud.append(scene.particles(name)[:, 0].cpu().numpy().copy())

    def rollout(self) -> Rollout:
        """What was seen since the start."""
        K = len(self._held)
        after = (np.arange(len(self._poses)) - 1) // self._per_keyframe
        led = (after >= 0) & (after < K)
        held = np.where(led[:, None], self._held[np.clip(after, 0, K - 1)], False)
        positions, quaternions, values = (np.stack(x) for x in zip(*self._poses, strict=True))
        return Rollout(
            times_s=np.arange(len(self._poses)) * self._scene.dt_s, bodies=tuple(self._bodies),
            positions_m=positions, quaternions=quaternions, joints=tuple(self._joints),
            joint_values=values, held=held,
            actuators=tuple(o.name for o in self._scene.task.actuators),
            particle_steps=np.array(self._steps),
            particles={n: np.stack(c) for n, c in self._clouds.items()},
        )  # fmt: skip
