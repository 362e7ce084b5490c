"""Groups of points that hang together, in all environments at once."""

from __future__ import annotations

import math

import torch

from lucibot_kernels import runtime
from lucibot_kernels.checks import batched_points
from lucibot_kernels.runtime import kernels


def linked_groups(
    points: torch.Tensor, reach_m: float, least_share: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Connected components of points that are linked to all others within reach.

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
    memory, *strides = batched_points("points", points, dims=dims, count="N", device=device)
    if not reach_m > 0:
        raise ValueError(f"reach_m: expected a positive distance, got {reach_m}")
    batch, n = dims["B"], dims["N"]
    least = math.ceil(least_share * n)
    if not batch or not n:
        i32 = {"dtype": torch.int32, "device": device}
        return torch.empty(batch, n, **i32), torch.zeros(batch, **i32)
    if not runtime.few_threads(device):
        return _numbered(_roots(memory, strides, batch, n, float(reach_m)), points, least)
    buckets = 1 << (2 * n - 1).bit_length()
    group, count = torch.empty(batch, n, dtype=torch.int32), torch.zeros(batch, dtype=torch.int32)
    start = torch.empty(batch * (buckets + 1), dtype=torch.int32)
    order, parent, size = torch.empty(3, batch * n, dtype=torch.int32)
    kernels("_group_kernels", device).groups(
        memory, *strides, n, float(reach_m), least, buckets, start, order, parent, size,
        group.view(-1), count,
    )  # fmt: skip
    return group, count


def _roots(memory, strides, batch: int, n: int, reach_m: float) -> torch.Tensor:
    """(B, N) i64: the first point of each point's component; all pairs of points are compared."""
    parent = torch.arange(n, dtype=torch.int32, device=memory.device).repeat(batch)
    kernels("_group_kernels", memory.device).roots(memory, *strides, n, reach_m, parent, batch)
    return parent.view(batch, n).long()


def _numbered(
    root: torch.Tensor, points: torch.Tensor, least: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Groups (B, N) i32 and their number (B,) i32, from the first point of each point's component."""
    size = torch.zeros_like(root).scatter_add_(1, root, torch.ones_like(root))
    size = torch.where((size >= least) & torch.isfinite(points).all(2).all(1)[:, None], size, 0)
    # Stable, so that of equal sizes the first point decides.
    rank = size.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    number = torch.where(size > 0, rank, -1)
    return number.gather(1, root).int(), (size > 0).sum(1, dtype=torch.int32)
