"""Points of posed bodies and of pixels, and what is near to a body, for all environments at once."""

from __future__ import annotations

import torch

from lucibot_kernels import runtime
from lucibot_kernels.checks import batched_points, check, nonempty
from lucibot_kernels.runtime import kernels

_MASK = (torch.bool, torch.uint8)
_CPU_LANES, _GPU_LANES = 1, 256  # that share an image, or a cloud
_MOST_CELLS = 1 << 18
_WIDER = 1.001  # of a cell than the reach: rounding must not part neighbours by two cells


def unproject(
    mask: torch.Tensor, depth: torch.Tensor, rays: torch.Tensor, centre: torch.Tensor, most: int
) -> torch.Tensor:
    """Points of masked depth images, at most `most` of each: (B, most, 3) f32 [m].

    The pixels of a mask count in rows; of n pixels those whose numbers are `thinning.even_ranks` of n
    give a point, in that order. NaN pads.

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
        lanes = _CPU_LANES if runtime.few_threads(device) else _GPU_LANES
        flat = mask.view(torch.uint8).view(-1)
        # Eight pixels a word where every image starts on a word, else one.
        size = 8 if pixels % 8 == 0 and flat.storage_offset() % 8 == 0 else 1
        words = flat.view(torch.int64) if size == 8 else flat
        found = torch.empty(batch, lanes, dtype=torch.int32, device=device)
        k.count(flat, pixels // size, found.view(-1), lanes, size)
        upto = found.cumsum(1, dtype=torch.int32)
        before, total = (upto - found).view(-1), upto[:, -1].contiguous()
        k.unproject(
            flat, words, nonempty(depth.view(-1)), rays.view(-1), centre, pixels // size, before,
            total, most, lanes, out.view(-1), size,
        )  # fmt: skip
    return out


class Surface:
    """Points of one body's frame, and what comes near to them.

    They stay where they are in that frame, so they are sorted into cells once; with a cell for each
    reach most points are told to be far by one look.
    """

    def __init__(self, points: torch.Tensor, reach_m: float) -> None:
        """
        points: (M, 3) f32 [m], finite, at least one.
        reach_m: nearer than this is near.
        """
        dims: dict[str, int] = {}
        device = points.device if isinstance(points, torch.Tensor) else torch.device("cpu")
        check("points", points, torch.float32, ("M", 3), dims=dims, device=device)
        if not dims["M"] or not torch.isfinite(points).all():
            raise ValueError("points: expected at least one, all of them finite")
        if not reach_m > 0:
            raise ValueError(f"reach_m: expected a positive distance, got {reach_m}")
        self.points, self.reach_m = points, float(reach_m)
        low, high = points.amin(0), points.amax(0)
        edge = _WIDER * self.reach_m
        # Two empty cells on each side: what is within reach of a point is within the grid.
        while (sides := ((high - low) / edge).long() + 5).prod() > _MOST_CELLS:
            edge *= 1.26
        low = low - 2 * edge
        nx, ny, nz = sides.tolist()
        x, y, z = ((points - low) / edge).long().unbind(1)
        cell = (z * ny + y) * nx + x
        occupied = torch.bincount(cell, minlength=nx * ny * nz)
        self._sorted = points[torch.argsort(cell, stable=True)].view(-1)
        self._start = torch.nn.functional.pad(occupied.cumsum(0), (1, 0)).int()
        beside = torch.nn.functional.max_pool3d(
            occupied.view(1, 1, nz, ny, nx).clamp(max=1).float(), 3, stride=1, padding=1
        )
        self._near = beside.view(-1).to(torch.uint8)
        self._grid = (*low.tolist(), edge, nx, ny, nz, self.reach_m)

    def near(
        self,
        position: torch.Tensor,
        quaternion: torch.Tensor,
        points: torch.Tensor,
        pose: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Whether any of some points is near to the surface, (B,) bool.

        position, quaternion: (B, 3) f32 [m] and (B, 4) f32 unit quaternions, wxyz, of the surface.
        points: (B, N, 3) f32 [m, world], contiguous or `pos.transpose(0, 1)` of Genesis' own
            (N, B, 3); those that are not finite are near to nothing. With a pose (N, 3) of the frame
            of another body.
        pose: that body's position and quaternion, as above.
        """
        dims: dict[str, int] = {}
        device = self.points.device
        check("position", position, torch.float32, ("B", 3), dims=dims, device=device)
        check("quaternion", quaternion, torch.float32, ("B", 4), dims=dims, device=device)
        if pose is None:
            memory, *strides = batched_points("points", points, dims=dims, count="N", device=device)
            pose = position, quaternion
        else:
            check("points", points, torch.float32, ("N", 3), dims=dims, device=device)
            check("pose[0]", pose[0], torch.float32, ("B", 3), dims=dims, device=device)
            check("pose[1]", pose[1], torch.float32, ("B", 4), dims=dims, device=device)
            memory, strides = points.view(-1), (0, 3)
        out = torch.zeros(dims["B"], dtype=torch.int32, device=device)
        if dims["B"] and dims["N"]:
            lanes = _CPU_LANES if runtime.few_threads(device) else _GPU_LANES
            kernels("_point_kernels", device).near_surface(
                memory, *strides, dims["N"], pose[0].view(-1), pose[1].view(-1),
                self._sorted, self._start, self._near, *self._grid,
                position.view(-1), quaternion.view(-1), out, points.ndim == 2, lanes,
            )  # fmt: skip
        return out.bool()
