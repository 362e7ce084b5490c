"""The joint least-squares problem of one object's trajectory: all frames at once.

The unknowns of frame t are the anchor's position, its rotation and the logarithm of its size,
(T, 7). Each frame brings its own 7x7 normal equations (from silhouettes and depth); smoothness ties
each frame to the next two, so the whole is block-pentadiagonal and solved by one banded Cholesky.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solveh_banded
from scipy.spatial.transform import Rotation

from lucibot.vision.jit import compiled

D = 7


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Poses of a mesh's anchor over T frames."""

    position_m: np.ndarray
    """(T, 3) world."""
    rotation: np.ndarray
    """(T, 3, 3)."""
    log_scale: np.ndarray
    """(T,) natural logarithm of the size against the mesh's."""

    def __len__(self) -> int:
        return len(self.position_m)

    def __getitem__(self, index) -> Trajectory:
        return Trajectory(
            position_m=self.position_m[index], rotation=self.rotation[index],
            log_scale=self.log_scale[index],
        )  # fmt: skip

    @property
    def T_world_object(self) -> np.ndarray:
        """(T, 4, 4), the size in the rotation block, as `draw_depth` takes it."""
        T = np.zeros((len(self), 4, 4))
        T[:, :3, :3] = self.rotation * np.exp(self.log_scale)[:, None, None]
        T[:, :3, 3], T[:, 3, 3] = self.position_m, 1
        return T

    @classmethod
    def from_poses(cls, poses: np.ndarray, anchor_m: np.ndarray) -> Trajectory:
        """From object pose vectors (T, 6)."""
        R = Rotation.from_rotvec(poses[:, 3:]).as_matrix()
        return cls(
            position_m=poses[:, :3] + R @ anchor_m, rotation=R, log_scale=np.zeros(len(poses))
        )

    def poses(self, anchor_m: np.ndarray) -> np.ndarray:
        """Object pose vectors (T, 6)."""
        position = self.position_m - self.rotation @ anchor_m
        turn = Rotation.from_matrix(self.rotation, assume_valid=True).as_rotvec()
        return np.concatenate([position, turn], axis=1)

    def moved(self, step: np.ndarray) -> Trajectory:
        """After a step (T, 7) of world translation [m], world rotation [rad] and log size."""
        turn = Rotation.from_rotvec(step[:, 3:6])
        R = (turn * Rotation.from_matrix(self.rotation, assume_valid=True)).as_matrix()
        return Trajectory(
            position_m=self.position_m + step[:, :3], rotation=R,
            log_scale=self.log_scale + step[:, 6],
        )  # fmt: skip

    def with_frames(self, index, other: Trajectory) -> Trajectory:
        """`other`'s values at `index`."""
        position, R, s = self.position_m.copy(), self.rotation.copy(), self.log_scale.copy()
        position[index], R[index], s[index] = other.position_m, other.rotation, other.log_scale
        return replace(self, position_m=position, rotation=R, log_scale=s)


@dataclass(frozen=True, kw_only=True)
class Smoothness:
    """How an object carried by a hand moves; standard deviations per frame, already scaled by the
    frame rate."""

    acceleration_m: float
    acceleration_rad: float
    velocity_m: float
    velocity_rad: float
    scale_step: float
    scale: float


def rotvec_between(Ra: np.ndarray, Rb: np.ndarray) -> np.ndarray:
    """Rotation vectors (T, 3) of Rb Ra^T."""
    between = Rb @ np.swapaxes(Ra, -1, -2)
    # To ask whether these are rotations would take most of the time.
    return Rotation.from_matrix(between, assume_valid=True).as_rotvec()


