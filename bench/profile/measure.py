"""Where the time of one generation goes: `lucibot bench profile TASK... [--environments N]`"""

from __future__ import annotations

import argparse
from pathlib import Path

from lucibot.benchmark import Bench
from lucibot.benchmark.workload import as_a_worker, candidates, supervision
from lucibot.objective.config import VideoObjective
from lucibot.optimize.strategies import EvosaxStrategy
from lucibot.sim.evaluator import Evaluator
from lucibot.sim.scene import SimScene
from lucibot.sim.timer import PARTS, Timer
from lucibot.task import load_task


def main(argv: list[str]) -> int:
    p = argparse.ArgumentParser(prog="lucibot bench profile", description=__doc__)
    p.add_argument("tasks", nargs="+", metavar="TASK")
    p.add_argument("--environments", type=int, default=16)
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    p.add_argument("--plot", type=Path, metavar="FILE", help="also draw it, as a picture")
    a = p.parse_args(argv)
    found = {name: profile(name, a.environments, a.device) for name in a.tasks}
    width = max(map(len, found))
    print(" " * width, *(f"{h:>13}" for h in PARTS), f"{'ms a rollout':>14}")
    for name, seconds in found.items():
        whole = sum(seconds.values())
        print(f"{name:<{width}}", *(f"{seconds.get(h, 0) / whole:>12.1%} " for h in PARTS),
              f"{1e3 * whole / a.environments:>13.0f}")  # fmt: skip
    if a.plot:
        plot(found, a.plot)
    return 0


def profile(name: str, environments: int, device: str) -> dict[str, float]:
    """Seconds by heading of one warm generation."""
    as_a_worker(device)
    task = load_task(name)
    scene = SimScene(task, n_envs=environments, device=device)
    evaluator = Evaluator(scene, supervision(scene), VideoObjective())
    waypoints = candidates(task, environments)
    optimizer = EvosaxStrategy(waypoints[0].size, environments, seed=0)
    for _ in range(2):  # JAX compiles once more for a state that has been told something.
        optimizer.tell(optimizer.ask(), evaluator.evaluate(waypoints).loss)
    scene.timer.synchronize = Bench(name="profile", device=device).synchronize
    timer = Timer(scene.timer.synchronize)
    with timer.part("ask and tell"):
        samples = optimizer.ask()
    result = evaluator.evaluate(waypoints)
    with timer.part("ask and tell"):
        optimizer.tell(samples, result.loss)
    return result.seconds | {"ask and tell": timer.seconds["ask and tell"]}


def plot(found: dict[str, dict[str, float]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.6 * len(found) + 1.2), layout="constrained")
    left = dict.fromkeys(found, 0.0)
    for h in PARTS:
        share = [100 * s.get(h, 0) / sum(s.values()) for s in found.values()]
        axes.barh(list(found), share, left=list(left.values()), label=h)
        left = {n: v + s for (n, v), s in zip(left.items(), share, strict=True)}
    axes.set_xlabel("share of a generation [%]")
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=len(PARTS), frameon=False)
    figure.savefig(file, dpi=120)
