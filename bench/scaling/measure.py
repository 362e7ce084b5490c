"""Larger populations, more waypoints, more particles: does the cost grow faster than the size?

Each size runs in a process of its own, so that its memory can be told. Draws `runs/scaling.png`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from lucibot.benchmark import Bench
from lucibot.core.errors import RunFailed

TASK = "cut_dough"
HERE = Path(__file__).parent
PLOT = Path("runs/scaling.png")
SIZES = {
    "population": (16, 32, 64, 128, 256, 512),
    "waypoints": (4, 8, 16, 32),
    "particles": (300, 1000, 3000, 10_000, 20_000),
}
"""What is varied, and its sizes."""
OTHERWISE = {"population": 16, "waypoints": 2, "particles": 0}
"""What the others are meanwhile; 0: as many particles as the task has."""
FEW = 4
"""Environments while particles are varied."""


def measure(bench: Bench) -> None:
    found = {}
    for what, sizes in SIZES.items():
        found[what] = []
        for size in sizes:
            point = OTHERWISE | ({"population": FEW} if what == "particles" else {}) | {what: size}
            taken = one(point, bench.device)
            found[what].append((taken["particles"] if what == "particles" else size, taken))
            bench.value(f"{what}.{size}", taken["seconds"], unit="s")
        bench.value(f"{what}.exponent", exponent(found[what]), target="at most 1")
        if what == "population":
            memory(bench, found[what])
    plot(found)


def memory(bench: Bench, points: list[tuple[int, dict]]) -> None:
    """What an environment takes: the process's own part does not grow with the batch."""
    (few, small), (many, large) = points[0], points[-1]
    each = (large["bytes"] - small["bytes"]) / (many - few)
    bench.value("memory", each / 1e6, unit="MB an environment")
    bench.value("memory_estimated", large["estimated"] / many / 1e6, unit="MB an environment")


def one(point: dict[str, int], device: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "one.py"), TASK,
         *(str(point[n]) for n in OTHERWISE), device],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RunFailed(f"scaling, {point}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def exponent(points: list[tuple[int, dict]]) -> float:
    """b of cost = a size^b, by least squares over the logarithms: 1 is linear."""
    size, seconds = np.log([[s, p["seconds"]] for s, p in points]).T
    return float(np.polyfit(size, seconds, 1)[0])


def plot(found: dict[str, list[tuple[int, dict]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 3.2), layout="constrained")
    for ax, (what, points) in zip(axes, found.items(), strict=True):
        size, seconds = np.array([[s, p["seconds"]] for s, p in points]).T
        ax.loglog(size, seconds, "o-", label="measured")
        ax.loglog(size, seconds[0] * size / size[0], ":", color="0.5", label="linear")
        ax.set(xlabel=what, ylabel="a generation [s]")
        ax.set_xticks(size, [f"{n:g}" for n in size], fontsize=8)
        ax.set_xticks([], minor=True)
        ax.legend(frameon=False)
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=120)
