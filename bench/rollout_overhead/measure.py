"""A whole evaluate() of a real task against its own scene.step() calls: what everything else costs."""

from __future__ import annotations

import statistics
import time

from lucibot.benchmark import Bench
from lucibot.benchmark.workload import candidates, supervision
from lucibot.objective.weights import FULL_WEIGHTS
from lucibot.sim.evaluator import Evaluator
from lucibot.sim.scene import SimScene
from lucibot.sim.stopwatch import Stopwatch, parts_of
from lucibot.task import load_task

TASKS = ("cut_dough", "scoop_sand", "stack_cups")
ENVIRONMENTS = {"cpu": 16, "cuda": 128}


def measure(bench: Bench) -> None:
    for name in TASKS:
        task = load_task(name)
        scene = SimScene(task, n_envs=ENVIRONMENTS[bench.device], device=bench.device)
        evaluator = Evaluator(scene, supervision(scene), FULL_WEIGHTS)
        evaluator.evaluate(candidates(task, scene.n_envs))
        ratios, whole = [], []
        for round_ in range(bench.repeats):
            # Steps are timed inside of the very same rollouts: another run of them would differ.
            watch = Stopwatch(bench.synchronize)
            waypoints = candidates(task, scene.n_envs, seed=round_)
            with watch.watch({"physics": parts_of(evaluator)["physics"]}):
                begin = time.perf_counter()
                evaluator.evaluate(waypoints)
                bench.synchronize()
                whole.append(time.perf_counter() - begin)
            ratios.append(whole[-1] / watch.seconds["physics"])
        bench.value(f"{name}.evaluate", statistics.median(whole), unit="s",
                    low=min(whole), high=max(whole))  # fmt: skip
        bench.value(f"{name}.evaluate_over_steps", statistics.median(ratios), unit="x",
                    low=min(ratios), high=max(ratios), target="at most 1.05")  # fmt: skip
