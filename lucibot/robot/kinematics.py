"""Where an arm's joints bring its hand, and which joint angles bring it somewhere: batched, in torch.

All of a batch are solved at once, by damped least squares with a damping of each one's own
(Levenberg and Marquardt). Frames are (..., 4, 4) of the TCP in the base's frame; float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lucibot.robot.arm import Chain

TURN_M = 0.1
"""A turn of one radian counts like so many metres."""
CENTRING = 0.02
"""How strongly what is free to move keeps to the middle of the joints' ranges, a share of the way a step."""
CENTRED_TO_M = 0.05
"""Nearer to the target than this, the less the nearer."""
LONGEST_STEP_RAD = 0.4


@dataclass(frozen=True)
class Solved:
    angles: Tensor
    """(N, J) [rad], within the limits."""
    off_m: Tensor
    """(N,) how far the TCP is from where it was to be."""
    off_rad: Tensor
    """(N,) likewise turned."""


class Kinematics:
    """Of one chain of J hinges."""

    def __init__(self, chain: Chain, device: str = "cpu"):
        def f64(a) -> Tensor:
            return torch.as_tensor(a, dtype=torch.float64, device=device)

        self.lower, self.upper = f64(chain.lower), f64(chain.upper)
        self.joints = len(chain.axes)
        self._fixed, self._axes = f64(chain.fixed), f64(chain.axes)
        x, y, z = self._axes.unbind(-1)
        zero = torch.zeros_like(x)
        skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)
        # A turn about an axis by an angle is 1 + sin(a) K + (1 - cos(a)) K K.
        self._skew, self._skew2 = skew, skew @ skew

    def tcp(self, angles: Tensor) -> Tensor:
        """(N, J) angles to (N, 4, 4) frames."""
        return self._walk(angles)[0]

    def jacobian(self, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (N, 4, 4) and their Jacobian (N, 6, J): velocity of the TCP [m/rad] over its angular
        velocity [rad/rad], both along the base's axes."""
        T, axes, origins = self._walk(angles)
        linear = torch.linalg.cross(axes, T[:, None, :3, 3] - origins)
        return T, torch.cat([linear, axes], -1).mT

    def _walk(self, angles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s, c = torch.sin(angles)[..., None, None], torch.cos(angles)[..., None, None]
        one = torch.eye(3, dtype=angles.dtype, device=angles.device)
        turns = one + s * self._skew + (1 - c) * self._skew2
        R = self._fixed[0, :3, :3].expand(len(angles), 3, 3)
        p = self._fixed[0, :3, 3].expand(len(angles), 3)
        axes, origins = [], []
        for j in range(self.joints):
            axes.append((R @ self._axes[j, :, None])[..., 0])
            origins.append(p)
            R = R @ turns[:, j]
            p = p + (R @ self._fixed[j + 1, :3, 3, None])[..., 0]
            R = R @ self._fixed[j + 1, :3, :3]
        T = torch.zeros(len(angles), 4, 4, dtype=angles.dtype, device=angles.device)
        T[:, :3, :3], T[:, :3, 3], T[:, 3, 3] = R, p, 1
        return T, torch.stack(axes, 1), torch.stack(origins, 1)

    def random(self, count: int, seed: int = 0) -> Tensor:
        """(count, J) angles, evenly within the limits."""
        g = torch.Generator().manual_seed(seed)
        share = torch.rand((count, self.joints), dtype=torch.float64, generator=g)
        return self.lower + share.to(self.lower.device) * (self.upper - self.lower)

    def solve(self, start: Tensor, target: Tensor, *, iterations: int = 60) -> Solved:
        """Angles that bring the TCP to `target` (N, 4, 4), sought from `start` (N, J)."""
        q, damping = start.clone(), torch.full((len(start),), 1e-2, dtype=start.dtype)
        damping = damping.to(start.device)
        T, J = self.jacobian(q)
        e = self._error(T, target)
        cost = e.square().sum(-1)
        weights = torch.tensor([1.0] * 3 + [TURN_M] * 3, dtype=q.dtype, device=q.device)
        one = torch.eye(6, dtype=q.dtype, device=q.device)
        middle = (self.lower + self.upper) / 2
        for _ in range(iterations):
            Jw = J * weights[:, None]
            A = Jw @ Jw.mT + damping[:, None, None] ** 2 * one
            # Towards the target, and with what is left towards the middle, less and less: the way along
            # itself is straight only for a small step.
            pulled = CENTRING * (cost.sqrt()[:, None] / CENTRED_TO_M).clamp(max=1) * (middle - q)
            y = torch.linalg.solve(A, torch.stack([e, (Jw @ pulled[..., None])[..., 0]], -1))
            back = (Jw.mT @ y).unbind(-1)
            step = back[0] + pulled - back[1]
            longest = step.abs().amax(-1, keepdim=True).clamp(min=1e-12)
            step = step * (LONGEST_STEP_RAD / longest).clamp(max=1.0)
            tried = torch.minimum(torch.maximum(q + step, self.lower), self.upper)
            T_new, J_new = self.jacobian(tried)
            e_new = self._error(T_new, target)
            cost_new = e_new.square().sum(-1)
            # What is there already may move along itself by what rounds to nothing.
            better = cost_new < torch.clamp(cost, min=1e-14)
            q = torch.where(better[:, None], tried, q)
            J = torch.where(better[:, None, None], J_new, J)
            e = torch.where(better[:, None], e_new, e)
            cost = torch.where(better, cost_new, cost)
            damping = torch.where(better, damping * 0.4, damping * 4).clamp(1e-5, 1.0)
        off = e / weights
        return Solved(q, off[:, :3].norm(dim=-1), off[:, 3:].norm(dim=-1))

    @staticmethod
    def _error(T: Tensor, target: Tensor) -> Tensor:
        """(N, 6) what is missing: metres, and radians as metres."""
        D = target[:, :3, :3] @ T[:, :3, :3].mT
        # Twice the axis by the sine of the angle; near half a turn, where that vanishes, any axis will do.
        twist = torch.stack([
            D[:, 2, 1] - D[:, 1, 2], D[:, 0, 2] - D[:, 2, 0], D[:, 1, 0] - D[:, 0, 1],
        ], -1)  # fmt: skip
        sine, cosine = twist.norm(dim=-1), D.diagonal(dim1=-2, dim2=-1).sum(-1) - 1
        angle = torch.atan2(sine, cosine)
        turn = twist * (angle / sine.clamp(min=1e-9)).where(sine > 1e-9, 0.5)[:, None]
        return torch.cat([target[:, :3, 3] - T[:, :3, 3], TURN_M * turn], -1)


def cheapest(angles: Tensor, fine: Tensor, *, longest_rad: float) -> Tensor | None:
    """The cheapest way through layers of answers, by dynamic programming.

    Args:
        angles: (T, C, J), C answers at each of T stations.
        fine: (T, C) bool, which of them may be used.
        longest_rad: what a joint may move from one station to the next.

    Returns:
        (T,) the answer taken at each station: with the least sum of squared changes; None where no way
        leads through.
    """
    infinite = torch.inf
    cost = torch.where(fine[0], 0.0, infinite).to(angles.dtype)
    came = []
    for t in range(1, len(angles)):
        change = angles[t][None] - angles[t - 1][:, None]
        step = change.square().sum(-1)
        step = torch.where(change.abs().amax(-1) <= longest_rad, step, infinite)
        total = cost[:, None] + step
        cost, best = total.min(0)
        cost = torch.where(fine[t], cost, infinite)
        came.append(best)
    if not torch.isfinite(cost).any():
        return None
    way = [int(cost.argmin())]
    for best in reversed(came):
        way.append(int(best[way[-1]]))
    return torch.tensor(way[::-1])
