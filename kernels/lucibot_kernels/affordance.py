"""Whether a hand could hold a posed body: how far it is from where finger tips are seen, and how
deep the hand would be in other things. For all environments at once; nothing is drawn."""

from __future__ import annotations

import math

import torch

from lucibot_kernels.checks import batched_points, check, nonempty
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
    """How far the posed area is from the finger tips seen at K moments, mean over tips: (K, B) f32
    [m]; NaN where no tip is seen or nothing of the area counts.

    The distance of a tip to a point of the area counts in full across the line of sight and by
    `depth_share` along it; it is quadratic below `slack_m` and never more than `cap_m`. A tip's
    distance to the area is the mean over what is nearest, blurred by `blur_m`: smooth everywhere.
    A body whose pose is not finite is `cap_m` away.

    area: (M, 3) f32 [m], of the body's frame.
    counted: (K, M) bool, the points that belong to the hold of each moment.
    position, quaternion: (K, B, 3) f32 [m] and (K, B, 4) f32 unit quaternions, wxyz.
    tips: (K, F, 3) f32 [m, world]; a tip that is not finite is not seen.
    eye: (3,) f32 [m, world], where the camera is.
    """
    if not (0 <= depth_share <= 1 and min(slack_m, blur_m, cap_m) > 0):
        raise ValueError(
            f"depth_share, slack_m, blur_m, cap_m: expected one of 0 to 1 and positive lengths, got "
            f"{depth_share}, {slack_m}, {blur_m}, {cap_m}"
        )
    dims: dict[str, int] = {}
    device = area.device if isinstance(area, torch.Tensor) else torch.device("cpu")
    check("area", area, torch.float32, ("M", 3), dims=dims, device=device)
    check("counted", counted, torch.bool, ("K", "M"), dims=dims, device=device)
    check("position", position, torch.float32, ("K", "B", 3), dims=dims, device=device)
    check("quaternion", quaternion, torch.float32, ("K", "B", 4), dims=dims, device=device)
    check("tips", tips, torch.float32, ("K", "F", 3), dims=dims, device=device)
    check("eye", eye, torch.float32, (3,), dims=dims, device=device)
    out = torch.full((dims["K"], dims["B"]), torch.nan, device=device)
    if out.numel() and dims["M"] and dims["F"]:
        seen = torch.isfinite(tips).all(-1)
        kernels("_affordance_kernels", device).tip_distance(
            area.view(-1), counted.view(torch.uint8).view(-1), position.view(-1),
            quaternion.view(-1), tips.nan_to_num(0.0, 0.0, 0.0).view(-1),
            seen.view(torch.uint8).view(-1), eye, dims["B"], dims["M"], dims["F"],
            depth_share, slack_m, blur_m, cap_m, out.view(-1),
        )  # fmt: skip
    return out


