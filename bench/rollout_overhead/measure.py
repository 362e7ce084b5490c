"""A whole evaluate() of a real task against its own scene.step() calls: what everything else costs.

Where our own kernels compute the particles, also against scene.step() of the same scene with
Genesis's, and how much faster ours are.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from lucibot.benchmark import Bench
from lucibot.benchmark.harness import Timing
from lucibot.benchmark.workload import KEYFRAMES, as_a_worker, candidates, supervision
from lucibot.objective.config import VideoObjective
from lucibot.sim.evaluator import Evaluator
from lucibot.sim.rollout import run_rollout
from lucibot.sim.scene import SimScene
from lucibot.task import load_task

TASKS = ("cut_dough", "scoop_sand", "pour_liquid", "stack_cups", "hammer_peg")
ENVIRONMENTS = {"cpu": 16, "cuda": 128}


def measure(bench: Bench) -> None:
    as_a_worker(bench.device)
    for name in TASKS:
        task = load_task(name)
        scene = SimScene(task, n_envs=ENVIRONMENTS[bench.device], device=bench.device)
        evaluator = Evaluator(scene, supervision(scene), VideoObjective())
        genesis = None
        if scene.own_kernels:
            genesis = SimScene(task, n_envs=scene.n_envs, device=bench.device, own_kernels=False)
        seconds: dict[str, list[float]] = {"evaluate": [], "steps": [], "genesis_steps": []}
        held = np.ones((KEYFRAMES, len(task.actuators)), bool)
        for round_ in range(bench.repeats + 1):
            # Steps are timed inside of the very same rollouts: another run of them would differ.
            waypoints = candidates(task, scene.n_envs, seed=round_)
            begin = time.perf_counter()
            taken = {"steps": _steps(bench, scene, evaluator.evaluate, waypoints)}
            taken["evaluate"] = time.perf_counter() - begin
            if genesis is not None:
                taken["genesis_steps"] = _steps(
                    bench, genesis, run_rollout, genesis, torch.from_numpy(waypoints), held
                )
            if round_:  # The first one warms up.
                for n, s in taken.items():
                    seconds[n].append(s)
        times = {n: Timing(rounds=tuple(s)) for n, s in seconds.items() if s}
        for n, t in times.items():
            bench.value(f"{name}.{n}", t.median, unit="s", low=min(t.rounds), high=max(t.rounds))
        bench.ratio(f"{name}.evaluate_over_steps", times["evaluate"], times["steps"],
                    target="at most 1.05")  # fmt: skip
        if genesis is not None:
            bench.ratio(f"{name}.evaluate_over_genesis_steps", times["evaluate"],
                        times["genesis_steps"], target="at most 1.05")  # fmt: skip
            bench.ratio(f"{name}.genesis_over_own_steps", times["genesis_steps"], times["steps"])
        if scene.particle_objects:
            sim = task.spec.simulation
            steps = KEYFRAMES * sim.steps_per_waypoint + sim.settle_steps
            count = sum(len(scene.particles(o.name)) for o in scene.particle_objects)
            bench.value(f"{name}.particle_substeps", unit="million a second",
                        value=count * scene.n_envs * steps * sim.substeps / 1e6
                        / times["steps"].median)  # fmt: skip


def _steps(bench: Bench, scene: SimScene, roll: Callable, *arguments) -> float:
    """Seconds that a scene's steps take within `roll(*arguments)`."""
    before, scene.timer.synchronize = scene.timer.seconds["physics"], bench.synchronize
    roll(*arguments)
    return scene.timer.seconds["physics"] - before
