"""Soft pictures: silhouettes and depth of posed meshes and particles, and how well they fit masks, with
gradients with respect to poses and positions.

The gradient of a picture that is drawn hard is zero: a pixel is covered or it is not. Here a pixel fades
with its distance to the contour, as far as one likes: what is drawn is drawn towards a mask that it
does not overlap yet.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable

from lucibot_kernels import runtime
from lucibot_kernels.checks import check, nonempty
from lucibot_kernels.gradients._checks import REAL, double, flat, same
from lucibot_kernels.gradients.clouds import _Posed
from lucibot_kernels.observe import Observer
from lucibot_kernels.runtime import kernels

_GPU_LANES = 64
_MASK = (torch.bool, torch.uint8)


class SoftPicture(NamedTuple):
    """What `soft_observe` draws."""

    silhouette: torch.Tensor
    """(B, H, W) in [0, 1]: 1/2 on the contour, and so is what stands as far away as the background."""
    depth: torch.Tensor
    """(B, H, W) camera z [m] of what is seen, and beside it that of the nearest pixel where it is seen;
    infinite where nothing is drawn."""


def soft_observe(
    observer: Observer,
    position_m: torch.Tensor | None = None,
    quaternion: torch.Tensor | None = None,
    particles_m: torch.Tensor | None = None,
    *,
    blur_px: float = 1.0,
    blur_m: float = 0.01,
    background: bool = True,
    cull_backfaces: bool = False,
) -> SoftPicture:
    """All that an observer draws as one soft silhouette, and its depth.

    With d the distance [pixels] of a pixel's centre from the contour, x = d / blur_px, the silhouette is
    1 / (2 (1 + x)^2) outside and 1 less that within. The contour is that of the triangle or sphere in
    the covered pixel nearest by. Distances from within are measured to the nearest pixel outside, less
    what lies between that one and the contour. Multiplied, if there is a background, by the same of how
    far it is behind what is drawn, with blur_m.

    position_m, quaternion, particles_m: as in `Observer.observe`, float32 or float64; what is covered is
        decided in float32.
    background: whether the observer's background may hide what is drawn.
    cull_backfaces: as in `Observer.observe`.

    What covers no pixel's centre is not drawn, and has no gradient. For several objects, draw each by
    itself, over the depth of the others as the background.
    """
    if min(blur_px, blur_m) <= 0:
        raise ValueError(f"blur_px, blur_m: expected positive lengths, got {blur_px}, {blur_m}")
    given = position_m if position_m is not None else particles_m
    if not isinstance(given, torch.Tensor) or given.dtype not in REAL:
        raise TypeError("position_m, particles_m: expected float32 or float64 tensors, got neither")
    batch = len(given)
    hard = [None if x is None else x.detach().float().contiguous()
            for x in (position_m, quaternion, particles_m)]  # fmt: skip
    with torch.no_grad():
        primitive = observer.primitives(*hard, cull_backfaces=cull_backfaces)
    camera = torch.as_tensor(observer._camera).to(given)
    T = camera[4:].view(3, 4)
    nothing = given.new_zeros(batch, 0, 3)
    vertices = centres = nothing
    if position_m is not None and observer.vertices:
        same("quaternion", quaternion, ("B", "Nb", 4), dims={"B": batch}, like=given)
        rest = observer._vertices.view(-1, 3).to(given)
        world = _Posed.apply(rest, observer._vertex_body, position_m, quaternion)
        vertices = _into(T, world)
    if particles_m is not None and observer.particles:
        same("particles_m", particles_m, ("B", "N", 3), dims={"B": batch}, like=given)
        centres = _into(T, particles_m)
    behind = observer.background_depth_m.to(given)
    hides = background and bool(torch.isfinite(behind).any())
    return SoftPicture(
        *_SoftPicture.apply(
            vertices, centres, primitive, observer, camera, behind, hides, blur_px, blur_m
        )
    )


def soft_iou(
    silhouette: torch.Tensor, mask: torch.Tensor, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Soft IoU (B,) of silhouettes with masks, with gradients with respect to the silhouettes: the sum
    of what is the smaller of both over the sum of what is the larger, which for hard masks is the usual
    soft IoU, and 1 for equals.

    silhouette: (B, H, W) in [0, 1], float32 or float64.
    mask: (H, W) or (B, H, W) in [0, 1], of the same type, or bool.
    valid: (H, W) or (B, H, W) bool, the pixels that count; all by default.

    Where neither has anything, 1.
    """
    dims: dict[str, int] = {}
    same("silhouette", silhouette, ("B", "H", "W"), dims=dims)
    shapes = [("mask", mask), ("valid", valid)]
    for name, x in shapes:
        if x is not None:
            shape = ("H", "W") if isinstance(x, torch.Tensor) and x.ndim == 2 else ("B", "H", "W")
            types = _MASK if name == "valid" else (*_MASK, silhouette.dtype)
            check(name, x, types, shape, dims=dims, device=silhouette.device, contiguous=False)
    if valid is None:
        valid = torch.ones(1, dtype=torch.bool, device=silhouette.device).expand(
            dims["H"], dims["W"]
        )
    return _SoftIou.apply(silhouette, mask.to(silhouette), valid.to(silhouette))


