"""Which loss terms see success? `lucibot bench terms RUN...`

Rolls out again what a run's search sampled, this time asking the success predicates, and prints for
each run whether its best rollout succeeds, whether the estimated poses and the drawn fit do without
any search, and which rollout the paper's terms alone would have chosen; then, over all runs, each
term's Spearman rank correlation with success (negative: a lower term goes with success).

For measurement only: a search that asked the predicates would optimize its own exam.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from lucibot.baselines.config import ObjectiveConfig
from lucibot.objective.success import judge
from lucibot.objective.supervision import Supervision
from lucibot.objective.weights import PAPER_WEIGHTS
from lucibot.optimize.clearance import Clearance
from lucibot.record import open_run
from lucibot.sim.evaluator import Evaluator
from lucibot.sim.grip import grasps
from lucibot.sim.scene import SimScene
from lucibot.store.configs import from_dict
from lucibot.store.finished import made_from, stage_folder
from lucibot.store.run import RunDirectory

ENVIRONMENTS = 16


def measure_run(run: RunDirectory, task, seed: int, scene: SimScene) -> dict[str, np.ndarray]:
    """Success and terms of every sampled rollout of one run; prints the run's line."""
    optimize = stage_folder(run, "optimize")
    supervision = Supervision.load(made_from(run, optimize, "perceive") / "supervision.npz")
    search = json.loads((optimize / "search.json").read_text())
    objective = from_dict(ObjectiveConfig, search["objective"])
    with np.load(optimize / "history.npz") as z:
        sampled = z["waypoints"].reshape(-1, *z["waypoints"].shape[2:])
    with np.load(optimize / "trajectory.npz") as z:
        estimate, start = z["estimate"], z["start"]
    clear = Clearance.of(task, grasps(task, supervision))
    lifted = clear.repaired(estimate, supervision.held)
    evaluator = Evaluator(scene, supervision, objective.in_workers())
    tried = np.concatenate([np.stack([lifted, start]), sampled])
    result, states = evaluator.evaluate_with_states(tried)
    success = np.array([judge(task, s).success for s in states])
    terms = {n: v[2:] for n, v in result.terms.items()}
    paper = PAPER_WEIGHTS.total(terms)
    best, best_paper = int(np.argmin(result.loss[2:])), int(np.nanargmin(paper))
    print(
        f"{task.name} seed {seed}: best {success[2:][best]:d}, estimated poses {success[0]:d}, "
        f"drawn fit {success[1]:d}, chosen by the paper's terms {success[2:][best_paper]:d}, "
        f"of {len(sampled)} sampled {success[2:].sum()} succeed, {result.failed[2:].sum()} diverge"
    )
    known = ~result.failed[2:]
    return {"success": success[2:][known], **{n: v[known] for n, v in terms.items()}}


def main(argv: list[str]) -> int:
    p = argparse.ArgumentParser(
        prog="lucibot bench terms", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    scenes: dict[str, SimScene] = {}
    by_task: dict[str, list[dict]] = {}
    for path in p.parse_args(argv).runs:
        run, task, _, seed = open_run(path)
        if task.digest not in scenes:
            scenes[task.digest] = SimScene(task, n_envs=ENVIRONMENTS)
        found = measure_run(run, task, seed, scenes[task.digest])
        by_task.setdefault(task.name, []).append(found)
    for name, found in by_task.items():
        correlate(name, found)
    return 0


def correlate(task: str, found: list[dict[str, np.ndarray]]) -> None:
    """Print each term's rank correlation with success over the rollouts of all runs."""
    success = np.concatenate([f["success"] for f in found]).astype(float)
    print(f"{task}: rank correlation with success over {len(success)} rollouts:")
    for name in [n for n in found[0] if n != "success"]:
        values = np.concatenate([f[name] for f in found])
        constant = np.ptp(values) == 0 or np.ptp(success) == 0
        rho = np.nan if constant else spearmanr(values, success).statistic
        print(f"  {name:<18} {rho:+.2f}")
