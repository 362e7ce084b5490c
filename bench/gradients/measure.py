"""Forward and backward of the functions with gradients: the kernels against autograd over the readable
twins in float64, against plain torch in float32, and pytorch3d where it is installed."""

from __future__ import annotations

from collections.abc import Callable

import torch
import trimesh
from lucibot_kernels import Observer, gradients, soft_twins, twins

from lucibot.benchmark import Bench, Timing

PAIRS, POINTS, FEW = 128, 2048, 2
"""Clouds of Chamfer distances. What compares all pairs with autograd is timed on few and scaled up."""
MASKS, SIDE = 128, 256
PICTURES, SMALL = 2, 64
"""Soft pictures that a twin can draw: it compares all pixels with all others."""
WANTED = "at least 3"


def measure(bench: Bench) -> None:
    torch.manual_seed(0)
    for row in (chamfer, contact_distance, tip_distance, soft_iou, soft_observe):
        row(bench)


def chamfer(bench: Bench) -> None:
    a, b = (0.1 * torch.rand(PAIRS, POINTS, 3, device=bench.device) for _ in range(2))
    few = a[:FEW], b[:FEW]

    def plain(x, y):
        d = torch.cdist(x, y)
        return d.amin(1).mean(1) + d.amin(2).mean(1)

    contestants = {
        "ours": pulled(lambda x, y: gradients.chamfer(x, y).sum, a, b),
        "twin": pulled(lambda x, y: sum(soft_twins.chamfer(x, y)), *(x.double() for x in few)),
        "cdist": pulled(plain, *few),
    }
    try:
        from pytorch3d.loss import chamfer_distance

        contestants["pytorch3d"] = pulled(
            lambda x, y: chamfer_distance(x, y, batch_reduction=None)[0], *few
        )
    except ImportError:
        bench.skip("chamfer.pytorch3d", "not installed")
    race(bench, "chamfer", contestants, dict.fromkeys(("twin", "cdist", "pytorch3d"), PAIRS / FEW))


def contact_distance(bench: Bench) -> None:
    a, b = (0.1 * torch.rand(PAIRS, POINTS // 4, 3, device=bench.device) for _ in range(2))
    few = a[:FEW], b[:FEW]
    race(bench, "contact_distance", {
        "ours": pulled(gradients.contact_distance, a, b),
        "twin": pulled(soft_twins.contact_distance, *(x.double() for x in few)),
        "cdist": pulled(lambda x, y: torch.cdist(x, y).amin((1, 2)), *few),
    }, {"twin": PAIRS / FEW, "cdist": PAIRS / FEW})  # fmt: skip


def tip_distance(bench: Bench) -> None:
    K, B, M, F = 11, 32, 200, 5
    on = {"device": bench.device}
    area, tips = 0.02 * torch.randn(M, 3, **on), 0.05 * torch.randn(K, F, 3, **on)
    position, quaternion = 0.05 * torch.randn(K, B, 3, **on), torch.randn(K, B, 4, **on)
    counted, eye = torch.ones(K, M, dtype=torch.bool, **on), torch.tensor([0.0, -1.0, 0.5], **on)
    contestants = {
        "ours": pulled(
            lambda p, q: gradients.tip_distance(area, counted, p, q, tips, eye),
            position, quaternion,
        )
    }  # fmt: skip
    if bench.device == "cpu":  # where the twin is at home
        contestants["twin"] = pulled(
            lambda p, q: twins.tip_distance(area, counted, p, q, tips, eye),
            position.double(), quaternion.double(),
        )  # fmt: skip
    race(bench, "tip_distance", contestants)


def soft_iou(bench: Bench) -> None:
    s = torch.rand(MASKS, SIDE, SIDE, device=bench.device)
    mask = torch.rand(MASKS, SIDE, SIDE, device=bench.device) > 0.5

    def plain(s):
        both = (s * mask).sum((1, 2))
        return both / ((s + mask).sum((1, 2)) - both)

    race(bench, "soft_iou", {
        "ours": pulled(lambda s: gradients.soft_iou(s, mask), s),
        "twin": pulled(lambda s: soft_twins.soft_iou(s, mask), s.double()),
        "torch": pulled(plain, s),
    })  # fmt: skip


def soft_observe(bench: Bench) -> None:
    for pictures, side, particles, round_ in ((PICTURES, SMALL, 100, 2), (16, SIDE, 2000, 3)):
        observer, scene, state = scenery(bench.device, pictures, side, particles, round_)

        def ours(*state, observer=observer):
            drawn = gradients.soft_observe(observer, *state)
            return (drawn.silhouette + 0.1 * drawn.depth).sum((1, 2))

        def twin(*state, scene=scene):
            silhouette, depth = soft_twins.soft_observe(
                **scene, blur_px=1.0, blur_m=0.01, position_m=state[0], quaternion=state[1],
                particles_m=state[2],
            )  # fmt: skip
            return (silhouette + 0.1 * depth).sum((1, 2))

        contestants = {"ours": pulled(ours, *state)}
        if side == SMALL and bench.device == "cpu":
            contestants["twin"] = pulled(twin, *(x.double() for x in state))
        race(bench, f"soft_observe_{pictures}x{side}", contestants)


def scenery(device: str, pictures: int, side: int, particles: int, round_: int):
    """An observer of a ball and particles, its twin's arguments, and poses and positions to draw at."""
    ball = trimesh.creation.icosphere(subdivisions=round_, radius=0.15)
    i32 = {"dtype": torch.int32, "device": device}
    camera = {"width": side, "height": side, "fx": 1.2 * side, "fy": 1.2 * side,
              "cx": side / 2, "cy": side / 2, "T_cam_world": torch.eye(4)}  # fmt: skip
    meshes = {
        "vertices_m": torch.as_tensor(ball.vertices, dtype=torch.float32).to(device),
        "faces": torch.as_tensor(ball.faces).to(**i32),
        "vertex_body": torch.zeros(len(ball.vertices), **i32),
    }
    behind = torch.full((side, side), 1.5, device=device)
    observer = Observer(
        **camera, **meshes, body_label=torch.ones(1, **i32), particle_radius_m=0.006,
        particle_label=torch.ones(particles, **i32), background_depth_m=behind, device=device,
    )  # fmt: skip
    ahead = torch.tensor([0.0, 0.0, 1.0])
    state = [
        (0.05 * torch.randn(pictures, 1, 3) + ahead).to(device),
        torch.randn(pictures, 1, 4).to(device),
        (0.1 * torch.randn(pictures, particles, 3) + ahead).to(device),
    ]
    radius = torch.full((particles,), 0.006)
    twin = camera | meshes | {"particle_radius_m": radius, "background_depth_m": behind}
    return observer, twin, state


def pulled(function: Callable, *tensors: torch.Tensor) -> Callable[[], object]:
    """A call forward and backward."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    return lambda: torch.autograd.grad(function(*leaves).sum(), leaves)


def race(
    bench: Bench, of: str, contestants: dict[str, Callable], scale: dict[str, float] | None = None
) -> None:
    times = bench.race(contestants, of=of)
    for name, timing in times.items():
        if name == "ours":
            continue
        factor = (scale or {}).get(name, 1.0)
        whole = Timing(rounds=tuple(factor * x for x in timing.rounds))
        target = WANTED if name != "pytorch3d" else "at least 1"
        bench.ratio(f"{of}.{name}_over_ours", whole, times["ours"], target=target)
