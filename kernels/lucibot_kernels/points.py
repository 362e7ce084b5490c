"""World points of posed bodies and of pixels, for all environments at once."""

from __future__ import annotations

import torch

from lucibot_kernels.checks import check, nonempty
from lucibot_kernels.runtime import kernels

_MASK = (torch.bool, torch.uint8)
_CPU_LANES, _GPU_LANES = 1, 256  # that share an image


def posed_points(
    points: torch.Tensor, position: torch.Tensor, quaternion: torch.Tensor
) -> torch.Tensor:
    """Points of one body's frame in the world, (B, N, 3) f32 [m].

    points: (N, 3) f32 [m].
    position, quaternion: (B, 3) f32 [m] and (B, 4) f32 unit quaternions, wxyz.
    """
    dims: dict[str, int] = {}
    device = points.device if isinstance(points, torch.Tensor) else torch.device("cpu")
    check("points", points, torch.float32, ("N", 3), dims=dims, device=device)
    check("position", position, torch.float32, ("B", 3), dims=dims, device=device)
    check("quaternion", quaternion, torch.float32, ("B", 4), dims=dims, device=device)
    out = torch.empty(dims["B"], dims["N"], 3, device=device)
    if out.numel():
        kernels("_point_kernels", device).pose(
            points.view(-1), position.view(-1), quaternion.view(-1), dims["N"], out.view(-1)
        )
    return out


def unproject(
    mask: torch.Tensor, depth: torch.Tensor, rays: torch.Tensor, centre: torch.Tensor, most: int
) -> torch.Tensor:
    """Points of masked depth images, at most `most` of each: (B, most, 3) f32 [m].

    The pixels of a mask count in rows; of n pixels every ceil(n / most)-th gives a point, the first
    one first. NaN pads.

    mask: (B, H, W) bool, or uint8 where non-zero is true.
    depth: (B, H, W) f32, camera z [m].
    rays: (H, W, 3) f32, directions whose camera z is 1 m.
    centre: (3,) f32 [m], where the rays begin.
    """
    if most < 1:
        raise ValueError(f"most: expected at least 1 point, got {most}")
    dims: dict[str, int] = {}
    device = mask.device if isinstance(mask, torch.Tensor) else torch.device("cpu")
    check("mask", mask, _MASK, ("B", "H", "W"), dims=dims, device=device)
    check("depth", depth, torch.float32, ("B", "H", "W"), dims=dims, device=device)
    check("rays", rays, torch.float32, ("H", "W", 3), dims=dims, device=device)
    check("centre", centre, torch.float32, (3,), dims=dims, device=device)
    batch, pixels = dims["B"], dims["H"] * dims["W"]
    out = torch.full((batch, most, 3), torch.nan, device=device)
    if batch and pixels:
        k = kernels("_point_kernels", device)
        lanes = _CPU_LANES if device.type == "cpu" else _GPU_LANES
        flat = mask.view(torch.uint8).view(-1)
        found = torch.empty(batch, lanes, dtype=torch.int32, device=device)
        k.count(flat, pixels, found.view(-1), lanes)
        upto = found.cumsum(1, dtype=torch.int32)
        before, total = (upto - found).view(-1), upto[:, -1].contiguous()
        k.unproject(
            flat, nonempty(depth.view(-1)), rays.view(-1), centre, pixels, before, total,
            most, lanes, out.view(-1),
        )  # fmt: skip
    return out
