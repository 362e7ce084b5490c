"""Distances between point clouds: nearest neighbours, symmetric Chamfer, smallest distance.

Exact: a uniform grid only decides which points need not be looked at. A CPU compares small clouds
point by point instead, many pairs in one instruction, and a GPU all of them. Points with a coordinate
that is not finite, or beyond 1e18 m, do not exist: NaN is padding, and a diverged particle is ignored.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from lucibot_kernels import runtime
from lucibot_kernels.checks import batched_points, check, nonempty
from lucibot_kernels.runtime import kernels

_CELLS_PER_POINT = 2
_FAR2 = 3e38
_APART = 1e19
_FEW_PAIRS = 2048 * 2048
"""Up to so many a CPU takes less time for all of them than for grids; measured."""
_GPU_TOGETHER = 4
"""Queries of a GPU's thread, which share a look through a cloud."""


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
    """Clouds sorted by cell; see `_cloud_grid_kernels`."""

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
        return self.size.view(-1, 4)[: self.clouds, 3]


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
    ca, cb, batch = _checked(a, b, a_length, b_length)
    a, b = _prepared(ca, cb)
    squared = _nearest2(a, b, batch), _nearest2(b, a, batch)
    used = a.used, b.used
    return Chamfer(_mean(squared[0], *used), _mean(squared[1], *used[::-1]))


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
    ca, cb, batch = _checked(a, b, a_length, b_length)
    queries, targets = _prepared(ca, cb)
    distance = _nearest2(queries, targets, batch, torch.nan).sqrt()
    nowhere = (targets.used == 0)[:, None]
    exists = torch.isfinite(a).all(dim=-1) & (a.abs() < 1e18).all(dim=-1)
    if a_length is not None:
        exists &= torch.arange(ca.points, device=a.device) < a_length[:, None]
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
    ca, cb, batch = _checked(a, b, a_length, b_length)
    if not runtime.few_threads(a.device):
        some = torch.full((batch, 1), _FAR2, device=a.device)
        each = _nearest2(ca.placed(), cb.placed(), batch, _FAR2)
        return _root(torch.cat([some, each], 1).amin(1))
    if within_m is None or not batch:
        ga, gb = ca.grids(), cb.grids()
    else:
        ga, gb = _within(ca, cb, within_m)
    least2 = torch.full((max(batch, 1),), _FAR2, dtype=torch.float32, device=a.device)
    if batch:
        kernels("_cloud_grid_kernels", a.device).least(
            ga.sorted, ga.size, ga.points, ga.clouds,
            gb.frame, gb.size, gb.start, gb.sorted, gb.points, gb.cells, gb.clouds,
            least2, batch,
        )  # fmt: skip
    return _root(least2[:batch])


def _root(squared: torch.Tensor) -> torch.Tensor:
    return torch.where(squared < _FAR2, squared.sqrt(), torch.inf)


def _checked(a, b, a_length, b_length) -> tuple[_Clouds, _Clouds, int]:
    """Two checked arguments, and the batch size."""
    dims: dict[str, int] = {}
    device = a.device if isinstance(a, torch.Tensor) else torch.device("cpu")
    a_points = batched_points("a", a, dims=dims, count="N", device=device)
    shared = isinstance(b, torch.Tensor) and b.ndim == 2
    b_dims = {"B": 1} if shared else dims
    b_points = batched_points("b", b[None] if shared else b, dims=b_dims, count="M", device=device)
    clouds_a = _Clouds("a_length", *a_points, dims["B"], dims["N"], a_length)
    clouds_b = _Clouds("b_length", *b_points, b_dims["B"], b_dims["M"], b_length)
    return clouds_a, clouds_b, dims["B"]


def _within(a: _Clouds, b: _Clouds, within_m: float) -> tuple[_Grids, _Grids]:
    """The grids of those points only that this reach of the other cloud's box holds."""
    boxes = a.boxes(), b.boxes()
    low, high = torch.maximum(*(x[:, :3] for x in boxes)), torch.minimum(*(x[:, 3:] for x in boxes))
    # Rounding must not exclude what is just within reach.
    reach = 1.00001 * within_m + 1e-6 * torch.maximum(low.abs(), high.abs())
    both = torch.cat([low - reach, high + reach], dim=1)
    shared = b.clouds < a.clouds
    return a.grids(both), b.grids(None if shared else both)


def _prepared(a: _Clouds, b: _Clouds) -> tuple[_Cloudlike, _Cloudlike]:
    """Both as their device compares them fastest."""
    if not runtime.few_threads(a.device):
        return a.placed(), b.placed()
    if a.points * b.points <= _FEW_PAIRS:
        return a.packed(), b.packed()
    return a.grids(), b.grids()


class _Packed(NamedTuple):
    """The usable points of clouds, one after another; see `_cloud_pair_kernels.pack`."""

    coordinates: torch.Tensor
    order: torch.Tensor
    used: torch.Tensor
    points: int


class _Placed(NamedTuple):
    """All points of clouds, those that are not usable far away; see `_cloud_pair_kernels.place`."""

    coordinates: torch.Tensor
    used: torch.Tensor
    points: int


