"""IoU of 128 label images (256, 256) with 8 masks, one a label: the kernel that the losses call against
torch's comparisons, and, or and sum."""

from __future__ import annotations

import torch
from lucibot_kernels import label_iou, twins

from lucibot.benchmark import Bench

IMAGES, LABELS, SIDE = 128, 8, 256


def measure(bench: Bench) -> None:
    # Discs at random places: candidates that differ, as those of a search do.
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")

    def discs(*shape: int) -> torch.Tensor:
        centre = SIDE * torch.rand(*shape, 1, 1, 2, generator=generator)
        return (x - centre[..., 0]) ** 2 + (y - centre[..., 1]) ** 2 < 40**2

    label = torch.zeros(IMAGES, SIDE, SIDE, dtype=torch.int32)
    for i in range(LABELS):
        label[discs(IMAGES)] = i + 1
    label, masks = label.to(bench.device), discs(LABELS).to(bench.device)
    wanted = list(range(1, LABELS + 1))
    ours = label_iou(label, wanted, masks)
    assert torch.allclose(ours, twins.label_iou(label, wanted, masks).float(), atol=1e-6)
    times = bench.race({
        "ours": lambda: label_iou(label, wanted, masks),
        "torch": lambda: twins.label_iou(label, wanted, masks),
    })  # fmt: skip
    bench.ratio("torch_over_ours", times["torch"], times["ours"], target="at least 20")
    # Each pair reads a label image and a mask.
    moved = IMAGES * LABELS * SIDE * SIDE * (label.element_size() + masks.element_size())
    bench.roofline("ours", times["ours"], moved_bytes=moved)
    bench.gpu_busy("ours.gpu", lambda: label_iou(label, wanted, masks), target="at most 0.1")
    bench.gpu_busy("torch.gpu", lambda: twins.label_iou(label, wanted, masks))
