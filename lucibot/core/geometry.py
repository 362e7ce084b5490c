"""Rigid poses as 6-vectors, quaternions and matrices.

A pose vector is `(x, y, z, rx, ry, rz)`: position [m] and rotation vector [rad] in the world frame,
the form of the paper's 6-DoF waypoints. Quaternions are `(w, x, y, z)`. All functions are batched
over leading dimensions and work on torch tensors; `*_np` helpers wrap them for NumPy arrays.
"""

from __future__ import annotations

import numpy as np
import roma
import torch
from torch import Tensor


def quat_to_rotvec(quat_wxyz: Tensor) -> Tensor:
    """(..., 4) unit quaternion to (..., 3) rotation vector [rad]."""
    return roma.unitquat_to_rotvec(roma.quat_wxyz_to_xyzw(quat_wxyz))


def rotvec_to_quat(rotvec_rad: Tensor) -> Tensor:
    """(..., 3) rotation vector [rad] to (..., 4) unit quaternion."""
    return roma.quat_xyzw_to_wxyz(roma.rotvec_to_unitquat(rotvec_rad))


def pose_to_matrix(pose: Tensor) -> Tensor:
    """(..., 6) pose vector to (..., 4, 4) matrix."""
    T = torch.zeros(*pose.shape[:-1], 4, 4, dtype=pose.dtype, device=pose.device)
    T[..., :3, :3] = roma.rotvec_to_rotmat(pose[..., 3:])
    T[..., :3, 3] = pose[..., :3]
    T[..., 3, 3] = 1
    return T


def matrix_to_pose(T: Tensor) -> Tensor:
    """(..., 4, 4) matrix to (..., 6) pose vector."""
    return torch.cat([T[..., :3, 3], roma.rotmat_to_rotvec(T[..., :3, :3])], dim=-1)


def compose_rotvec(left_rad: Tensor, right_rad: Tensor) -> Tensor:
    """Rotation vector of the product `exp(left) @ exp(right)`."""
    return roma.rotvec_composition([left_rad, right_rad])


def rotate(quat_wxyz: Tensor, v: Tensor) -> Tensor:
    """Vectors (..., 3) turned by unit quaternions (..., 4); they broadcast."""
    w, xyz = quat_wxyz[..., :1], quat_wxyz[..., 1:].expand_as(v)
    t = 2 * torch.linalg.cross(xyz, v, dim=-1)
    return v + w * t + torch.linalg.cross(xyz, t, dim=-1)


def minimum_jerk(t: Tensor) -> Tensor:
    """The share of a way that is done at shares `t` of its time: at rest and without acceleration at
    both ends."""
    return t**3 * (10 - 15 * t + 6 * t * t)


def interpolate_pose(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Straight line in position, shortest arc in rotation; `t` (...) in [0, 1]; they broadcast."""
    qa = roma.rotvec_to_unitquat(a[..., 3:])
    qb = roma.rotvec_to_unitquat(b[..., 3:])
    delta = roma.unitquat_to_rotvec(roma.quat_product(qb, roma.quat_conjugation(qa)))
    turn = delta * t[..., None]
    rot = compose_rotvec(turn, a[..., 3:].expand_as(turn))
    return torch.cat([a[..., :3] + (b[..., :3] - a[..., :3]) * t[..., None], rot], dim=-1)


def rotation_angle_deg(Ra: Tensor, Rb: Tensor) -> Tensor:
    """Angle between rotation matrices (..., 3, 3) [deg]."""
    return torch.rad2deg(roma.rotmat_geodesic_distance(Ra, Rb))


def matrix_np(pose: np.ndarray) -> np.ndarray:
    return pose_to_matrix(torch.as_tensor(np.asarray(pose, float))).numpy()


def pose_np(T: np.ndarray) -> np.ndarray:
    return matrix_to_pose(torch.as_tensor(np.asarray(T, float))).numpy()
