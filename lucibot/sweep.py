"""Many runs, over tasks, seeds and configs, kept as one list of results.

A sweep can be stopped and started again: what its list holds is skipped, a run that was begun is
resumed, and a stage that an earlier run has made from the same input is taken over.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lucibot.config import RunConfig
from lucibot.core.errors import LuciBotError, UserError
from lucibot.pipeline import STAGES, run_stages, start_run
from lucibot.store.configs import to_dict
from lucibot.store.run import RunDirectory
from lucibot.task import Task, load_task

Row = dict[str, Any]
"""One run's result: task, seed, method, task_digest, success, score, rollouts, loss, seconds,
stages, metrics and run (its directory), or error instead of the last ones."""


DIGEST_LETTERS = 12
"""Of a task's digest, in a row."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run to be made."""

    task: str
    """A shipped task's name or a task folder."""
    seed: int
    method: str
    """What the list calls the config: a preset's name, for instance. Two configs need two names."""
    config: RunConfig

    @property
    def key(self) -> tuple[str, int, str]:
        return Path(self.task).name, self.seed, self.method


def sweep(
    points: Iterable[Point],
    *,
    out: Path,
    results: Path,
    measured: Callable[[Path, Task, Point], Row] = lambda run, task, point: {},
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Make the runs that `results` does not hold yet, in order; returns all its rows.

    A row of a task that has been changed since is made anew.

    Neighbouring points of one task whose searches have the same shape share one simulation.

    Args:
        out: where run directories are made.
        results: the list, a JSON file; written after each run.
        measured: more entries of a row, from its run directory.

    Raises:
        UserError: bad input. A run that fails becomes a row with an `error`; it is tried again by
            the next sweep.
    """
    done = {(key(r), r["task_digest"]) for r in read(results) if "error" not in r}
    points = list(points)
    digests = {t: load_task(t).digest[:DIGEST_LETTERS] for t in {p.task: None for p in points}}
    left = [p for p in points if (p.key, digests[p.task]) not in done]
    say(announcement(left, read(results)))
    for (name, _), group in groupby(left, key=lambda p: (p.task, _shape(p.config))):
        task = load_task(name)
        with ExitStack() as simulations:
            ahead: dict[str, Any] = {}
            for point in group:
                if not ahead:
                    ahead = {
                        s.name: simulations.enter_context(s.begin(task, point.config))
                        for s in STAGES if s.begins_early
                    }  # fmt: skip
                row = _run(task, point, out, ahead, measured)
                if "error" in row:
                    # What failed may have taken a simulation with it.
                    simulations.close()
                    ahead = {}
                write(results, [*(r for r in read(results) if key(r) != key(row)), row])
                say(line(row))
    return read(results)


def _shape(config: RunConfig) -> tuple:
    """What a simulation that is begun early depends on, besides the task."""
    o = config.optimize
    return (o.search.population, o.environments, o.workers, o.device, o.cluster)


def _run(task: Task, point: Point, out: Path, ahead: dict, measured) -> Row:
    run = _begun(task, point, out) or start_run(task, point.config, seed=point.seed, out=out)
    row = dict(zip(("task", "seed", "method"), (task.name, *point.key[1:]), strict=True))
    row["task_digest"] = task.digest[:DIGEST_LETTERS]
    begin = time.perf_counter()
    try:
        run_stages(run, task, point.config, seed=point.seed, ahead=ahead, take_over=True)
    except UserError:
        raise
    except LuciBotError as e:
        seconds = round(time.perf_counter() - begin, 1)
        return {**row, "success": False, "score": 0.0, "rollouts": 0, "seconds": seconds,
                "error": str(e).splitlines()[0][:200]}  # fmt: skip
    result = json.loads((run.path / "result.json").read_text())
    return {
        **row, "success": result["success"], "score": round(result["score"], 4),
        "rollouts": result["rollouts"], "loss": round(result["loss"], 5),
        "seconds": round(sum(result["seconds"].values()), 1),
        "stages": {n: round(s, 1) for n, s in result["seconds"].items()},
        "metrics": {n: round(v, 5) for n, v in result["metrics"].items()},
        "run": run.path.relative_to(out).as_posix(), **measured(run.path, task, point),
    }  # fmt: skip


def _begun(task: Task, point: Point, out: Path) -> RunDirectory | None:
    """The newest run directory of this very point."""
    wanted = (task.digest, point.seed, to_dict(point.config))
    for path in sorted(out.glob(f"{task.name}/*/run.json"), reverse=True):
        record = json.loads(path.read_text())
        if (record["task_digest"], record["seed"], record["config"]) == wanted:
            return RunDirectory(path.parent)
    return None


def key(row: Row) -> tuple[str, int, str]:
    return row["task"], row["seed"], row["method"]


def read(results: Path) -> list[Row]:
    """The rows of a list; none where there is none.

    Raises:
        UserError: it is not a list of results.
    """
    if not results.is_file():
        return []
    try:
        rows = json.loads(results.read_text())
        [key(r) for r in rows]
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{results}: not a list of results ({e}); move it away") from None
    return rows


def write(results: Path, rows: Sequence[Row]) -> None:
    results.parent.mkdir(parents=True, exist_ok=True)
    part = results.with_suffix(".part")
    ordered = sorted(rows, key=lambda r: (r["task"], r["method"], r["seed"]))
    part.write_text("[\n" + ",\n".join(json.dumps(r) for r in ordered) + "\n]\n")
    part.replace(results)


UNKNOWN_S = 240.0
"""What a run is said to take where no earlier one tells."""


def announcement(points: Sequence[Point], rows: Sequence[Row]) -> str:
    """What is left to do, and what it will take, from what earlier runs took."""
    total = 0.0
    for p in points:
        took = [
            r["seconds"] for r in rows
            if (r["task"], r["method"]) == (p.key[0], p.method) and "seconds" in r
        ]  # fmt: skip
        total += float(np.mean(took)) if took else UNKNOWN_S
    return f"{len(points)} runs to go: about {total / 60:.0f} min"


def line(row: Row) -> str:
    outcome = "success" if row["success"] else "no success"
    return (
        f"{row['task']:<14} seed {row['seed']} {row['method']:<11} {outcome:<10} "
        f"score {row['score']:.2f}  {row['rollouts']:4d} rollouts  {row['seconds']:6.1f} s"
        + (f"  {row['error']}" if "error" in row else "")
    )


def seeds(text: str) -> list[int]:
    """The seeds of "0-4" or "1,3".

    Raises:
        UserError: it is neither.
    """
    found: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    except ValueError:
        found = []
    if not found:
        raise UserError(f"--seeds {text}: expected seeds such as 0-4 or 1,3")
    return found


def table(rows: Sequence[Row]) -> str:
    """Markdown: one line a task and method."""
    lines = ["| task | method | solved | mean score | rollouts | minutes |", "|" + " --- |" * 6]
    for task, method in dict.fromkeys((r["task"], r["method"]) for r in rows):
        mine = [r for r in rows if (r["task"], r["method"]) == (task, method)]
        median = {n: float(np.median([r[n] for r in mine])) for n in ("rollouts", "seconds")}
        lines.append(
            f"| {task} | {method} | {sum(r['success'] for r in mine)}/{len(mine)} | "
            f"{np.mean([r['score'] for r in mine]):.2f} | {median['rollouts']:.0f} | "
            f"{median['seconds'] / 60:.1f} |"
        )
    return "\n".join(lines)


def command(argv: list[str]) -> int:
    """`lucibot sweep`.

    Raises:
        UserError: no such task or preset, or seeds that are none.
    """
    import argparse

    import tyro

    from lucibot.config import PRESETS
    from lucibot.core.errors import unknown_name

    p = argparse.ArgumentParser(
        prog="lucibot sweep",
        description="Run tasks over seeds and presets; stopped, it goes on where it was.",
        epilog="Any setting of `lucibot run` may follow and holds for every run, for instance "
        "--optimize.search.population 64; the list tells them apart.",
    )
    p.add_argument("tasks", nargs="+", metavar="TASK", help="shipped tasks or task folders")
    p.add_argument("--seeds", default="0-4", help="e.g. 0-4 or 1,3 (default: 0-4)")
    p.add_argument("--presets", default="quick", help="e.g. quick,paper (default: quick)")
    p.add_argument("--out", type=Path, default=Path("runs/sweep"),
                   help="run directories and results.json (default: runs/sweep)")  # fmt: skip
    p.add_argument("--cluster", help='search on a Ray cluster: its address, or "auto"')
    a, settings = p.parse_known_args(argv)
    cluster = ["--optimize.cluster", a.cluster] if a.cluster is not None else []
    configs = {}
    for preset in a.presets.split(","):
        if preset not in PRESETS:
            raise unknown_name("preset", preset, PRESETS)
        configs[" ".join([preset, *settings])] = tyro.cli(
            RunConfig,
            args=settings + cluster,
            default=PRESETS[preset],
            prog="lucibot sweep TASK...",
        )
    for task in a.tasks:
        load_task(task)
    points = [
        Point(task=t, seed=s, method=method, config=config)
        for t in a.tasks for method, config in configs.items() for s in seeds(a.seeds)
    ]  # fmt: skip
    rows = sweep(points, out=a.out, results=a.out / "results.json")
    print("\n" + table(rows))
    failed = [r for r in rows if "error" in r]
    if failed:
        print(f"{len(failed)} runs failed; the same command tries them again", file=sys.stderr)
    return 1 if failed else 0
