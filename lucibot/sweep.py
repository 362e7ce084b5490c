"""Many runs, over tasks, seeds and configs, kept as one list of results.

A sweep can be stopped and started again: what its list holds is skipped, a run that was begun is
resumed, and a stage that an earlier run has made from the same input is taken over.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lucibot.config import PRESETS, RunConfig
from lucibot.core.errors import LuciBotError, UserError
from lucibot.core.stopping import goes_on
from lucibot.estimate import estimate
from lucibot.options import add_shorthands, preset, with_settings
from lucibot.pipeline import STAGES, run_stages
from lucibot.preflight import settled_run
from lucibot.record import start_run
from lucibot.settings import Parser
from lucibot.store.configs import from_dict, settled
from lucibot.store.lock import InUse, locked
from lucibot.store.result import Result, read_result, short_of_one
from lucibot.store.run import RunDirectory
from lucibot.task import Task, find_task, load_task

Row = dict[str, Any]
"""One run's result: task, seed, method, task_digest, success, score, rollouts, loss, seconds,
own_seconds (without those of stages that were taken over), stages, metrics and run (its directory), or
error instead of the last ones."""


NO_MATTER = ("optimize.cluster", "optimize.workers", "services.")
"""How settings begin that say where runs are made and what they may cost, and tell none apart."""
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

    A row of a task that has been changed since is made anew. Several sweeps may share `out` and
    `results`: each leaves to the others what they are at.

    Neighbouring points of one task whose searches have the same shape share one simulation.

    Args:
        out: where run directories are made.
        results: the list, a JSON file; written after each run.
        measured: more entries of a row, from its run directory.

    Raises:
        UserError: there is no such task, two task folders have one name, or `results` is no list of
            results. A run that fails, by
            its video or by what its task's files say too, becomes a row with an `error`; the next
            sweep tries it again.
    """
    points = list(points)
    ensure_apart(p.task for p in points)
    tasks = {name: _loaded(name) for name in dict.fromkeys(p.task for p in points)}
    points = [
        p if isinstance(t := tasks[p.task], LuciBotError)
        else dataclasses.replace(p, config=settled_run(t, p.config))
        for p in points
    ]  # fmt: skip
    left = [p for p in points if not _done(p, tasks[p.task], results)]
    say(announcement(left, read(results)))
    paid = [
        e.usd for p in left if not isinstance(t := tasks[p.task], LuciBotError)
        and (e := estimate(t, p.config, seed=p.seed)).pays
    ]  # fmt: skip
    if paid:
        more = " and what has no known price" if None in paid else ""
        say(f"{len(paid)} of them pay: in all at most {sum(u or 0 for u in paid):.2f} USD{more}; "
            "`lucibot run TASK ... --dry-run` says for what, and --max-usd is the cap of each")  # fmt: skip
    for (name, _), group in groupby(left, key=lambda p: (p.task, _shape(p.config))):
        task = tasks[name]
        with ExitStack() as simulations:
            ahead: dict[str, Any] = {}
            for point in group:
                if isinstance(task, LuciBotError):
                    _add(results, failed(point, task), say)
                    continue
                if _done(point, task, results):
                    continue  # By another sweep, meanwhile.
                try:
                    if not ahead:
                        ahead = {
                            s.name: simulations.enter_context(s.begin(task, point.config))
                            for s in STAGES if s.begins_early
                        }  # fmt: skip
                    row = _run(task, point, out, results, ahead, measured)
                except InUse as e:
                    say(f"{point.key[0]:<14} seed {point.seed} {point.method:<11} left alone: {e}")
                    continue
                except Exception as e:
                    # What failed may have taken a simulation with it.
                    simulations.close()
                    ahead = {}
                    row = failed(point, e, task)
                _add(results, row, say)
    return read(results)


