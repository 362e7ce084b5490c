"""Rotations as task files write them. NumPy only: reading a task must not load torch."""

from __future__ import annotations

import numpy as np


def euler_xyz_deg_to_matrix(position_m, rotation_deg) -> np.ndarray:
    """(4, 4) from a position [m] and extrinsic xyz Euler angles [deg], as task files write them."""
    T = np.eye(4)
    x, y, z = np.deg2rad(np.asarray(rotation_deg, float))
    cx, sx, cy, sy, cz, sz = np.cos(x), np.sin(x), np.cos(y), np.sin(y), np.cos(z), np.sin(z)
    Rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    Ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    Rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    T[:3, :3] = Rz @ Ry @ Rx
    T[:3, 3] = np.asarray(position_m, float)
    return T


def matrix_to_euler_xyz_deg(T: np.ndarray) -> tuple[list[float], list[float]]:
    """Position [m] and extrinsic xyz Euler angles [deg] of a (4, 4) pose, as task files write them."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_matrix(T[:3, :3]).as_euler("xyz", degrees=True)
    return T[:3, 3].tolist(), turn.tolist()