def soften(mask: torch.Tensor, blur_px: float = 1.0) -> torch.Tensor:
    """A mask as `soft_observe` would draw it, (B, H, W) float32: what a soft silhouette can be compared
    with. The contour lies half a pixel from the centres on both of its sides.

    mask: (B, H, W) bool.
    """
    check("mask", mask, torch.bool, ("B", "H", "W"), dims={}, device=mask.device, contiguous=False)
    kind = torch.where(mask, 0, -1).int().contiguous()
    across = _nearest_across(kind).long()
    width = mask.shape[2]
    at = torch.arange(mask[0].numel(), device=mask.device).view(mask.shape[1:])
    dx, dy = at % width - across % width, at // width - across // width
    d = ((dx * dx + dy * dy).float().sqrt() - 0.5) / blur_px
    h = torch.where(across >= 0, 0.5 / (1 + d).square(), 0.0)
    return torch.where(mask, 1 - h, h)


def _into(T: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return points @ T[:, :3].T + T[:, 3]


class _SoftPicture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, vertices, centres, primitive, observer, camera, behind, hides, blur_px, blur_m
    ):
        like = camera
        k = kernels("_gradient_picture_kernels", like.device)
        batch, height, width = primitive.shape
        lanes = _lanes(like.device)
        across = _nearest_across(primitive)
        shape = primitive.shape
        distance, surface = (torch.zeros(shape).to(like) for _ in range(2))
        silhouette, depth = torch.zeros(shape).to(like), torch.full(shape, torch.inf).to(like)
        geometry = (
            nonempty(primitive.view(-1)), nonempty(across.view(-1)), observer._faces,
            observer._radius.to(like), camera, height, width, observer.faces,
            flat(vertices), vertices.shape[1], flat(centres), centres.shape[1],
        )  # fmt: skip
        looks = (height, width, blur_px, blur_m)
        if batch:
            exact = double(like)
            k.contour_distance(*geometry, distance.view(-1), surface.view(-1), lanes, batch, exact)
            k.soft_picture(
                *geometry[:2], distance.view(-1), surface.view(-1), flat(behind), *looks,
                silhouette.view(-1), depth.view(-1), lanes, batch, hides, exact,
            )  # fmt: skip
        ctx.save_for_backward(
            vertices, centres, primitive, across, camera, behind, distance, surface
        )
        ctx.given = observer, looks, hides
        ctx.mark_non_differentiable()
        return silhouette, depth

    @staticmethod
    @once_differentiable
    def backward(ctx, d_silhouette, d_depth):
        vertices, centres, primitive, across, camera, behind, distance, surface = ctx.saved_tensors
        observer, looks, hides = ctx.given
        k = kernels("_gradient_picture_kernels", camera.device)
        batch, height, width = primitive.shape
        lanes, serial = _lanes(camera.device), runtime.few_threads(camera.device)
        d_distance, d_surface = torch.zeros_like(distance), torch.zeros_like(surface)
        d_vertices, d_centres = (
            torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (vertices, centres)
        )
        if batch:
            exact = double(camera)
            k.soft_picture_backward(
                primitive.view(-1), across.view(-1), distance.view(-1), surface.view(-1),
                flat(behind), *looks, flat(d_silhouette), flat(d_depth), d_distance.view(-1),
                d_surface.view(-1), lanes, batch, hides, serial, exact,
            )  # fmt: skip
            k.contour_backward(
                primitive.view(-1), across.view(-1), observer._faces, observer._radius.to(camera),
                camera, height, width, observer.faces, flat(vertices), vertices.shape[1],
                flat(centres), centres.shape[1], surface.view(-1), d_distance.view(-1),
                d_surface.view(-1), nonempty(d_vertices.view(-1)), nonempty(d_centres.view(-1)),
                lanes, batch, serial, exact,
            )  # fmt: skip
        return d_vertices, d_centres, *[None] * 7