class HandSpace:
    """The box that a hand fills on a body that it holds, in R ways to turn it about its axis.

    The box stands with its face z = 0 on the middle of the area and goes outwards along z.
    """

    def __init__(
        self,
        middle: torch.Tensor,
        outward: torch.Tensor,
        size_m: tuple[float, float, float],
        *,
        turns: int = 4,
        spacing_m: float = 0.02,
    ) -> None:
        """
        middle, outward: (3,) f32 [m] and a direction, of the body's frame.
        size_m: width, thickness and length of the hand.
        turns: ways to turn the hand about `outward`, evenly over half a turn.
        spacing_m: at most so far apart are the points that stand for the hand's volume.
        """
        dims: dict[str, int] = {}
        device = middle.device if isinstance(middle, torch.Tensor) else torch.device("cpu")
        check("middle", middle, torch.float32, (3,), dims=dims, device=device)
        check("outward", outward, torch.float32, (3,), dims=dims, device=device)
        if (
            not torch.isfinite(middle).all()
            or not torch.isfinite(outward).all()
            or not outward.any()
        ):
            raise ValueError("middle, outward: expected finite numbers and a direction")
        if len(size_m) != 3 or min(size_m) <= 0 or turns < 1 or spacing_m <= 0:
            raise ValueError(
                "size_m, turns, spacing_m: expected three positive lengths, at least one turn and a "
                f"positive length, got {size_m}, {turns}, {spacing_m}"
            )
        self.device, self.turns = device, turns
        z = torch.nn.functional.normalize(outward.double(), dim=0)
        # Any direction across the axis: that of the coordinate in which it is the least.
        x = torch.zeros_like(z)
        x[z.abs().argmin()] = 1.0
        x = torch.nn.functional.normalize(x - x.dot(z) * z, dim=0)
        y = z.cross(x, dim=0)
        half = torch.tensor(size_m, dtype=torch.float64, device=device) / 2
        centre = middle.double() + half[2] * z
        angle = torch.arange(turns, device=device).double() * (torch.pi / turns)
        turned = angle.cos()[:, None] * x + angle.sin()[:, None] * y
        across = z.expand_as(turned).cross(turned, dim=1)
        axes = torch.stack([turned, across, z.expand_as(turned)], 1)  # (R, 3, 3), rows
        self.T_hand_body = torch.cat([axes, -(axes @ centre)[..., None]], -1).float().contiguous()
        """(R, 3, 4), from the body's frame to the hand's, whose origin is the box's middle."""
        self.half_m = half.float()
        counts = [max(2, math.ceil(s / spacing_m) + 1) for s in size_m]
        line = [
            torch.linspace(-1, 1, c, dtype=torch.float64, device=device) * h
            for c, h in zip(counts, half.tolist(), strict=True)
        ]
        grid = torch.cartesian_prod(*line)
        self.samples_m = (grid @ axes + centre).float().contiguous()
        """(R, S, 3) of the body's frame."""
        self._reach = float(centre.norm() + half.norm()) * 1.001

    def depth_of_points(
        self,
        position: torch.Tensor,
        quaternion: torch.Tensor,
        points: torch.Tensor,
        pose: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """How deep in the hand points of other things are, (B, R) f32 [m]; 0 where the hand is free.

        Of points within the box the mean of their depths under its surface, each weighed by its
        square: near to the greatest, and smooth.

        position, quaternion: (B, 3) f32 [m] and (B, 4) f32 of the body that is held.
        points: (B, N, 3) f32 [m, world], contiguous or `pos.transpose(0, 1)` of Genesis' own
            (N, B, 3); those that are not finite are nowhere. With a pose (N, 3) of the frame of
            another body.
        pose: that body's position and quaternion, as above.
        """
        dims: dict[str, int] = {}
        check("position", position, torch.float32, ("B", 3), dims=dims, device=self.device)
        check("quaternion", quaternion, torch.float32, ("B", 4), dims=dims, device=self.device)
        if pose is None:
            memory, *strides = batched_points(
                "points", points, dims=dims, count="N", device=self.device
            )
            other = position, quaternion
        else:
            check("points", points, torch.float32, ("N", 3), dims=dims, device=self.device)
            check("pose[0]", pose[0], torch.float32, ("B", 3), dims=dims, device=self.device)
            check("pose[1]", pose[1], torch.float32, ("B", 4), dims=dims, device=self.device)
            memory, strides, other = points.view(-1), (0, 3), pose
        out = torch.zeros(dims["B"], self.turns, device=self.device)
        if out.numel() and dims["N"]:
            kernels("_affordance_kernels", self.device).depth_in_hand(
                memory, *strides, dims["N"], other[0].view(-1), other[1].view(-1),
                position.view(-1), quaternion.view(-1), self.T_hand_body.view(-1), self.half_m,
                self.turns, self._reach, out.view(-1), pose is not None,
            )  # fmt: skip
        return out

    def depth_in_solids(
        self,
        position: torch.Tensor,
        quaternion: torch.Tensor,
        distance: torch.Tensor,
        low: torch.Tensor,
        cell_m: float,
    ) -> torch.Tensor:
        """How deep the hand is in what stands still, (B, R) f32 [m]; 0 where it is free.

        Of the points that stand for the hand the mean of their depths, each weighed by its square.

        position, quaternion: (B, 3) f32 [m] and (B, 4) f32 of the body that is held.
        distance: (X, Y, Z) f32 [m] to the surface of what stands still, negative inside, on a grid
            of the world, two cells or more a side; between its points it is interpolated, beyond
            them it is that of the border.
        low: (3,) f32 [m, world], the grid's first point.
        cell_m: from one point to the next.
        """
        dims: dict[str, int] = {}
        check("position", position, torch.float32, ("B", 3), dims=dims, device=self.device)
        check("quaternion", quaternion, torch.float32, ("B", 4), dims=dims, device=self.device)
        check("distance", distance, torch.float32, ("X", "Y", "Z"), dims=dims, device=self.device)
        check("low", low, torch.float32, (3,), dims=dims, device=self.device)
        sides = dims["X"], dims["Y"], dims["Z"]
        if min(sides) < 2 or not cell_m > 0:
            raise ValueError(
                f"distance, cell_m: expected two cells or more a side and a positive length, got "
                f"{sides}, {cell_m}"
            )
        out = torch.zeros(dims["B"], self.turns, device=self.device)
        if out.numel():
            kernels("_affordance_kernels", self.device).depth_in_solids(
                self.samples_m.view(-1), self.samples_m.shape[1], self.turns, position.view(-1),
                quaternion.view(-1), nonempty(distance.view(-1)), low, 1 / cell_m, *sides,
                out.view(-1),
            )  # fmt: skip
        return out
