"""`Rollout`: one trajectory as it was simulated, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lucibot.core.arrays import read_npz

NAMES = ("bodies", "joints", "actuators", "arm_joints")
"""Fields that are names."""


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
    targets_m: np.ndarray
    """(S + 1, A, 3) float32, world: where each actuator was to be after the step that led here, NaN where
    it was not held. Of a deformable one, where the particle that is grasped was to be."""
    target_quaternions: np.ndarray
    """(S + 1, A, 4) float32 (w, x, y, z), likewise; of a deformable one, its turn since it was taken."""
    grasped: dict[str, np.ndarray]
    """Of each deformable actuator, (S + 1,) int: the particle that is grasped, -1 where none is."""
    particle_steps: np.ndarray
    """(T,) int: after how many steps particles were looked at; always at the start and the end."""
    particles: dict[str, np.ndarray]
    """By object, (T, N, 3) float32 [m, world]."""
    arm: str = ""
    """The arm that did it; empty where servos moved the actuators themselves."""
    arm_folder: str = ""
    """Where the folder of that arm was; empty of one that comes with the package."""
    arm_joints: tuple[str, ...] = ()
    """Names of its joints, from the base to the hand."""
    arm_angles: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(S + 1, arm joints) float32 [rad]."""
    arm_targets: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(S + 1, arm joints) float32 [rad] what its servos were told in the step that led here: the plan, and
    what was measured to be off."""
    arm_planned: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """(S + 1, arm joints) float64 [rad] the plan, which keeps the joints' limits."""
    arm_opening_m: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """(S + 1,) float32 between its fingers."""
    T_world_base: np.ndarray = field(default_factory=lambda: np.eye(4))
    """(4, 4) where it stands."""

    def save(self, path: Path) -> None:
        np.savez_compressed(
            path, times_s=self.times_s, positions_m=self.positions_m, quaternions=self.quaternions,
            joint_values=self.joint_values, held=self.held, particle_steps=self.particle_steps,
            targets_m=self.targets_m, target_quaternions=self.target_quaternions,
            arm=np.array(self.arm, dtype=str), arm_angles=self.arm_angles, arm_targets=self.arm_targets,
            arm_planned=self.arm_planned,
            arm_opening_m=self.arm_opening_m, T_world_base=self.T_world_base,
            **({"arm_folder": np.array(self.arm_folder)} if self.arm_folder else {}),
            **{n: np.array(getattr(self, n), dtype=str) for n in NAMES},
            **{f"particles/{n}": p for n, p in self.particles.items()},
            **{f"grasped/{n}": p for n, p in self.grasped.items()},
        )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> Rollout:
        """
        Raises:
            FileNotFoundError: there is none.
            UserError: it is damaged or of another version.
        """
        with read_npz(path) as told:
            names = {n: tuple(told[n].tolist()) for n in NAMES if n in told}
            names |= {n: str(told[n]) for n in ("arm", "arm_folder") if n in told}
            arrays = {n: x for n, x in told.items() if n not in names and "/" not in n}
            of_objects = {
                kind: {n.partition("/")[2]: x for n, x in told.items() if n.startswith(f"{kind}/")}
                for kind in ("particles", "grasped")
            }
            return cls(**names, **arrays, **of_objects)
