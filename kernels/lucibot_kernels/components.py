"""Connected components of masks."""

from __future__ import annotations

import torch

from lucibot_kernels.checks import check
from lucibot_kernels.runtime import kernels


def connected_components(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """8-connected components of each image of mask (B, H, W) bool or uint8 (non-zero is true).

    Returns labels (B, H, W) i32: 0 is background, then 1, 2, ... by decreasing area, equal areas
    in the order of their first pixels; and sizes (B, C) i32 [pixels]: sizes[b, i] is the area of
    label i + 1, zero beyond the image's last one. C is the largest number in any image.
    """
    dims: dict[str, int] = {}
    device = mask.device if isinstance(mask, torch.Tensor) else torch.device("cpu")
    check("mask", mask, (torch.bool, torch.uint8), ("B", "H", "W"), dims=dims, device=device)
    k = kernels("_component_kernels", device)
    batch, height, width = mask.shape
    labels = torch.zeros(mask.shape, dtype=torch.int32, device=device)
    if mask.numel() == 0:
        return labels, torch.zeros((batch, 0), dtype=torch.int32, device=device)
    pixels = (mask if mask.dtype == torch.bool else mask.ne(0)).view(torch.uint8).view(-1)
    parent, area = torch.empty((2, *mask.shape), dtype=torch.int32, device=device)
    count = torch.empty(batch, dtype=torch.int32, device=device)
    k.components(pixels, height, width, parent.view(-1), labels.view(-1), area.view(-1), count)
    most = int(count.max())
    if most == 0:
        return labels, torch.zeros((batch, 0), dtype=torch.int32, device=device)
    used = torch.arange(most, device=device) < count[:, None]
    area = torch.where(used, area.view(batch, -1)[:, :most], 0)
    sizes, order = area.sort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(area).scatter_(
        1, order, torch.arange(most, dtype=torch.int32, device=device).expand(batch, most)
    )
    k.relabel(
        labels.view(-1), rank.view(-1), height * width, width if device.type == "cpu" else 1, most
    )
    return labels, sizes
