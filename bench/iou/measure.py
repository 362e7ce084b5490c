"""IoU of (128, 8, 256, 256) masks: the kernel against torch's and, or and sum."""

from __future__ import annotations

import torch
from lucibot_kernels import mask_iou, twins

from lucibot.benchmark import Bench

SHAPE = (128, 8, 256, 256)


def measure(bench: Bench) -> None:
    # Discs at random places: candidates that differ, as those of a search do.
    generator = torch.Generator().manual_seed(0)
    centre = 256 * torch.rand(2, *SHAPE[:2], 1, 1, 2, generator=generator)
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    a, b = (
        torch.stack([((x - c[..., 0]) ** 2 + (y - c[..., 1]) ** 2 < 60**2) for c in part])
        for part in centre
    )
    a, b = a.to(bench.device), b.to(bench.device)
    assert torch.allclose(mask_iou(a, b), twins.mask_iou(a, b).float(), atol=1e-6)
    times = bench.race({"ours": lambda: mask_iou(a, b), "torch": lambda: twins.mask_iou(a, b)})
    bench.ratio("torch_over_ours", times["torch"], times["ours"], target="at least 20")
    bench.roofline("ours", times["ours"], moved_bytes=2 * a.numel())
    bench.gpu_busy("ours.gpu", lambda: mask_iou(a, b), target="at most 0.1")
    bench.gpu_busy("torch.gpu", lambda: twins.mask_iou(a, b))
