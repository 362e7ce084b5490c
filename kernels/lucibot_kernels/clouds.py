"""Distances between point clouds: nearest neighbours, symmetric Chamfer, smallest distance.

Exact: a uniform grid only decides which points need not be looked at. Points with a coordinate that
is not finite, or beyond 1e18 m, do not exist: NaN is padding, and a diverged particle is ignored.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from lucibot_kernels.checks import batched_points, check, nonempty
from lucibot_kernels.runtime import kernels

_CELLS_PER_POINT = 2
_FAR2 = 3e38


class Chamfer(NamedTuple):
    """Mean distances between two clouds, each (B,) f32 [m]."""

    a_to_b: torch.Tensor
    """Mean over the points of a of the distance to the nearest point of b (not squared)."""
    b_to_a: torch.Tensor
    """Mean over the points of b of the distance to the nearest point of a."""

    @property
    def sum(self) -> torch.Tensor:
        """a_to_b + b_to_a, (B,) [m]."""
        return self.a_to_b + self.b_to_a

    @property
    def mean(self) -> torch.Tensor:
        """Half the sum, (B,) [m]."""
        return 0.5 * self.sum


class _Grids(NamedTuple):
    """Clouds sorted by cell; see `_cloud_kernels`."""

    frame: torch.Tensor
    size: torch.Tensor
    start: torch.Tensor
    sorted: torch.Tensor
    order: torch.Tensor
    points: int
    cells: int
    clouds: int

    @property
    def used(self) -> torch.Tensor:
        """(clouds,) how many points exist."""
        return self.size.view(-1, 4)[:, 3]


def chamfer(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    a_length: torch.Tensor | None = None,
    b_length: torch.Tensor | None = None,
) -> Chamfer:
    """Symmetric Chamfer distance of B pairs of clouds.

    a: (B, N, 3) f32 [m], contiguous or `pos.transpose(0, 1)` of Genesis' own (N, B, 3).
    b: (B, M, 3), or one cloud (M, 3) that all share.
    a_length, b_length: (B,) i32, or (1,) for a shared b: only the first so many points exist.

    Two clouds without points are 0 apart; one without points is infinitely far from any other.
    """
    ga, gb, batch = _both(a, b, a_length, b_length)
    return Chamfer(_mean(ga, gb, batch), _mean(gb, ga, batch))


def nearest_distance(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    a_length: torch.Tensor | None = None,
    b_length: torch.Tensor | None = None,
) -> torch.Tensor:
    """Distance from every point of a to the nearest point of b, (B, N) f32 [m].

    Arguments as in `chamfer`. NaN for points of a that do not exist; infinite where b is empty.
    """
    ga, gb, batch = _both(a, b, a_length, b_length)
    distance = _nearest(ga, gb, batch)
    nowhere = (gb.used[: gb.clouds] == 0)[:, None]
    exists = torch.isfinite(a).all(dim=-1) & (a.abs() < 1e18).all(dim=-1)
    if a_length is not None:
        exists &= torch.arange(ga.points, device=a.device) < a_length[:, None]
    return torch.where(nowhere & exists, torch.inf, distance)


def min_distance(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    a_length: torch.Tensor | None = None,
    b_length: torch.Tensor | None = None,
    within_m: float | None = None,
) -> torch.Tensor:
    """The smallest distance between a point of a and a point of b, (B,) f32 [m].

    Arguments as in `chamfer`. Infinite where either cloud is empty.
    within_m: a distance above this may be given as a larger one or as infinite, which spares
        looking at what lies out of reach.
    """
    ga, gb, batch = _both(a, b, a_length, b_length, within_m)
    least2 = torch.full((max(batch, 1),), _FAR2, dtype=torch.float32, device=a.device)
    if batch:
        kernels("_cloud_kernels", a.device).least(
            ga.sorted, ga.size, ga.points, ga.clouds,
            gb.frame, gb.size, gb.start, gb.sorted, gb.points, gb.cells, gb.clouds,
            least2, batch, _groups(ga),
        )  # fmt: skip
    least2 = least2[:batch]
    return torch.where(least2 < _FAR2, least2.sqrt(), torch.inf)


def _both(a, b, a_length, b_length, within_m=None) -> tuple[_Grids, _Grids, int]:
    """The grids of two checked arguments, and the batch size; with `within_m` of those points only
    that this reach of the other cloud's box holds."""
    dims: dict[str, int] = {}
    device = a.device if isinstance(a, torch.Tensor) else torch.device("cpu")
    a_points = batched_points("a", a, dims=dims, count="N", device=device)
    shared = isinstance(b, torch.Tensor) and b.ndim == 2
    b_dims = {"B": 1} if shared else dims
    b_points = batched_points("b", b[None] if shared else b, dims=b_dims, count="M", device=device)
    clouds_a = _Clouds("a_length", *a_points, dims["B"], dims["N"], a_length)
    clouds_b = _Clouds("b_length", *b_points, b_dims["B"], b_dims["M"], b_length)
    if within_m is None or not dims["B"]:
        return clouds_a.grids(), clouds_b.grids(), dims["B"]
    boxes = clouds_a.boxes(), clouds_b.boxes()
    low, high = torch.maximum(*(x[:, :3] for x in boxes)), torch.minimum(*(x[:, 3:] for x in boxes))
    # Rounding must not exclude what is just within reach.
    reach = 1.00001 * within_m + 1e-6 * torch.maximum(low.abs(), high.abs())
    both = torch.cat([low - reach, high + reach], dim=1)
    return clouds_a.grids(both), clouds_b.grids(None if shared else both), dims["B"]


