"""Would shorter or coarser rollouts do? `lucibot bench substeps_to_loss RUN... [--rollouts N]`

Rolls out again what finished runs' searches sampled, in full and with less simulated, and prints how
well the order by the full rollouts' loss is kept: Spearman's rank correlation, the share of the best
quarter that is in the better half (1: the worse half could have been stopped), and where the best one
comes out.

  stopped   looked at when a keyframe has been reached, as if the rollout ended there
  hasty     fewer steps to each waypoint, so that the hand moves faster
  unsettled fewer steps after the last waypoint
  coarse    larger MPM particles and grid cells

The simulated share is of steps; of coarse ones, of particles times steps.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from lucibot.objective.config import VideoObjective
from lucibot.objective.objective import Seen
from lucibot.objective.supervision import Supervision
from lucibot.record import open_run
from lucibot.sim.evaluator import Evaluator
from lucibot.sim.moment import Moment
from lucibot.sim.scene import SimScene
from lucibot.store.finished import made_from, stage_folder
from lucibot.task import Task

ENVIRONMENTS = 8
PACES, SETTLES, COARSER = (0.75, 0.5, 0.35), (0.5, 0.25), (1.25, 1.5)


def main(argv: list[str]) -> int:
    p = argparse.ArgumentParser(
        prog="lucibot bench substeps_to_loss", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    p.add_argument("--rollouts", type=int, default=48, help="evenly over the search (default: 48)")
    a = p.parse_args(argv)
    for path in a.runs:
        run, task, _, seed = open_run(path)
        optimize = stage_folder(run, "optimize")
        goal = Supervision.load(made_from(run, optimize, "perceive") / "supervision.npz")
        with np.load(optimize / "history.npz") as z:
            sampled = z["waypoints"].reshape(-1, *z["waypoints"].shape[2:])
        some = np.linspace(0, len(sampled) - 1, min(a.rollouts, len(sampled))).round().astype(int)
        print(f"{task.name} seed {seed}, {len(some)} rollouts: simulated share, rank correlation, "
              "best quarter in the better half, rank that the best one is given")  # fmt: skip
        measure_run(task, goal, sampled[some])
    return 0


def measure_run(task: Task, goal: Supervision, waypoints: np.ndarray) -> None:
    """Prints one line for each way to simulate less."""
    scene = SimScene(task, n_envs=ENVIRONMENTS)
    sim, K = task.spec.simulation, waypoints.shape[1]
    steps = K * sim.steps_per_waypoint + sim.settle_steps
    looks = LookingEvaluator(scene, goal, VideoObjective())
    full = looks.evaluate(waypoints).loss
    for k, losses in enumerate(np.concatenate(looks.losses, axis=1)[:, : len(waypoints)]):
        report(
            f"stopped at keyframe {k + 1}", (k + 1) * sim.steps_per_waypoint / steps, full, losses
        )
    for pace, settle in [*((p, p) for p in PACES), *((1.0, s) for s in SETTLES)]:
        n = max(2, round(sim.steps_per_waypoint * pace))
        rest = round(sim.settle_steps * settle)
        scene.task = changed(task, steps_per_waypoint=n, settle_steps=rest)
        loss = Evaluator(scene, goal, VideoObjective()).evaluate(waypoints).loss
        name = f"hasty, {pace:g} of the steps" if pace < 1 else f"unsettled, {settle:g} of the rest"
        report(name, (K * n + rest) / steps, full, loss)
    if sim.mpm is None:
        return
    for factor in COARSER:
        coarse = SimScene(coarser(task, factor), n_envs=ENVIRONMENTS)
        share = count(coarse) / count(scene)
        loss = Evaluator(coarse, goal, VideoObjective()).evaluate(waypoints).loss
        report(f"coarse, {factor:g} times", share, full, loss)


def report(name: str, share: float, full: np.ndarray, loss: np.ndarray) -> None:
    place = np.argsort(np.argsort(loss, kind="stable"))
    best = np.argsort(full, kind="stable")
    kept = np.mean(place[best[: len(best) // 4]] < len(best) // 2)
    rho = spearmanr(full, loss).statistic
    print(f"  {name:<28} {share:5.2f}  {rho:+.2f}  {kept:.2f}  {place[best[0]] + 1:3d}", flush=True)


class LookingEvaluator(Evaluator):
    """Also keeps what the loss would be if the rollout ended at each keyframe: `losses`, (K, B) a
    batch."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.losses: list[np.ndarray] = []

    def _seen(self, keyframes: Moment, goal: Moment, end: Moment) -> Seen:
        seen, failed, found = super()._seen(keyframes, goal, end), False, []
        diverged = self.scene.diverged(keyframes).view(-1, self.scene.n_envs)
        for k in range(len(diverged)):
            failed = failed | diverged[k]
            here = keyframes.of(slice(k * self.scene.n_envs, (k + 1) * self.scene.n_envs))
            picture = self._observer.picture(here, "ended early", parts=True)
            terms = self._objective.score(replace(
                seen, overlap=seen.overlap[: k + 1], contact=seen.contact[: k + 1], goal=picture,
                settled=picture,
            ))  # fmt: skip
            weights = self._objective.weights.items()
            loss = sum(w * terms[n].nan_to_num(1.0) for n, w in weights)
            found.append(torch.where(failed, torch.inf, loss).cpu().numpy())
        self.losses.append(np.stack(found))
        return seen


def changed(task: Task, **simulation) -> Task:
    sim = task.spec.simulation.model_copy(update=simulation)
    return Task(task.folder, task.spec.model_copy(update={"simulation": sim}), task.instruction)


def coarser(task: Task, factor: float) -> Task:
    objects = [
        o if o.is_rigid else o.model_copy(update={"material": o.material.model_copy(
            update={"particle_size_m": o.material.particle_size_m * factor})})
        for o in task.objects
    ]  # fmt: skip
    mpm = task.spec.simulation.mpm
    mpm = mpm.model_copy(update={"grid_density": round(mpm.grid_density / factor)})
    spec = task.spec.model_copy(update={"objects": objects})
    return changed(Task(task.folder, spec, task.instruction), mpm=mpm)


def count(scene: SimScene) -> int:
    return sum(len(scene.particles(o.name)) for o in scene.particle_objects)
