"""How many rollouts reach the paper's final loss? `lucibot bench rollouts_to_loss [--tasks ...]`

    lucibot bench rollouts_to_loss [--tasks NAME,...] [--seeds 0-7] [--settings NAME,...]

Every setting searches from the same drawn video of a task and seed. The mark to reach is the lowest
loss, by the paper's terms, that the paper's protocol has found at its end: CMA-ES, 5 generations of
128 full rollouts, from the estimated poses. A search may be led by other terms; its rollouts are
judged by the paper's.

Writes one entry a run into results.json and, made from it, table.md and settings.md; it can be stopped
and started again. `--settings list` prints what there is.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from lucibot import sweep
from lucibot.config import PRESETS, RunConfig
from lucibot.core.errors import unknown_name
from lucibot.objective.config import VideoObjective
from lucibot.objective.weights import PAPER_WEIGHTS
from lucibot.optimize.config import CEM, Evosax, Pycma
from lucibot.sweep import Point
from lucibot.task import Task, load_task, task_names

from .tables import settings_tables, table

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
QUICK = PRESETS["quick"]
EQUAL = {"generations": 6, "least_gain": 0.0}
"""All settings but the paper's: 96 rollouts at most, and until none is lower any more."""


def changed(*, weights=PAPER_WEIGHTS, **search) -> RunConfig:
    """`quick` led by the paper's terms, with other search settings."""
    optimize = replace(
        QUICK.optimize, search=replace(QUICK.optimize.search, **(EQUAL | search)),
        objective=VideoObjective(weights=weights),
    )  # fmt: skip
    return replace(QUICK, optimize=optimize)


MAIN = ("paper", "paper_terms", "quick")
"""The settings that are run on every task."""
BASE = "paper_terms"
"""The setting that others are compared with."""
BUDGET = QUICK.optimize.search.population * EQUAL["generations"]
"""Rollouts within which they are compared."""
SETTINGS: dict[str, RunConfig] = {
    "paper": PRESETS["paper"],
    "quick": changed(weights=QUICK.optimize.objective.weights),
    "paper_terms": changed(),
    "no_start": changed(include_start=False),
    "independent": changed(correlation=0.0),
    "paper_steps": changed(sigma_position_m=0.02, sigma_depth_m=None, sigma_rotation_deg=6.0),
    "even_depth": changed(sigma_depth_m=None),
    "wide": changed(sigma_position_m=0.008, sigma_rotation_deg=6.0),
    "narrow": changed(sigma_position_m=0.002, sigma_rotation_deg=1.5),
    "population_8": changed(population=8, generations=12, patience=6),
    "population_32": changed(population=32, generations=3, patience=0),
    "pycma": changed(optimizer=Pycma()),
    "sep_cma_es": changed(optimizer=Evosax(strategy="Sep_CMA_ES")),
    "cr_fm_nes": changed(optimizer=Evosax(strategy="CR_FM_NES")),
    "snes": changed(optimizer=Evosax(strategy="SNES")),
    "cem": changed(optimizer=CEM()),
}
"""`quick` is led by all terms, all others by the paper's. `paper_terms` is `quick` otherwise, and
each one below differs from it in what its name says."""


def main(argv: list[str]) -> int:
    a = parse(argv)
    if a.settings == ["list"]:
        print("\n".join(SETTINGS))
        return 0
    for s in a.settings:
        if s not in SETTINGS:
            raise unknown_name("setting", s, SETTINGS)
    tasks = a.tasks or [t for t in task_names() if load_task(t).is_searched]
    points = [
        Point(task=t, seed=seed, method=s, config=SETTINGS[s])
        for t in tasks for s in dict.fromkeys(["paper", *a.settings])
        for seed in sweep.seeds(a.seeds)
    ]  # fmt: skip
    rows = sweep.sweep(points, out=a.out, results=a.results, measured=trace)
    order = list(SETTINGS)
    for name, text in (
        ("table", table(rows, order, MAIN)),
        ("settings", settings_tables(rows, order, MAIN, BASE, BUDGET)),
    ):
        (a.results.parent / f"{name}.md").write_text(text)
        print("\n" + text)
    return 0


def trace(run: Path, task: Task, point: Point) -> sweep.Row:
    """The lowest loss by the paper's terms after each rollout, and that of the chosen rollout."""
    newest = max(run.glob("50_optimize/*/manifest.json"), key=lambda p: p.stat().st_mtime).parent
    with np.load(newest / "history.npz") as z:
        loss = PAPER_WEIGHTS.total(z).reshape(-1) + np.where(z["failed"].reshape(-1), np.inf, 0)
    chosen = json.loads((newest / "search.json").read_text())["terms"]
    best = np.minimum.accumulate(loss)
    # Each time that it falls: (rollouts so far, loss).
    falls = np.flatnonzero(np.diff(best, prepend=np.inf))
    return {
        "trace": [[int(k) + 1, round(float(best[k]), 5)] for k in falls],
        "paper_loss": round(float(PAPER_WEIGHTS.total(chosen)), 5),
    }


def parse(argv: list[str]) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="lucibot bench rollouts_to_loss", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--tasks", type=lambda s: s.split(","), help="default: all that are searched")
    p.add_argument("--seeds", default="0-7", help="e.g. 0-7 or 1,3")
    p.add_argument("--settings", type=lambda s: s.split(","), default=["quick", "paper_terms"])
    p.add_argument("--out", type=Path, default=Path("runs/rollouts_to_loss"))
    p.add_argument("--results", type=Path, default=RESULTS)
    return p.parse_args(argv)
