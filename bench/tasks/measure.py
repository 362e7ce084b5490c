"""Every task from its storyboard, several seeds, several ways to search: who succeeds?

    lucibot bench tasks [--tasks NAME,...] [--seeds 0-4] [--methods full,...] [--out DIR]

Writes one line a run into results.json and, made from it, table.md. It can be stopped and started
again: what results.json holds is skipped, what a run directory holds is not made again.

Methods:
  full        the quick preset
  estimated   no search: the poses that perception estimated, lifted out of static bodies
  drawn       no search: the same, fitted by drawing
  paper_terms the quick preset's search with the paper's loss terms only
  paper       the paper preset: its terms, 5 generations of 128, from the estimated poses
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from lucibot.config import PRESETS, RunConfig
from lucibot.core.errors import LuciBotError, UserError, unknown_name
from lucibot.objective.weights import PAPER_WEIGHTS
from lucibot.pipeline import STAGES, reconfigure, run_stages, start_run
from lucibot.store.run import RunDirectory
from lucibot.task import load_task, task_names

from .perception_errors import perception_errors
from .results_table import table

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
        "estimated": no_search(quick, prefit=None),
        "drawn": no_search(quick),
        "paper_terms": dataclasses.replace(
            quick, optimize=dataclasses.replace(quick.optimize, weights=PAPER_WEIGHTS)
        ),
        "paper": PRESETS["paper"],
    }


def main(argv: list[str]) -> int:
    arguments = parse(argv)
    known = methods()
    for m in arguments.methods:
        if m not in known:
            raise unknown_name("method", m, known)
    rows = read(arguments.results)
    wanted = [
        (t, s) for t in arguments.tasks or task_names() for s in arguments.seeds
        if any(find(rows, t, s, m) is None for m in arguments.methods)
    ]  # fmt: skip
    announce(wanted, arguments.methods, rows)
    for task_name in dict.fromkeys(t for t, _ in wanted):
        task = load_task(task_name)
        with ExitStack() as simulations:
            ahead: dict = {}
            for seed in [s for t, s in wanted if t == task_name]:
                # The full search last: its result is what the run directory then shows.
                for method in sorted(arguments.methods, key=lambda m: m == "full"):
                    if find(rows, task_name, seed, method) is None:
                        row = one(
                            task, seed, method, known[method], arguments.out, ahead, simulations
                        )
                        rows = [*read(arguments.results), row]
                        write(arguments.results, rows)
                        print(line(row), flush=True)
    (arguments.results.parent / "table.md").write_text(table(rows))
    return 0


def one(task, seed: int, method: str, config, out: Path, ahead: dict, simulations) -> dict:
    """One run; its stages up to `perceive` are shared by all methods of a task and seed."""
    for stage in STAGES:
        # One simulation serves all runs of a task that use the same number of environments.
        if stage.begins_early and method != "paper" and stage.name not in ahead:
            ahead[stage.name] = simulations.enter_context(stage.begin(task, config))
    existing = sorted(out.glob(f"{task.name}/*/run.json"))
    record = next(
        (p for p in reversed(existing)
         if (r := json.loads(p.read_text()))["seed"] == seed and r["task_digest"] == task.digest),
        None,
    )  # fmt: skip
    if record is not None:
        run = RunDirectory(record.parent)
        reconfigure(run, config)
    else:
        run = start_run(task, config, seed=seed, out=out)
    row = {"task": task.name, "seed": seed, "method": method, "task_digest": task.digest[:12]}
    begin = time.perf_counter()
    try:
        run_stages(run, task, config, seed=seed, ahead=None if method == "paper" else ahead)
    except UserError:
        raise
    except LuciBotError as e:
        return {**row, "success": False, "score": 0.0, "rollouts": 0, "error": str(e)[:200],
                "seconds": round(time.perf_counter() - begin, 1)}  # fmt: skip
    result = json.loads((run.path / "result.json").read_text())
    return {
        **row, "success": result["success"], "score": round(result["score"], 4),
        "rollouts": result["rollouts"], "loss": round(result["loss"], 5),
        "seconds": round(sum(result["seconds"].values()), 1),
        "stages": {n: round(s, 1) for n, s in result["seconds"].items()},
        "metrics": {n: round(v, 5) for n, v in result["metrics"].items()},
        **({"perception": perception_errors(run.path, task)} if method == "full" else {}),
    }  # fmt: skip


def parse(argv: list[str]) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="lucibot bench tasks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--tasks", type=lambda s: s.split(","), default=None, help="default: all")
    p.add_argument("--seeds", type=seeds, default=list(range(5)), help="e.g. 0-4 or 1,3")
    p.add_argument("--methods", type=lambda s: s.split(","), default=["full", "estimated"])
    p.add_argument("--out", type=Path, default=Path("runs/bench"), help="run directories")
    p.add_argument("--results", type=Path, default=RESULTS)
    return p.parse_args(argv)


def seeds(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def read(path: Path) -> list[dict]:
    return json.loads(path.read_text()) if path.is_file() else []


def write(path: Path, rows: list[dict]) -> None:
    order = sorted(rows, key=lambda r: (r["task"], list(methods()).index(r["method"]), r["seed"]))
    part = path.with_suffix(".part")
    part.write_text("[\n" + ",\n".join(json.dumps(r) for r in order) + "\n]\n")
    part.replace(path)


def find(rows: list[dict], task: str, seed: int, method: str) -> dict | None:
    wanted = {"task": task, "seed": seed, "method": method}
    return next((r for r in rows if all(r[k] == v for k, v in wanted.items())), None)


def announce(wanted: list, names: list[str], rows: list[dict]) -> None:
    """Say what it will cost, from what earlier runs took; 4 minutes where there are none."""
    total = 0.0
    for task, seed in wanted:
        for m in names:
            if find(rows, task, seed, m) is None:
                known = [
                    r["seconds"] for r in rows
                    if r["task"] == task and r["method"] == m and "seconds" in r
                ]  # fmt: skip
                total += (
                    sum(known) / len(known) if known else {"full": 240, "paper": 900}.get(m, 60)
                )
    print(
        f"{len(wanted)} tasks x seeds, {', '.join(names)}: about {total / 60:.0f} min", flush=True
    )


def line(row: dict) -> str:
    outcome = "success" if row["success"] else "no success"
    return (
        f"{row['task']:<14} seed {row['seed']} {row['method']:<11} {outcome:<10} "
        f"score {row['score']:.2f}  {row['rollouts']:4d} rollouts  {row['seconds']:6.1f} s"
        + (f"  {row['error']}" if "error" in row else "")
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
