"""Chamfer and contact distances with gradients with respect to points and poses."""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable

from lucibot_kernels import runtime
from lucibot_kernels.clouds import Chamfer
from lucibot_kernels.gradients._checks import TOGETHER, double, flat, same
from lucibot_kernels.runtime import kernels

_FAR = 1e18
_APART = 1e19
Pose = tuple[torch.Tensor, torch.Tensor]


def chamfer(a: torch.Tensor, b: torch.Tensor) -> Chamfer:
    """`lucibot_kernels.chamfer` with gradients with respect to both clouds.

    a: (B, N, 3) float32 or float64 [m]; points that are not finite do not exist.
    b: (B, M, 3), or one cloud (M, 3) that all share.

    A point pulls on its nearest point alone, the first of equals, and two that meet do not pull. What
    is infinite or of clouds without points has no gradient.
    """
    dims: dict[str, int] = {}
    same("a", a, ("B", "N", 3), dims=dims)
    if isinstance(b, torch.Tensor) and b.ndim == 2:
        same("b", b, ("M", 3), dims=dims, like=a)
        b = b.expand(dims["B"], *b.shape)
    same("b", b, ("B", "M", 3), dims=dims, like=a)
    return Chamfer(*_Chamfer.apply(a, b))


def contact_distance(
    a: torch.Tensor, b: torch.Tensor, pose_a: Pose | None = None, pose_b: Pose | None = None
) -> torch.Tensor:
    """The smallest distance between a point of a and a point of b, (B,) [m], with gradients with
    respect to points and poses.

    a, b: (B, ., 3) float32 or float64 [m, world]; with a pose (., 3) of a body's frame. Points that
        are not finite do not exist.
    pose_a, pose_b: position (B, 3) [m, world] and quaternion (B, 4), wxyz, which need not be
        normalised.

    Infinite, without a gradient, where either cloud is empty. The nearest two points alone are pulled.
    """
    placed = []
    for name, points, at in (("a", a, pose_a), ("b", b, pose_b)):
        if at is not None:
            dims: dict[str, int] = {}
            same(name, points, ("N", 3), dims=dims)
            same(f"pose_{name}[0]", at[0], ("B", 3), dims=dims, like=points)
            same(f"pose_{name}[1]", at[1], ("B", 4), dims=dims, like=points)
            points = posed(points, at[0], at[1])
        placed.append(points)
    dims = {}
    same("a", placed[0], ("B", "N", 3), dims=dims)
    same("b", placed[1], ("B", "M", 3), dims=dims, like=placed[0])
    return _Contact.apply(*placed)


def posed(points: torch.Tensor, position: torch.Tensor, quaternion: torch.Tensor) -> torch.Tensor:
    """Points (N, 3) of a body's frame in the world, (B, N, 3), with gradients with respect to all.

    position: (B, 3) [m]; quaternion: (B, 4), wxyz, which need not be normalised.
    """
    body = torch.zeros(len(points), dtype=torch.int32, device=points.device)
    return _Posed.apply(points, body, position[:, None], quaternion[:, None])


class _Posed(torch.autograd.Function):
    """Points (N, 3) of bodies' frames with poses (B, Nb, 3) and (B, Nb, 4) to (B, N, 3)."""

    @staticmethod
    def forward(ctx, points, body, position, quaternion):
        ctx.save_for_backward(points, body, position, quaternion)
        batch, bodies = position.shape[:2]
        out = points.new_empty(batch, len(points), 3)
        if out.numel():
            _kernels(points).pose(
                flat(points), body, len(points), flat(position), flat(quaternion), bodies,
                out.view(-1), batch,
            )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        points, body, position, quaternion = ctx.saved_tensors
        batch, bodies = position.shape[:2]
        d_position = torch.zeros_like(position, memory_format=torch.contiguous_format)
        d_quaternion = torch.zeros_like(quaternion, memory_format=torch.contiguous_format)
        if gradient.numel():
            _kernels(points).pose_backward(
                flat(points), body, len(points), flat(position), flat(quaternion), bodies,
                flat(gradient), d_position.view(-1), d_quaternion.view(-1), batch, double(points),
            )  # fmt: skip
        d_points = None
        if ctx.needs_input_grad[0]:
            R = _Posed.apply(
                torch.eye(3).to(points).repeat(bodies, 1),
                torch.arange(bodies, dtype=torch.int32, device=points.device).repeat_interleave(3),
                torch.zeros_like(position), quaternion,
            ).view(batch, bodies, 3, 3)  # fmt: skip
            # Row i of R[b, n] is where the i-th axis of a body goes.
            d_points = torch.einsum("bnij,bnj->ni", R[:, body.long()], gradient)
        return d_points, None, d_position, d_quaternion


