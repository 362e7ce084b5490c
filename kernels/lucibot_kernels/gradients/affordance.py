"""The affordance term with gradients with respect to poses."""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable

from lucibot_kernels.checks import check
from lucibot_kernels.gradients._checks import double, flat, same
from lucibot_kernels.runtime import kernels


def tip_distance(
    area: torch.Tensor,
    counted: torch.Tensor,
    position: torch.Tensor,
    quaternion: torch.Tensor,
    tips: torch.Tensor,
    eye: torch.Tensor,
    *,
    depth_share: float = 1.0,
    slack_m: float = 0.005,
    blur_m: float = 0.003,
    cap_m: float = 0.05,
) -> torch.Tensor:
    """`lucibot_kernels.tip_distance`, (K, B) [m], with gradients with respect to the poses.

    Arguments as there, float32 or float64, and quaternions need not be normalised. A body whose pose is
    not finite has no gradient.
    """
    dims: dict[str, int] = {}
    same("position", position, ("K", "B", 3), dims=dims)
    same("quaternion", quaternion, ("K", "B", 4), dims=dims, like=position)
    same("area", area, ("M", 3), dims=dims, like=position)
    same("tips", tips, ("K", "F", 3), dims=dims, like=position)
    same("eye", eye, (3,), dims=dims, like=position)
    check("counted", counted, torch.bool, ("K", "M"), dims=dims, device=position.device)
    return _TipDistance.apply(
        position, quaternion, area, counted, tips, eye, (depth_share, slack_m, blur_m, cap_m)
    )


class _TipDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx, position, quaternion, area, counted, tips, eye, lengths):
        K, B, _ = position.shape
        out = torch.full((K, B), torch.nan, dtype=position.dtype, device=position.device)
        slopes = [torch.zeros(x.shape).to(position) for x in (position, quaternion)]
        if out.numel() and len(area) and tips.shape[1]:
            usable = ((position.abs() < 1e6).all(-1) & (quaternion.abs() < 1e6).all(-1)
                      & (quaternion.square().sum(-1) > 1e-12))  # fmt: skip
            seen = torch.isfinite(tips).all(-1)
            kernels("_gradient_kernels", position.device).tip_distance(
                flat(area), counted.view(torch.uint8).view(-1), flat(position), flat(quaternion),
                usable.view(torch.uint8).view(-1), flat(tips.nan_to_num(0.0, 0.0, 0.0)),
                seen.view(torch.uint8).view(-1), flat(eye), B, len(area), tips.shape[1], *lengths,
                out.view(-1), slopes[0].view(-1), slopes[1].view(-1), double(position),
            )  # fmt: skip
        ctx.save_for_backward(*slopes)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        d_position, d_quaternion = (
            torch.where(slope == 0, 0.0, gradient[..., None] * slope) for slope in ctx.saved_tensors
        )
        return d_position, d_quaternion, None, None, None, None, None
