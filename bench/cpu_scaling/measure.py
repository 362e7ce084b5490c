"""One generation of 16 rollouts on one worker process and on one a core: same bits, how much faster?"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from lucibot.benchmark import Bench
from lucibot.benchmark.harness import machine
from lucibot.benchmark.workload import candidates, supervision
from lucibot.objective.config import VideoObjective
from lucibot.sim.scene import SimScene
from lucibot.sim.sharding import Sharding
from lucibot.sim.workers import ShardedEvaluator
from lucibot.task import load_task

TASK, POPULATION = "cut_dough", 16


def measure(bench: Bench) -> None:
    if bench.device != "cpu":
        bench.skip("workers", "one process holds the whole population on a GPU")
        return
    cores = machine("cpu")["cores"]
    task = load_task(TASK)
    goal = supervision(SimScene(task, n_envs=1))
    waypoints = candidates(task, POPULATION)
    per_worker = -(-POPULATION // cores)
    with ExitStack() as stack:
        contestants, losses = {}, {}
        for name, workers in (("one_worker", 1), ("all_cores", cores)):
            sharding = Sharding(workers=workers, n_envs=per_worker)
            evaluator = stack.enter_context(ShardedEvaluator(task, sharding))
            evaluator.supervise(goal, VideoObjective())
            losses[name] = evaluator.evaluate(waypoints).loss
            contestants[name] = lambda e=evaluator: e.evaluate(waypoints)
        bench.value("same_bits", np.array_equal(*losses.values()), target="1")
        times = bench.race(contestants)
    bench.value("cores", cores)
    bench.ratio("speedup", times["one_worker"], times["all_cores"],
                target=f"at least {0.9 * cores:.1f}")  # fmt: skip
