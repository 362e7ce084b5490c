"""An arm in a simulated scene: joints that are driven, fingers, and what they hold (paper, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BANDWIDTH_RAD_S = 100.0
"""Of the joints' position servos: they lag by acceleration over its square."""
LEAST_KG_M2 = 0.05
"""Servos are made for so much at least, as motors behind gears are."""
FINGER_BANDWIDTH_RAD_S = 40.0
FINGER_KG = 0.1
GRIP_N = 40.0
"""What each finger presses with at most."""


@dataclass(frozen=True, kw_only=True)
class ArmModel:
    """What the simulation needs to know of an arm with J joints and F fingers."""

    name: str
    own_folder: str
    """Where it lies; empty of one that comes with the package."""
    file: Path
    """MJCF or URDF."""
    T_world_base: np.ndarray
    """(4, 4)"""
    tip: str
    """The link that carries the hand."""
    T_tip_tcp: np.ndarray
    """(4, 4)"""
    joints: tuple[str, ...]
    fingers: tuple[str, ...]
    """Joints that move one finger each, 0 where closed."""
    home_rad: np.ndarray
    """(J,)"""
    inertia_kg_m2: np.ndarray
    """(J,) the most that each joint has to move; servos are made for it."""
    opening_m: float
    """Between the fingers, open."""
    collides: bool = False
    """Whether it meets other rigid bodies, where the task lets them collide."""


def add_arm(gs: Any, scene: Any, model: ArmModel) -> Any:
    """Add it to a Genesis scene that is not built yet. Particles do not meet it."""
    place = {
        "pos": tuple(float(v) for v in model.T_world_base[:3, 3]),
        "quat": tuple(float(v) for v in _quaternion(model.T_world_base)),
        "collision": model.collides,
    }
    if model.file.suffix.lower() == ".urdf":
        morph = gs.morphs.URDF(file=str(model.file), fixed=True, merge_fixed_links=False, **place)
    else:
        morph = gs.morphs.MJCF(file=str(model.file), **place)
    # Controllers of real arms carry the arm's own weight.
    material = gs.materials.Rigid(gravity_compensation=1.0, needs_coup=False, friction=1.0)
    return scene.add_entity(morph, material=material)


class SimArm:
    """One arm in the first environment of a built scene.

    Attributes:
        targets: (J,) [rad] where the joints are to be after the coming step.

    Args:
        entity: Genesis's, of `add_arm`.
        link_of: the index of the link of an object, by its name.
    """

    def __init__(self, scene: Any, entity: Any, model: ArmModel, link_of: Callable[[str], int]):
        self.model = model
        self._entity, self._solver, self._link_of = entity, scene.sim.rigid_solver, link_of
        self._tip = entity.get_link(model.tip)
        joints = [entity.get_joint(n) for n in (*model.joints, *model.fingers)]
        local = [int(j.dofs_idx_local[0]) for j in joints]
        self._arm, self._fingers = local[: len(model.joints)], local[len(model.joints) :]
        self._held: str | None = None
        sim = scene.sim
        self._ahead_s = 0.5 * sim.substep_dt * (sim.substeps + 1)
        self._servos()
        self.reset()

    def _servos(self) -> None:
        entity, w = self._entity, BANDWIDTH_RAD_S
        inertia = np.maximum(self.model.inertia_kg_m2, LEAST_KG_M2)
        entity.set_dofs_kp(w * w * inertia, self._arm)
        entity.set_dofs_kv(2 * w * inertia, self._arm)
        if self._fingers:
            w = FINGER_BANDWIDTH_RAD_S
            n = len(self._fingers)
            entity.set_dofs_kp([w * w * FINGER_KG] * n, self._fingers)
            entity.set_dofs_kv([2 * w * FINGER_KG] * n, self._fingers)
            entity.set_dofs_force_range([-GRIP_N] * n, [GRIP_N] * n, self._fingers)

    def reset(self) -> None:
        """At home, at rest, with open fingers and empty."""
        self.let_go()
        model = self.model
        self._entity.set_dofs_position(model.home_rad, self._arm)
        if self._fingers:
            each = [model.opening_m / 2] * len(self._fingers)
            self._entity.set_dofs_position(each, self._fingers)
        self.drive(model.home_rad, np.zeros(len(self._arm)), model.opening_m)

    def drive(self, angles: np.ndarray, speeds: np.ndarray, opening_m: float) -> None:
        """Where joints are to be after the coming step, (J,) [rad], and how fast they go then, (J,) [rad/s];
        and what is to be between the fingers [m]."""
        self._opening = float(opening_m)
        self.targets = np.asarray(angles, float)
        # A servo brings a joint, within a substep, to where its target moves on from.
        begun = self.targets - self._ahead_s * speeds
        self._entity.control_dofs_position_velocity(begun, speeds, self._arm)
        if self._fingers:
            each = [opening_m / 2] * len(self._fingers)
            self._entity.control_dofs_position(each, self._fingers)

    @property
    def angles(self) -> np.ndarray:
        """(J,) [rad]"""
        return self._read(self._arm)

    @property
    def opening(self) -> float:
        """Between the fingers [m]; where the model has none, what it is to be."""
        return float(self._read(self._fingers).sum()) if self._fingers else self._opening

    def _read(self, dofs: list[int]) -> np.ndarray:
        return self._entity.get_dofs_position(dofs)[0].cpu().numpy().astype(float)

    @property
    def tcp(self) -> np.ndarray:
        """(4, 4) where the middle between the finger tips is, world."""
        T = np.eye(4)
        T[:3, 3] = self._tip.get_pos()[0].cpu().numpy()
        T[:3, :3] = _matrix(self._tip.get_quat()[0].cpu().numpy().astype(float))
        return T @ self.model.T_tip_tcp

    def hold(self, name: str) -> None:
        """Weld an object to the hand, as they are to each other now."""
        self._solver.add_weld_constraint(self._tip.idx, self._link_of(name))
        self._held = name

    def let_go(self) -> None:
        """Take the weld away."""
        if self._held is not None:
            self._solver.delete_weld_constraint(self._tip.idx, self._link_of(self._held))
            self._held = None


def _quaternion(T: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return np.roll(Rotation.from_matrix(T[:3, :3]).as_quat(), 1)


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_quat(np.roll(quaternion, -1)).as_matrix()
