"""Chamfer distances of 128 pairs of clouds: the kernel against scipy's cKDTree and torch.cdist."""

from __future__ import annotations

import numpy as np
import torch
from lucibot_kernels import chamfer
from scipy.spatial import cKDTree

from lucibot.benchmark import Bench

PAIRS = 128
SIZES = {2048: "0.45", 10_000: "11"}
"""Points of a cloud, and what 128 pairs may take on an H200 [ms]."""
PAIR_OPERATIONS = 9
"""Of two points: three differences, their squares' sum (five), the smaller of two."""
FEW = {"cpu": 2, "cuda": PAIRS}
"""What compares all points with all others is timed on so many pairs and scaled up: all would take a CPU
minutes."""


def measure(bench: Bench) -> None:
    for points, gpu_ms in SIZES.items():
        a, b = clouds(points)
        on_device = torch.from_numpy(a).to(bench.device), torch.from_numpy(b).to(bench.device)
        wanted = by_trees(a[:4], b[:4])
        found = chamfer(*(x[:4].contiguous() for x in on_device)).sum.cpu().numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
        count = FEW[bench.device]
        few = [x[:count] for x in on_device]
        contestants = {
            "ours": lambda x=on_device: chamfer(*x),
            "ckdtree": lambda a=a, b=b: by_trees(a, b),
            "ckdtree_all_cores": lambda a=a, b=b: by_trees(a, b, cores=-1),
            f"cdist_{count}_pairs": lambda x=few: by_cdist(*x),
        }
        try:
            from pytorch3d.loss import chamfer_distance

            contestants[f"pytorch3d_{count}_pairs"] = lambda x=few: chamfer_distance(*x)
        except ImportError:
            bench.skip(f"points_{points}.pytorch3d", "not installed")
        of = f"points_{points}"
        times = bench.race(contestants, of=of)
        bench.ratio(f"{of}.ckdtree_over_ours", times["ckdtree"], times["ours"],
                    target="at least 1.5")  # fmt: skip
        bench.ratio(f"{of}.ckdtree_all_cores_over_ours", times["ckdtree_all_cores"], times["ours"])
        for other in ("cdist", "pytorch3d"):
            if (taken := times.get(f"{other}_{count}_pairs")) is not None:
                all_pairs = taken.median * PAIRS / count
                bench.value(f"{of}.{other}_over_ours", all_pairs / times["ours"].median, unit="x")
        if bench.device == "cpu" and points == min(SIZES):
            # Few points are all compared, both ways; of more, grids leave most pairs out.
            bench.roofline(
                f"{of}.ours", times["ours"], operations=2 * PAIRS * points**2 * PAIR_OPERATIONS
            )
        bench.gpu_busy(f"{of}.ours.gpu", lambda x=on_device: chamfer(*x),
                       target=f"at most {gpu_ms}")  # fmt: skip


def clouds(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Two batches (PAIRS, points, 3) float32 [m]: surfaces of boxes, those of b turned and moved a
    little, as a rollout's goal is against the video's."""
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, (PAIRS, points, 3))
    axis = rng.integers(0, 3, (PAIRS, points))
    np.put_along_axis(a, axis[..., None], rng.choice([-1.0, 1.0], (PAIRS, points, 1)), 2)
    a *= (0.06, 0.03, 0.02)
    angle = rng.normal(scale=0.1, size=PAIRS)
    turn = np.zeros((PAIRS, 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 0, 1], turn[:, 1, 0] = -np.sin(angle), np.sin(angle)
    turn[:, 2, 2] = 1
    b = a[:, rng.permutation(points)] @ turn + rng.normal(scale=0.01, size=(PAIRS, 1, 3))
    return a.astype(np.float32), b.astype(np.float32)


def by_trees(a: np.ndarray, b: np.ndarray, cores: int = 1) -> np.ndarray:
    """Sums of both directions' mean distances, one pair after the other."""
    return np.array([
        cKDTree(y).query(x, workers=cores)[0].mean() + cKDTree(x).query(y, workers=cores)[0].mean()
        for x, y in zip(a, b, strict=True)
    ])  # fmt: skip


def by_cdist(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    distances = (torch.cdist(x, y) for x, y in zip(a, b, strict=True))
    return torch.stack([d.amin(0).mean() + d.amin(1).mean() for d in distances])