def ensure_apart(tasks: Iterable[str]) -> None:
    """
    Raises:
        UserError: two task folders have one name, by which results are told apart, or there is no such
            task.
    """
    known: dict[str, Path] = {}
    for task in tasks:
        folder = find_task(task)
        if (other := known.setdefault(Path(task).name, folder)) != folder:
            raise UserError(f"{other} and {folder} have one name; rename one, or run them apart")


def _loaded(name: str) -> Task | LuciBotError:
    """A task, or what is wrong with it: it fails its own runs and not the others'.

    Raises:
        UserError: there is no such task, which is said at once.
    """
    folder = find_task(name)
    try:
        return load_task(folder)
    except LuciBotError as e:
        return e


def _done(point: Point, task: Task | LuciBotError, results: Path) -> bool:
    """Whether the list holds the point's run, of the task as it is now."""
    if isinstance(task, LuciBotError):
        return False
    digest = task.digest[:DIGEST_LETTERS]
    return any(
        key(r) == point.key and r["task_digest"] == digest and "error" not in r
        for r in read(results)
    )


def failed(point: Point, e: Exception, task: Task | None = None) -> Row:
    """The row of a run that failed; a fault is told by its type and place."""
    said = str(e).strip().splitlines()[:1] or [""]
    if not isinstance(e, LuciBotError):
        last = traceback.extract_tb(e.__traceback__)[-1]
        said = [f"{type(e).__name__}: {said[0]} ({Path(last.filename).name}:{last.lineno})"]
    name, seed, method = point.key
    return {
        "task": name, "seed": seed, "method": method,
        "task_digest": task.digest[:DIGEST_LETTERS] if task is not None else "",
        "success": False, "score": 0.0, "rollouts": 0, "error": said[0][:300],
    }  # fmt: skip


def _add(results: Path, row: Row, say: Callable[[str], None]) -> None:
    """Put a row into the list, as others may have left it."""
    with _list_locked(results):
        write(results, [*(r for r in read(results) if key(r) != key(row)), row])
    say(line(row))


def _list_locked(results: Path) -> AbstractContextManager:
    results.parent.mkdir(parents=True, exist_ok=True)
    return locked(results.with_suffix(".lock"), str(results), wait=True)


def _shape(config: RunConfig) -> tuple:
    """What a simulation that is begun early depends on, besides the task."""
    o, film = config.optimize, config.execute.film_width
    return (o.search.population, o.environments, o.workers, o.device, o.cluster, film)


def _run(task: Task, point: Point, out: Path, results: Path, ahead: dict, measured) -> Row:
    with ExitStack() as held:
        with _list_locked(results):
            # Nobody else begins this point between the look and the lock.
            run = begun(task, point, out)
            run = run or start_run(task, point.config, seed=point.seed, out=out)
            held.enter_context(run.locked())
        run_stages(run, task, point.config, seed=point.seed, ahead=ahead, take_over=True)
    result = read_result(run.path)
    name, seed, method = point.key
    return {
        "task": name, "seed": seed, "method": method,
        "task_digest": task.digest[:DIGEST_LETTERS],
        "success": result.success, "score": _shortened(result),
        "rollouts": result.rollouts, "loss": result.loss and round(result.loss, 5),
        "seconds": round(result.own_seconds + result.taken_over_seconds, 1),
        "own_seconds": round(result.own_seconds, 1),
        "stages": {n: round(s, 1) for n, s in result.seconds.items()},
        "metrics": {n: round(v, 5) for n, v in result.metrics.items()},
        "run": run.path.relative_to(out).as_posix(), **measured(run.path, task, point),
    }  # fmt: skip


def _shortened(result: Result) -> float:
    """The score with four digits; a failure's is never rounded up to 1."""
    return round(result.score, 4) if result.success else float(short_of_one(result.score, least=4))


def begun(task: Task, point: Point, out: Path) -> RunDirectory | None:
    """The newest run directory of this very point, whatever it was to cost or where it was to compute."""
    wanted = (task.digest, point.seed, deciding(point.config))
    for path in sorted(out.glob(f"{task.name}/*/run.json"), reverse=True):
        try:
            record = RunDirectory(path.parent).record
            config = deciding(from_dict(RunConfig, record["config"]))
        except (UserError, KeyError, TypeError, ValueError, AttributeError):
            continue  # Damaged, or another version's: it cannot be told which run that was.
        if (record.get("task_digest"), record["seed"], config) == wanted:
            return RunDirectory(path.parent)
    return None


