"""A joint between an object and what carries it: the object's poses form a curve.

Values are radians for a hinge and metres for a slider; 0 is the object's initial pose. NumPy only:
reading a task must load neither torch nor scipy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

_NEAR = 3e-3
"""What a turn away from the first pose counts for, as a share of as much beyond the limits."""


@dataclass(frozen=True, kw_only=True)
class Joint:
    """The curve of poses that one joint leaves to an object."""

    kind: Literal["hinge", "slider"]
    axis: np.ndarray
    """(3,) unit: the hinge's axis or the direction of sliding, in the object's own frame."""
    origin_m: np.ndarray
    """(3,) a point on the hinge's axis, in the object's own frame."""
    lower: float
    """Least value [rad or m]."""
    upper: float
    T_world_object: np.ndarray
    """(4, 4) pose at value 0."""

    @property
    def is_hinge(self) -> bool:
        return self.kind == "hinge"

    @property
    def world_axis(self) -> np.ndarray:
        """(3,) unit."""
        return self.T_world_object[:3, :3] @ self.axis

    @property
    def world_origin_m(self) -> np.ndarray:
        """(3,) a point on the hinge's axis."""
        return self.T_world_object[:3, :3] @ self.origin_m + self.T_world_object[:3, 3]

    def poses(self, values: np.ndarray) -> np.ndarray:
        """(..., 4, 4) world poses at joint values (...)."""
        from scipy.spatial.transform import Rotation

        values = np.asarray(values, float)
        T = np.empty((*values.shape, 4, 4))
        T[...] = self.T_world_object
        if self.is_hinge:
            turn = Rotation.from_rotvec(values.reshape(-1, 1) * self.world_axis).as_matrix()
            turn = turn.reshape(*values.shape, 3, 3)
            T[..., :3, :3] = turn @ T[..., :3, :3]
            arm = self.T_world_object[:3, 3] - self.world_origin_m
            T[..., :3, 3] = self.world_origin_m + turn @ arm
        else:
            T[..., :3, 3] += values[..., None] * self.world_axis
        return T

    def values(self, poses: np.ndarray) -> np.ndarray:
        """Joint values (...) within the limits of the poses on the curve nearest to pose vectors
        (..., 6)."""
        from scipy.spatial.transform import Rotation

        poses = np.asarray(poses, float)
        if self.is_hinge:
            R0 = Rotation.from_matrix(self.T_world_object[:3, :3])
            turn = Rotation.from_rotvec(poses[..., 3:].reshape(-1, 3)) * R0.inv()
            x, y, z, w = turn.as_quat().T
            # The part of the turn about the axis (swing and twist).
            twist = 2 * np.arctan2(np.stack([x, y, z], -1) @ self.world_axis, w)
            # Of the turns that look alike, the one nearest to the limits; where those leave no gap, a
            # little beyond the first pose is more likely than a whole turn away from it.
            alike = twist.reshape(poses.shape[:-1])[..., None] + 2 * np.pi * np.arange(-2, 3)
            beyond = np.maximum(np.maximum(self.lower - alike, alike - self.upper), 0)
            away = beyond + _NEAR * np.abs(alike)
            value = np.take_along_axis(alike, away.argmin(-1)[..., None], -1)[..., 0]
        else:
            value = (poses[..., :3] - self.T_world_object[:3, 3]) @ self.world_axis
        return np.clip(value, self.lower, self.upper)

    def shown(self, value: float) -> float:
        """A value as task files and reports write it: degrees or metres."""
        return float(np.rad2deg(value)) if self.is_hinge else float(value)

    @property
    def unit(self) -> str:
        """The unit of `shown`."""
        return "deg" if self.is_hinge else "m"
