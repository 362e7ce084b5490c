"""Groups of points that hang together, in all environments at once."""

from __future__ import annotations

import math

import torch

from lucibot_kernels.checks import batched_points, check, nonempty
from lucibot_kernels.runtime import kernels


def linked_groups(
    points: torch.Tensor, reach_m: float, least_share: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Connected components of points that are linked to all others within reach.

    One thread works on an environment, on a GPU too: this is done once a rollout.

    Args:
        points: (B, N, 3) f32 [m], contiguous or `pos.transpose(0, 1)` of Genesis' own (N, B, 3).
        reach_m: the greatest distance of a link.
        least_share: smaller components than this share of N are no groups.

    Returns:
        group (B, N) i32, numbered from 0 by decreasing size and, where sizes are equal, by first
        point, -1 in none; and the number of groups (B,) i32. None where a point is not finite.
    """
    dims: dict[str, int] = {}
    device = points.device if isinstance(points, torch.Tensor) else torch.device("cpu")
    check("points", points, torch.float32, ("B", "N", 3), dims=dims, device=device,
          contiguous=False)  # fmt: skip
    memory, *strides = batched_points("points", points, dims=dims, count="N", device=device)
    if not reach_m > 0:
        raise ValueError(f"reach_m: expected a positive distance, got {reach_m}")
    batch, n = dims["B"], dims["N"]
    buckets = 1 << (2 * max(n, 1) - 1).bit_length()
    i32 = {"dtype": torch.int32, "device": device}
    group, count = torch.empty(batch, n, **i32), torch.zeros(batch, **i32)
    if batch and n:
        start, (order, parent, size) = (
            torch.empty(batch * (buckets + 1), **i32), torch.empty(3, batch * n, **i32)
        )  # fmt: skip
        kernels("_group_kernels", device).groups(
            nonempty(memory), *strides, n, float(reach_m), math.ceil(least_share * n), buckets,
            start, order, parent, size, group.view(-1), count,
        )  # fmt: skip
    return group, count