_Cloudlike = _Grids | _Packed | _Placed


class _Clouds:
    """Checked points (clouds, points, 3) in `memory` at two strides."""

    def __init__(
        self, name: str, memory: torch.Tensor, stride_cloud: int, stride_point: int,
        clouds: int, points: int, length: torch.Tensor | None,
    ):  # fmt: skip
        device = memory.device
        if length is None:
            length = torch.full((clouds,), points, dtype=torch.int32, device=device)
        else:
            check(name, length, torch.int32, ("B",), dims={"B": clouds}, device=device)
            if clouds and not (0 <= int(length.min()) and int(length.max()) <= points):
                raise ValueError(
                    f"{name}: expected 0..{points} points, "
                    f"got {int(length.min())}..{int(length.max())}"
                )
        self._layout = nonempty(memory), stride_cloud, stride_point, length
        self.clouds, self.points, self.device = clouds, points, device

    def boxes(self) -> torch.Tensor:
        """(clouds, 6) least and greatest corner [m]; huge and -huge where there is no point."""
        box = torch.empty(self.clouds, 6, device=self.device)
        kernels("_cloud_grid_kernels", self.device).bounds(*self._layout, box.view(-1))
        return box

    def packed(self) -> _Packed:
        coordinates = torch.empty(max(self.clouds * 3 * self.points, 1), device=self.device)
        order, used = (
            torch.zeros(n, dtype=torch.int32, device=self.device)
            for n in (max(self.clouds * self.points, 1), self.clouds)
        )
        if self.clouds:
            kernels("_cloud_pair_kernels", self.device).pack(
                *self._layout, self.points, coordinates, order, used
            )
        return _Packed(coordinates, order, used, self.points)

    def placed(self) -> _Placed:
        coordinates = torch.empty(self.clouds, 3, self.points, device=self.device)
        if coordinates.numel():
            kernels("_cloud_pair_kernels", self.device).place(
                *self._layout, self.points, coordinates.view(-1)
            )
        used = (coordinates[:, 0] < _APART).sum(1, dtype=torch.int32)
        return _Placed(nonempty(coordinates.view(-1)), used, self.points)

    def grids(self, box: torch.Tensor | None = None) -> _Grids:
        """All points, or those within `box`, sorted by cell."""
        cells = max(8, _CELLS_PER_POINT * self.points)
        on = {"device": self.device}
        # A kernel cannot be given an array without elements, hence the ones.
        some, all_points = max(self.clouds, 1), max(self.clouds * self.points, 1)
        grids = _Grids(
            frame=torch.empty(some * 7, **on),
            size=torch.zeros(some * 4, dtype=torch.int32, **on),
            start=torch.empty(some * (cells + 1), dtype=torch.int32, **on),
            sorted=torch.empty(all_points * 3, **on),
            order=torch.empty(all_points, dtype=torch.int32, **on),
            points=self.points,
            cells=cells,
            clouds=self.clouds,
        )
        if self.clouds:
            boxes = grids.frame if box is None else box.view(-1)
            kernels("_cloud_grid_kernels", self.device).build_grids(
                *self._layout, boxes, self.points, cells, *grids[:5], box is not None
            )
        return grids


def _nearest2(a: _Cloudlike, b: _Cloudlike, batch: int, missing: float = 0.0) -> torch.Tensor:
    """(batch, N) squared distances [m^2]; `missing` for points that do not exist or have no
    neighbour."""
    squared = torch.full((batch, a.points), missing, dtype=torch.float32, device=a.used.device)
    if not squared.numel() or not b.points:
        return squared
    match a, b:
        case _Placed(), _Placed():
            kernels("_cloud_pair_kernels", squared.device).nearest_of_all_parallel(
                a.coordinates, a.points, len(a.used), b.coordinates, b.points, len(b.used),
                squared.view(-1), batch, _GPU_TOGETHER,
            )  # fmt: skip
        case _Packed(), _Packed():
            kernels("_cloud_pair_kernels", squared.device).nearest_of_all(
                a.coordinates, a.order, a.used, a.points, b.coordinates, b.used, b.points,
                squared.view(-1), batch,
            )  # fmt: skip
        case _Grids(), _Grids():
            kernels("_cloud_grid_kernels", squared.device).nearest(
                a.sorted, a.order, a.size, a.points, a.clouds,
                b.frame, b.size, b.start, b.sorted, b.points, b.cells, b.clouds,
                squared.view(-1), batch,
            )  # fmt: skip
    return squared


def _mean(squared: torch.Tensor, used: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Mean distance (batch,) [m] of clouds that use so many points, to clouds that use so many."""
    # Torch's root is correctly rounded, the kernels' need not be under fast_math.
    total = squared.sqrt().sum(dim=1, dtype=torch.float64)
    mean = (total / used.clamp(min=1)).float()
    mean = torch.where((used > 0) & (others > 0), mean, torch.inf)
    return torch.where((used == 0) & (others == 0), 0.0, mean)