class _Chamfer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        placed = [_placed(x) for x in (a, b)]
        exist = [x[:, 0] < _APART for x in placed]
        used = [e.sum(1) for e in exist]
        both = (used[0] > 0) & (used[1] > 0)
        empty = (used[0] == 0) & (used[1] == 0)
        means, indices, weights = [], [], []
        for i in (0, 1):
            d2, index = _nearest(placed[i], placed[1 - i])
            share = (exist[i] & both[:, None]).to(a.dtype) / used[i].clamp(min=1)[:, None]
            mean = (torch.where(share > 0, d2.sqrt(), 0) * share).sum(1)
            means.append(torch.where(both, mean, torch.where(empty, 0.0, torch.inf).to(a)))
            indices.append(index)
            weights.append(share)
        ctx.save_for_backward(a, b, *indices, *weights)
        return tuple(means)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_ab, d_ba):
        a, b, near_a, near_b, share_a, share_b = ctx.saved_tensors
        d_a, d_b = (torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (a, b))
        _pull(a, b, near_a, d_ab[:, None] * share_a, d_a, d_b)
        _pull(b, a, near_b, d_ba[:, None] * share_b, d_b, d_a)
        return d_a, d_b


class _Contact(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        batch = len(a)
        out = torch.full((batch,), torch.inf, dtype=a.dtype, device=a.device)
        ctx.found = bool(batch and a.shape[1] and b.shape[1])
        if ctx.found:
            pa, pb = _placed(a), _placed(b)
            d2, index = _nearest(pa, pb)
            exists = (pa[:, 0] < _APART) & ((pb[:, 0] < _APART).any(1))[:, None]
            least, first = torch.where(exists, d2, torch.inf).min(1)
            weight = torch.zeros_like(d2)
            weight[torch.arange(batch), first] = torch.isfinite(least).to(a.dtype)
            ctx.save_for_backward(a, b, index, weight)
            out = least.sqrt()
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        if not ctx.found:
            return None, None
        a, b, index, weight = ctx.saved_tensors
        d_a, d_b = (torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (a, b))
        _pull(a, b, index, gradient[:, None] * weight, d_a, d_b)
        return d_a, d_b


def _kernels(x: torch.Tensor):
    return kernels("_gradient_kernels", x.device)


def _placed(points: torch.Tensor) -> torch.Tensor:
    """Coordinates (B, 3, N), far away where a point does not exist."""
    exists = (points.abs() < _FAR).all(-1, keepdim=True)  # False for NaN as well
    return torch.where(exists, points, _APART).transpose(1, 2).contiguous()


def _nearest(query: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared distances (B, N) and indices (B, N) int32 of the nearest of `target`."""
    batch, _, queries = query.shape
    d2 = torch.full((batch, queries), 3e38, dtype=query.dtype, device=query.device)
    index = torch.zeros(batch, queries, dtype=torch.int32, device=query.device)
    if d2.numel() and target.shape[2]:
        _kernels(query).nearest_index(
            query.view(-1), queries, target.view(-1), target.shape[2], batch, d2.view(-1),
            index.view(-1), TOGETHER, double(query),
        )  # fmt: skip
    return d2, index


def _pull(point, other, index, weight, d_point, d_other) -> None:
    """Adds the gradients of weighed distances of points to their nearest others."""
    batch, points = weight.shape
    if not (weight.numel() and other.shape[1]):
        return
    serial = runtime.few_threads(point.device)
    weight = torch.nan_to_num(weight, 0.0, 0.0, 0.0)
    _kernels(point).pull_to_nearest(
        flat(point), points, flat(other), other.shape[1], flat(index), flat(weight), batch,
        d_point.view(-1), d_other.view(-1), 1 if serial else points, serial, double(point),
    )  # fmt: skip