def deciding(config: RunConfig) -> dict[str, Any]:
    """Stage -> what decides its result, of a config."""
    return {
        s.name: settled(getattr(config, s.config), str, defaults=True) for s in STAGES if s.config
    }


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
            r.get("own_seconds", r["seconds"]) for r in rows
            if (r["task"], r["method"]) == (p.key[0], p.method) and "seconds" in r
        ]  # fmt: skip
        total += float(np.mean(took)) if took else UNKNOWN_S
    return f"{len(points)} runs to go: about {total / 60:.0f} min"


def line(row: Row) -> str:
    who = f"{row['task']:<14} seed {row['seed']} {row['method']:<11}"
    if "error" in row:
        return f"{who} failed: {row['error']}"
    outcome = "success" if row["success"] else "no success"
    score = f"{row['score']:.2f}" if row["success"] else short_of_one(row["score"])
    took = f"{row['rollouts']:4d} rollouts  {row['seconds']:6.1f} s"
    return f"{who} {outcome:<10} score {score}  {took}"


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
        median = {
            n: float(np.median([r[n] for r in mine if n in r] or [0.0]))
            for n in ("rollouts", "seconds")
        }
        lines.append(
            f"| {task} | {method} | {sum(r['success'] for r in mine)}/{len(mine)} | "
            f"{np.mean([r['score'] for r in mine]):.2f} | {median['rollouts']:.0f} | "
            f"{median['seconds'] / 60:.1f} |"
        )
    return "\n".join(lines)


def command(argv: list[str]) -> int:
    """`lucibot sweep`; exit status 1 if a run failed.

    Raises:
        UserError: no such task or preset, or seeds that are none.
    """
    p = Parser(
        "lucibot sweep", "TASK... [--SETTING VALUE ...]",
        "Run tasks over seeds and presets; stopped, it goes on where it was. Any setting of `lucibot "
        "run` holds for every run; the list tells them apart.",
    )  # fmt: skip
    p.add_argument("tasks", nargs="+", metavar="TASK", help="shipped tasks or task folders")
    p.add_argument("--seeds", metavar="SEEDS", help="e.g. 0-4 or 1,3 (default: 0-4)")
    p.add_argument("--presets", metavar="NAMES", help="e.g. quick,paper (default: quick)")
    p.add_argument("--out", type=Path, metavar="DIR",
                   help="run directories and results.json (default: runs/sweep)")  # fmt: skip
    add_shorthands(p, spender="each run")
    p.add_settings(RunConfig, PRESETS["quick"])
    a, given = p.parse(argv)
    named = " ".join(f"--{n} {v}" for n, v in given.items() if not n.startswith(NO_MATTER))
    configs = {
        f"{name} {named}".strip(): with_settings(preset(name), given)
        for name in a.get("presets", "quick").split(",")
    }
    points = [
        Point(task=t, seed=s, method=method, config=config)
        for t in a["tasks"] for method, config in configs.items()
        for s in seeds(a.get("seeds", "0-4"))
    ]  # fmt: skip
    out = a.get("out", Path("runs/sweep"))
    if (at := next((q for q in (out, *out.parents) if q.is_file()), None)) is not None:
        raise UserError(f"--out {out}: {at} is a file; choose a folder")
    with goes_on("the same command goes on where it was"):
        rows = sweep(points, out=out, results=out / "results.json")
    print("\n" + table(rows))
    wrong = [r for r in rows if "error" in r]
    if wrong:
        print(f"{len(wrong)} runs failed; the same command tries them again:", file=sys.stderr)
        for row in wrong:
            print(f"  {line(row)}", file=sys.stderr)
    return 1 if wrong else 0