class _Clouds:
    """Checked points (clouds, points, 3) in `memory` at two strides."""

    def __init__(
        self, name: str, memory: torch.Tensor, stride_cloud: int, stride_point: int,
        clouds: int, points: int, length: torch.Tensor | None,
    ):  # fmt: skip
        device = memory.device
        if length is None:
            length = torch.full((clouds,), points, dtype=torch.int32, device=device)
        check(name, length, torch.int32, ("B",), dims={"B": clouds}, device=device)
        if clouds and not (0 <= int(length.min()) and int(length.max()) <= points):
            raise ValueError(
                f"{name}: expected 0..{points} points, got {int(length.min())}..{int(length.max())}"
            )
        self._layout = nonempty(memory), stride_cloud, stride_point, length
        self._clouds, self._points, self._device = clouds, points, device

    def boxes(self) -> torch.Tensor:
        """(clouds, 6) least and greatest corner [m]; huge and -huge where there is no point."""
        box = torch.empty(self._clouds, 6, device=self._device)
        kernels("_cloud_kernels", self._device).bounds(*self._layout, box.view(-1))
        return box

    def grids(self, box: torch.Tensor | None = None) -> _Grids:
        """All points, or those within `box`, sorted by cell."""
        cells = max(8, _CELLS_PER_POINT * self._points)
        on = {"device": self._device}
        # A kernel cannot be given an array without elements, hence the ones.
        some, all_points = max(self._clouds, 1), max(self._clouds * self._points, 1)
        grids = _Grids(
            frame=torch.empty(some * 7, **on),
            size=torch.zeros(some * 4, dtype=torch.int32, **on),
            start=torch.empty(some * (cells + 1), dtype=torch.int32, **on),
            sorted=torch.empty(all_points * 3, **on),
            order=torch.empty(all_points, dtype=torch.int32, **on),
            points=self._points,
            cells=cells,
            clouds=self._clouds,
        )
        if self._clouds:
            boxes = grids.frame if box is None else box.view(-1)
            kernels("_cloud_kernels", self._device).build_grids(
                *self._layout, boxes, self._points, cells, *grids[:5], box is not None
            )
        return grids


def _groups(queries: _Grids) -> int:
    """Threads a cloud: on the CPU one, so that each query starts from the one before."""
    return 1 if queries.sorted.device.type == "cpu" else max(queries.points, 1)


def _nearest(a: _Grids, b: _Grids, batch: int, missing: float = torch.nan) -> torch.Tensor:
    """(batch, N) distances [m]; `missing` for points that do not exist or have no neighbour."""
    squared = torch.full((batch, a.points), missing, dtype=torch.float32, device=a.sorted.device)
    if squared.numel():
        kernels("_cloud_kernels", squared.device).nearest(
            a.sorted, a.order, a.size, a.points, a.clouds,
            b.frame, b.size, b.start, b.sorted, b.points, b.cells, b.clouds,
            squared.view(-1), batch, _groups(a),
        )  # fmt: skip
    # Torch's root is correctly rounded, the kernels' need not be under fast_math.
    return squared.sqrt()


def _mean(a: _Grids, b: _Grids, batch: int) -> torch.Tensor:
    """Mean distance (batch,) [m] from the points of a to those of b."""
    total = _nearest(a, b, batch, missing=0.0).sum(dim=1, dtype=torch.float64)
    na, nb = a.used[: a.clouds], b.used[: b.clouds]
    mean = (total / na.clamp(min=1)).float()
    mean = torch.where((na > 0) & (nb > 0), mean, torch.inf)
    return torch.where((na == 0) & (nb == 0), 0.0, mean)
