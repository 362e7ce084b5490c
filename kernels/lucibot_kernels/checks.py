"""Argument checks: a message names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Dims = dict[str, int]


def describe(x: object) -> str:
    if isinstance(x, torch.Tensor):
        layout = "" if x.is_contiguous() else f" with strides {tuple(x.stride())}"
        return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)} on {x.device}{layout}"
    return f"{type(x).__name__} {x!r}"[:120]


def check(
    name: str,
    x: object,
    dtype: torch.dtype | Sequence[torch.dtype],
    shape: Sequence[str | int],
    *,
    dims: Dims,
    device: torch.device,
    contiguous: bool = True,
) -> torch.Tensor:
    """Raise unless `x` is a tensor of this dtype, device and shape; return it.

    shape: integers, or names that are bound in `dims` where they are first seen; "..." as the
    second entry stands for any number of axes.
    contiguous: False leaves the memory layout to the caller.
    """
    dtypes = (dtype,) if isinstance(dtype, torch.dtype) else tuple(dtype)
    bound = ", ".join(f"{s}={dims[s]}" for s in shape if isinstance(s, str) and s in dims)
    wanted = (
        f"{' or '.join(str(d).removeprefix('torch.') for d in dtypes)} "
        f"({', '.join(map(str, shape))}){' with ' + bound if bound else ''} on {device}"
    )
    failure = f"{name}: expected a tensor {wanted}, got {describe(x)}"
    if not isinstance(x, torch.Tensor):
        raise TypeError(failure)
    if x.dtype not in dtypes:
        raise TypeError(failure)
    if x.device != device:
        raise ValueError(failure)
    sizes: Sequence[int] = tuple(x.shape)
    if "..." in shape:
        i = list(shape).index("...")
        tail = len(shape) - i - 1
        if len(sizes) < i + tail:
            raise ValueError(failure)
        shape = [*shape[:i], *shape[i + 1 :]]
        sizes = [*sizes[:i], *sizes[len(sizes) - tail :]]
    if len(sizes) != len(shape):
        raise ValueError(failure)
    for want, size in zip(shape, sizes, strict=True):
        if (want if isinstance(want, int) else dims.setdefault(want, size)) != size:
            raise ValueError(failure)
    if contiguous and not x.is_contiguous():
        raise ValueError(f"{name}: expected a contiguous tensor {wanted}, got {describe(x)}")
    return x


def batched_points(
    name: str, x: object, *, dims: Dims, count: str, device: torch.device
) -> tuple[torch.Tensor, int, int]:
    """Points (B, count, 3) f32 as (flat memory, stride of B, stride of count), without a copy.

    Any layout in which the three coordinates of a point lie side by side: contiguous, the
    `particles.transpose(0, 1)` of Genesis' (N, B, 3) particle positions, or some of its
    environments.
    """
    x = check(name, x, torch.float32, ("B", count, 3), dims=dims, device=device, contiguous=False)
    if x.stride(2) != 1 and x.numel():
        raise ValueError(
            f"{name}: expected a float32 (B, {count}, 3) tensor with the coordinates of a point side "
            f"by side, got {describe(x)}"
        )
    b, n, _ = x.shape
    reach = (b - 1) * x.stride(0) + (n - 1) * x.stride(1) + 3 if x.numel() else 0
    return x.as_strided((reach,), (1,)), x.stride(0), x.stride(1)


def nonempty(x: torch.Tensor) -> torch.Tensor:
    """`x`, or one zero in its place: a kernel cannot be given an array without elements."""
    return x if x.numel() else torch.zeros(1, dtype=x.dtype, device=x.device)