class _SoftIou(torch.autograd.Function):
    @staticmethod
    def forward(ctx, silhouette, mask, valid):
        batch, height, width = silhouette.shape
        pixels = height * width
        strides = [pixels if x.ndim == 3 else 0 for x in (mask, valid)]
        counts = torch.zeros(batch, 2, dtype=silhouette.dtype, device=silhouette.device)
        if counts.numel() and pixels:
            device = silhouette.device
            kernels("_gradient_picture_kernels", device).soft_counts(
                flat(silhouette), flat(mask), flat(valid), pixels, *strides, counts.view(-1),
                _lanes(device), batch, runtime.few_threads(device), double(silhouette),
            )  # fmt: skip
        ctx.save_for_backward(silhouette, mask, valid, counts)
        ctx.strides = strides
        both, either = counts.unbind(1)
        return torch.where(either > 0, both / torch.where(either > 0, either, 1.0), 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        silhouette, mask, valid, counts = ctx.saved_tensors
        both, either = counts.unbind(1)
        some = either > 0
        either = torch.where(some, either, 1.0)
        slope = torch.stack([gradient / either, -gradient * both / either**2], 1) * some[:, None]
        out = torch.zeros(silhouette.shape, dtype=silhouette.dtype, device=silhouette.device)
        if out.numel():
            kernels("_gradient_picture_kernels", silhouette.device).soft_counts_backward(
                flat(silhouette), flat(mask), flat(valid), silhouette[0].numel(), *ctx.strides,
                flat(slope), out.view(-1), _lanes(silhouette.device), len(silhouette),
            )  # fmt: skip
        return out, None, None


def _nearest_across(primitive: torch.Tensor) -> torch.Tensor:
    """(B, H, W) int32, the nearest pixel of the other kind; see `_gradient_picture_kernels`."""
    batch, height, width = primitive.shape
    across = torch.full_like(primitive, -1)
    if across.numel():
        k = kernels("_gradient_picture_kernels", primitive.device)
        lanes = _lanes(primitive.device)
        i32 = {"dtype": torch.int32, "device": primitive.device}
        rows = torch.empty_like(primitive)
        below, stack = (
            torch.empty(batch * width, **i32),
            torch.empty(batch * lanes * 2 * width, **i32),
        )
        k.nearest_in_column(primitive.view(-1), height, width, below, rows.view(-1), lanes, batch)
        k.nearest_across(
            primitive.view(-1), rows.view(-1), height, width, stack, across.view(-1), lanes, batch
        )
    return across


def _lanes(device: torch.device) -> int:
    return 1 if runtime.few_threads(device) else _GPU_LANES
