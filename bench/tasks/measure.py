"""Every task from its storyboard, several seeds, several ways to search: who succeeds?

    lucibot bench tasks [--tasks NAME,...] [--seeds 0-4] [--methods full,...] [--out DIR]

Writes one line a run into results.json and, made from it, table.md and perception.md (what was
read against what was drawn). It can be stopped and started again: what results.json holds is skipped,
what a run directory holds is not made again.

Methods:
  full        the quick preset
  estimated   no search: the poses that perception estimated, lifted out of static bodies
  no_parts    the quick preset without the terms of the target's parts, which look at the simulator's
              particles

What the paper's loss terms and its protocol find is measured by rollouts_to_loss.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from lucibot import sweep
from lucibot.config import PRESETS, RunConfig
from lucibot.core.errors import unknown_name
from lucibot.objective.weights import TERMS
from lucibot.sweep import Point
from lucibot.task import Task, task_names

from .perception_errors import perception_errors
from .results_table import perception_table, table

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"


def no_search(config, **changes):
    """The config with an optimize stage that replays what it starts from."""
    search = dataclasses.replace(config.optimize.search, generations=0)
    return dataclasses.replace(
        config, optimize=dataclasses.replace(config.optimize, search=search, **changes)
    )


def methods() -> dict[str, RunConfig]:
    quick = PRESETS["quick"]
    return {
        "full": quick,
        "estimated": no_search(quick),
        "no_parts": without_terms(quick, "part_"),
    }


def without_terms(config: RunConfig, prefix: str) -> RunConfig:
    """The config with no weight on the loss terms whose names begin so."""
    objective = config.optimize.objective
    weights = dataclasses.replace(
        objective.weights, **{t: 0.0 for t in TERMS if t.startswith(prefix)}
    )
    objective = dataclasses.replace(objective, weights=weights)
    return dataclasses.replace(
        config, optimize=dataclasses.replace(config.optimize, objective=objective)
    )


def main(argv: list[str]) -> int:
    arguments = parse(argv)
    known = methods()
    for m in arguments.methods:
        if m not in known:
            raise unknown_name("method", m, known)
    points = [
        Point(task=t, seed=s, method=m, config=known[m])
        for t in arguments.tasks or task_names() for s in sweep.seeds(arguments.seeds)
        for m in arguments.methods
    ]  # fmt: skip

    def measured(run: Path, task: Task, point: Point) -> sweep.Row:
        return {"perception": perception_errors(run, task)} if point.method == "full" else {}

    rows = sweep.sweep(
        points, out=arguments.out, results=arguments.results, measured=measured,
        say=lambda line: print(line, flush=True),
    )  # fmt: skip
    folder = arguments.results.parent
    (folder / "table.md").write_text(table(rows))
    (folder / "perception.md").write_text(perception_table(rows))
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="lucibot bench tasks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--tasks", type=lambda s: s.split(","), default=None, help="default: all")
    p.add_argument("--seeds", default="0-4", help="e.g. 0-4 or 1,3")
    p.add_argument(
        "--methods", type=lambda s: s.split(","), default=["full", "estimated", "no_parts"]
    )
    p.add_argument("--out", type=Path, default=Path("runs/bench"), help="run directories")
    p.add_argument("--results", type=Path, default=RESULTS)
    return p.parse_args(argv)
