"""Overlap of what is drawn with masks: intersection over union, straight from label images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lucibot_kernels import runtime
from lucibot_kernels.checks import check, nonempty
from lucibot_kernels.runtime import kernels

_MASK = (torch.bool, torch.uint8)
_GPU_LANES = 64  # that share a pair; more wait for one another when they add up


def label_iou(
    label: torch.Tensor,
    wanted: int | Sequence[int],
    mask: torch.Tensor,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """IoU of the pixels that carry a wanted label with a mask, straight from label images.

    label: (B, H, W) i32.
    wanted: one label, or several.
    mask: (H, W) bool or uint8: all wanted labels together against this mask, giving (B,) f32.
        (L, H, W): the l-th wanted label against the l-th mask, giving (B, L) f32.
    valid: (H, W), or (L, H, W) with such a mask: the pixels that count; all by default.

    Two empty masks agree: their IoU is 1.
    """
    dims: dict[str, int] = {}
    device = label.device if isinstance(label, torch.Tensor) else torch.device("cpu")
    check("label", label, torch.int32, ("B", "H", "W"), dims=dims, device=device)
    labels = [wanted] if isinstance(wanted, int) else [int(w) for w in wanted]
    if not labels:
        raise ValueError("wanted: expected at least one label, got none")
    check("mask", mask, _MASK, ("...", "H", "W"), dims=dims, device=device, contiguous=False)
    each = mask.ndim == 3
    if mask.ndim > 3 or (each and mask.shape[0] != len(labels)):
        raise ValueError(
            f"mask: expected (H, W) or (L, H, W) with L={len(labels)} wanted labels, "
            f"got {tuple(mask.shape)}"
        )
    if valid is not None:
        check("valid", valid, _MASK, ("...", "H", "W"), dims=dims, device=device, contiguous=False)
        if valid.ndim > 2 and valid.shape != mask.shape:
            raise ValueError(
                f"valid: expected (H, W) or the shape of mask, {tuple(mask.shape)}, "
                f"got {tuple(valid.shape)}"
            )
    masks = len(labels) if each else 1
    k = kernels("_overlap_kernels", device)
    inter, union = torch.zeros((2, max(dims["B"] * masks, 1)), dtype=torch.int32, device=device)
    if dims["B"] and dims["H"] * dims["W"]:
        m = _bytes(mask)
        v = m if valid is None else _bytes(valid)
        k.count_labels(
            nonempty(label.view(-1)), torch.tensor(labels, dtype=torch.int32, device=device), m, v,
            dims["H"] * dims["W"], masks, v.numel() // (dims["H"] * dims["W"]),
            inter, union, len(labels) // masks, valid is not None, _lanes(device),
        )  # fmt: skip
    iou = ratio(inter, union)[: dims["B"] * masks]
    return iou.view(dims["B"], masks) if each else iou


def _bytes(x: torch.Tensor) -> torch.Tensor:
    """Flat uint8 memory in which true is 1."""
    x = x if x.dtype == torch.bool else x.ne(0)
    return x.contiguous().view(torch.uint8).view(-1)


def _lanes(device: torch.device) -> int:
    return 1 if runtime.few_threads(device) else _GPU_LANES


def ratio(inter: torch.Tensor, union: torch.Tensor) -> torch.Tensor:
    """IoU f32 of counts; 1 where neither mask has a pixel."""
    return torch.where(union > 0, inter.float() / union.clamp(min=1).float(), 1.0)
