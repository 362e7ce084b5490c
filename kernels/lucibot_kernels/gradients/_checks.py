"""What all functions with gradients ask of their arguments."""

from __future__ import annotations

import torch

from lucibot_kernels.checks import check

REAL = (torch.float32, torch.float64)
TOGETHER = 4
"""Queries that share a look through a cloud."""


def same(
    name: str, x: object, shape: tuple, *, dims: dict[str, int], like: torch.Tensor | None = None
) -> torch.Tensor:
    """A tensor of this shape, float32 or float64, of the type and on the device of `like`."""
    device = x.device if isinstance(x, torch.Tensor) else torch.device("cpu")
    return check(
        name, x, REAL if like is None else like.dtype, shape, dims=dims,
        device=device if like is None else like.device, contiguous=False,
    )  # fmt: skip


def flat(x: torch.Tensor) -> torch.Tensor:
    """Memory that a kernel takes; one zero in place of none."""
    x = x.detach().contiguous().view(-1)
    return x if x.numel() else x.new_zeros(1)


def double(x: torch.Tensor) -> bool:
    return x.dtype == torch.float64