def solve(
    trajectory: Trajectory,
    H: np.ndarray,
    g: np.ndarray,
    smoothness: Smoothness,
    log_size: np.ndarray | float = 0.0,
    damping: float = 1e-4,
) -> np.ndarray:
    """One Gauss-Newton step (T, 7).

    Args:
        H, g: (T, 7, 7) and (T, 7), each frame's own normal equations H step = g.
        log_size: (T,) about which the logarithm of the size drifts.
    """
    n = len(trajectory)
    blocks = [H.copy(), np.zeros((n, D, D)), np.zeros((n, D, D))]
    rhs = g.copy()
    position, R = trajectory.position_m, trajectory.rotation

    def add(coefficients, residual, columns, weight):
        """Adds |sum_k c_k x_{t+k} + residual|^2 weight(t) for the given columns, for every t."""
        m = len(residual)
        for a, ca in enumerate(coefficients):
            rows = slice(a, a + m)
            rhs[rows, columns] -= ca * residual * weight[:, None]
            for b in range(a, len(coefficients)):
                for c in range(*columns.indices(D)):
                    blocks[b - a][rows, c, c] += ca * coefficients[b] * weight

    def robust(residual, sigma):
        """Cauchy weights: a jerk is unlikely, not impossible."""
        square = np.sum(residual**2, axis=1) / sigma**2
        return 1 / (sigma**2 * (1 + square / 9))

    every = np.ones(max(n - 1, 0))
    if n > 1:
        spin = rotvec_between(R[:-1], R[1:])
    if n > 2:
        bend = position[2:] - 2 * position[1:-1] + position[:-2]
        add((1, -2, 1), bend, slice(0, 3), robust(bend, smoothness.acceleration_m))
        bend = spin[1:] - spin[:-1]
        add((1, -2, 1), bend, slice(3, 6), robust(bend, smoothness.acceleration_rad))
    if n > 1:
        add((-1, 1), np.diff(position, axis=0), slice(0, 3), every / smoothness.velocity_m**2)
        add((-1, 1), spin, slice(3, 6), every / smoothness.velocity_rad**2)
        drift = np.diff(trajectory.log_scale)[:, None]
        add((-1, 1), drift, slice(6, 7), every / smoothness.scale_step**2)
    off = (trajectory.log_scale - log_size)[:, None]
    add((1,), off, slice(6, 7), np.ones(n) / smoothness.scale**2)

    diagonal = np.arange(D)
    blocks[0][:, diagonal, diagonal] *= 1 + damping
    blocks[0][:, diagonal, diagonal] += 1e-9
    return solveh_banded(_banded(blocks, n), rhs.reshape(-1), lower=True).reshape(n, D)


def _banded(blocks: list[np.ndarray], n: int) -> np.ndarray:
    """Lower banded storage of the block matrix with `blocks[k][t]` coupling frames t and t + k."""
    ab = np.zeros((3 * D, n, D))
    for k, block in enumerate(blocks):
        for c in range(D):
            # Entry (row r of frame t + k, column c of frame t).
            first = c if k == 0 else 0
            ab[k * D + first - c : (k + 1) * D - c, : n - k, c] = block[: n - k, c, first:].T
    return ab.reshape(3 * D, n * D)


def normal_equations(
    trajectory: Trajectory,
    camera,
    points: np.ndarray,
    normals: np.ndarray,
    z: np.ndarray,
    offset: np.ndarray,
    weight: np.ndarray,
    sigma_px: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Silhouette terms: H (B, 7, 7), g (B, 7) and robust cost (B,).

    Args:
        points, normals, z, offset, weight: see `lucibot.vision.contour`.
        sigma_px: scale of the Cauchy loss; larger offsets count less and less.
    """
    batch = len(z)
    H, g, cost = np.zeros((batch, D, D)), np.zeros((batch, D)), np.zeros(batch)
    _normal_equations(
        batch, trajectory.position_m, camera.T_world_cam, camera.fx, camera.fy, camera.cx, camera.cy,
        points, normals, z, offset, weight, sigma_px, H, g, cost,
    )  # fmt: skip
    return H, g, cost


@compiled
def _normal_equations(
    first,
    end,
    position,
    T,
    fx,
    fy,
    cx,
    cy,
    points,
    normals,
    z,
    offset,
    weight,
    sigma_px,
    H,
    g,
    cost,
):
    for b in range(first, end):
        J, p, d, arm, grad = np.empty(D), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
        for k in range(z.shape[1]):
            if weight[b, k] == 0:
                continue
            depth = z[b, k]
            p[0] = (points[b, k, 0] - cx) / fx * depth
            p[1] = (points[b, k, 1] - cy) / fy * depth
            p[2] = depth
            # Derivative of the pixel along the normal with respect to the point in the camera
            # frame.
            d[0], d[1] = normals[b, k, 0] * fx / depth, normals[b, k, 1] * fy / depth
            d[2] = -(d[0] * p[0] + d[1] * p[1]) / depth
            for m in range(3):
                arm[m] = T[m, 0] * p[0] + T[m, 1] * p[1] + T[m, 2] * p[2] + T[m, 3]
                arm[m] -= position[b, m]
                grad[m] = T[m, 0] * d[0] + T[m, 1] * d[1] + T[m, 2] * d[2]
            J[0], J[1], J[2] = grad[0], grad[1], grad[2]
            J[3] = arm[1] * grad[2] - arm[2] * grad[1]
            J[4] = arm[2] * grad[0] - arm[0] * grad[2]
            J[5] = arm[0] * grad[1] - arm[1] * grad[0]
            J[6] = arm[0] * grad[0] + arm[1] * grad[1] + arm[2] * grad[2]
            r = offset[b, k] / sigma_px
            w = weight[b, k] / (1 + r * r) / sigma_px**2
            for m in range(D):
                g[b, m] += w * offset[b, k] * J[m]
                for n in range(m + 1):
                    H[b, m, n] += w * J[m] * J[n]
            cost[b] += weight[b, k] * np.log1p(r * r)
        for m in range(D):
            for n in range(m):
                H[b, n, m] = H[b, m, n]
