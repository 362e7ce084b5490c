"""Search coordinates: whitened displacements of the waypoints of held actuators.

The start (the estimated poses, paper section 3.4) is displaced by `sigma * L z`: z is what the
optimizer samples, L correlates the displacements of one actuator along the trajectory. With
correlation 0 every waypoint moves on its own (the paper); with 0.64 most of a displacement is shared
by the whole trajectory, as an error of the estimate mostly is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange

from lucibot.core.geometry import compose_rotvec


@dataclass(frozen=True, kw_only=True)
class Parametrization:
    start: np.ndarray
    """(K, A, 6) pose vectors."""
    free: np.ndarray
    """(K, A) bool: waypoints that are searched; the others stay at the start."""
    sigma_position_m: float
    sigma_rotation_rad: float
    sigma_depth_m: float | None = None
    """First step size along the line of sight, where it differs: a single view knows least there."""
    camera_position_m: np.ndarray | None = None
    """(3,) where the lines of sight start; needed with `sigma_depth_m`."""
    correlation: float
    """Correlation in [0, 1) between the displacements of two waypoints of one actuator."""

    @property
    def dimension(self) -> int:
        return int(self.free.sum()) * 6

    def waypoints(self, z: np.ndarray) -> np.ndarray:
        """Samples (P, D) in units of the first step size to waypoints (P, K, A, 6) float32."""
        P = len(z)
        K, A, _ = self.start.shape
        shift = np.zeros((P, K, A, 6))
        scale = np.array([self.sigma_position_m] * 3 + [self.sigma_rotation_rad] * 3)
        stretch = self._stretch()
        at = 0
        for a in range(A):
            ks = np.flatnonzero(self.free[:, a])
            n = len(ks)
            if n == 0:
                continue
            block = rearrange(np.asarray(z, float)[:, at : at + 6 * n], "p (k c) -> p k c", c=6)
            at += 6 * n
            cov = np.full((n, n), self.correlation) + (1 - self.correlation) * np.eye(n)
            shift[:, ks, a] = np.einsum("kl,pld->pkd", np.linalg.cholesky(cov), block) * scale
            shift[:, ks, a, :3] = np.einsum("kij,pkj->pki", stretch[ks, a], shift[:, ks, a, :3])
        out = np.empty((P, K, A, 6), np.float32)
        out[..., :3] = self.start[..., :3] + shift[..., :3]
        # A world-frame rotation on top of the start, so that it means the same at any orientation.
        start_rot = torch.as_tensor(self.start[..., 3:]).double().expand(P, K, A, 3)
        out[..., 3:] = compose_rotvec(torch.as_tensor(shift[..., 3:]), start_rot).numpy()
        return out

    def _stretch(self) -> np.ndarray:
        """(K, A, 3, 3): stretches a displacement along each waypoint's line of sight."""
        K, A, _ = self.start.shape
        identity = np.broadcast_to(np.eye(3), (K, A, 3, 3))
        if self.sigma_depth_m is None:
            return identity
        ray = self.start[..., :3] - self.camera_position_m
        ray = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
        more = self.sigma_depth_m / self.sigma_position_m - 1
        return identity + more * ray[..., :, None] * ray[..., None, :]
