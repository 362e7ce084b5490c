"""Generations of cut_dough: ours against Genesis, its camera, torch.cdist and evosax, plainly put
together; each in one process on one core, and ours on all cores beside that.

A few generations are run and scaled to the paper's 640 rollouts.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import torch

from lucibot.benchmark import Bench
from lucibot.benchmark.workload import candidates, supervision
from lucibot.objective.config import VideoObjective
from lucibot.objective.supervision import Supervision
from lucibot.optimize.strategies import EvosaxStrategy
from lucibot.sim.rollout import run_rollout
from lucibot.sim.scene import SimScene
from lucibot.sim.sharding import Sharding
from lucibot.sim.workers import ShardedEvaluator
from lucibot.task import load_task

TASK, ROLLOUTS = "cut_dough", 640
POPULATION = {"cpu": 16, "cuda": 128}
ROUNDS = 3


def measure(bench: Bench) -> None:
    task, population = load_task(TASK), POPULATION[bench.device]
    goal = supervision(SimScene(task, n_envs=1, device=bench.device))
    plain = Plain(task, goal, population, bench.device)
    waypoints = candidates(task, population)
    one, many = (Sharding.of(task, population, workers=n, device=bench.device) for n in (1, None))
    optimizer = EvosaxStrategy(waypoints[0].size, population, seed=0)

    def generation(evaluate) -> None:
        samples = optimizer.ask()
        optimizer.tell(samples, evaluate(waypoints))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # The workers have one, too.
    with ExitStack() as stack:
        ours, all_ours = (
            stack.enter_context(ShardedEvaluator(task, s, device=bench.device)) for s in (one, many)
        )
        for evaluator in (ours, all_ours):
            evaluator.supervise(goal, VideoObjective())
        times = bench.race({
            "ours_generation": lambda: generation(lambda w: ours.evaluate(w).loss),
            "plain_generation": lambda: generation(plain.evaluate),
            "ours_all_cores_generation": lambda: generation(lambda w: all_ours.evaluate(w).loss),
        }, repeats=ROUNDS)  # fmt: skip
    torch.set_num_threads(threads)
    bench.ratio("plain_over_ours", times["plain_generation"], times["ours_generation"],
                target="at least 3")  # fmt: skip
    target = "" if bench.device == "cpu" else "at most 15"
    for name, t in times.items():
        who = name.removesuffix("_generation")
        bench.value(f"{who}_{ROLLOUTS}_rollouts", t.median * ROLLOUTS / population, unit="s",
                    target=target if who == "ours" else "")  # fmt: skip


class Plain:
    """The paper's terms as one would write them first: Genesis's camera draws every environment in
    turn, distances are matrices. The scene and its control are ours, so that both do the same; Genesis's own
    kernels compute it."""

    def __init__(self, task, goal: Supervision, n_envs: int, device: str):
        self.goal, self.labels = goal, {o.name: task.label(o.name) for o in task.objects}
        self.scene = SimScene(
            task, n_envs=n_envs, device=device, camera=goal.camera, own_kernels=False
        )
        self.rays = torch.as_tensor(goal.camera.rays.reshape(-1, 3)).float()
        self.origin = torch.as_tensor(goal.camera.T_world_cam[:3, 3]).float()

    def evaluate(self, waypoints: np.ndarray) -> np.ndarray:
        """Losses (P,): mask IoU at each keyframe, both Chamfer distances at the last."""
        goal, n = self.goal, len(waypoints)
        loss = np.zeros(n)

        def at_keyframe(k: int) -> None:
            wanted = goal.actuator_masks[k, 0]
            for e in range(n):
                # Its camera sees environment 0: the others would cost the same.
                label, depth = self.scene.camera_labels()
                knife = label == self.labels[goal.actuators[0]]
                union = max(1, (knife | wanted).sum())
                loss[e] += (1 - (knife & wanted).sum() / union) / len(goal.keyframes)
                if k == len(goal.keyframes) - 1:
                    loss[e] += 10 * self.chamfer(label, depth, goal.actuators[0],
                                                 goal.actuator_clouds[0])  # fmt: skip
                    loss[e] += 10 * self.chamfer(label, depth, goal.targets[0], goal.target_cloud)

        run_rollout(self.scene, torch.from_numpy(waypoints), goal.held, on_keyframe=at_keyframe)
        return loss

    def chamfer(self, label, depth, name: str, wanted: np.ndarray) -> float:
        mask = torch.from_numpy((label == self.labels[name]).ravel())
        z = torch.from_numpy(np.asarray(depth, np.float32).ravel())[mask]
        seen = self.origin + self.rays[mask] * z[:, None]
        there = torch.from_numpy(wanted[np.isfinite(wanted).all(1)])
        if not len(seen) or not len(there):
            return 0.3
        d = torch.cdist(seen, there)
        return float(0.5 * (d.amin(0).mean() + d.amin(1).mean()))
