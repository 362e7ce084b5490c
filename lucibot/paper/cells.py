"""From runs to the tables' cells."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lucibot import sweep
from lucibot.config import RunConfig
from lucibot.core.errors import UserError
from lucibot.evaluate.agreement import mean_interval
from lucibot.paper.methods import METHODS
from lucibot.store.configs import to_dict
from lucibot.task import Task

Key = tuple[str, int, str]
"""Task, seed, method."""
NO_MATTER = ("optimize.workers", "optimize.cluster", "optimize.environments", "services")
"""Settings that change nothing in a result."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished run of a table."""

    row: sweep.Row
    folder: Path
    other: tuple[str, ...] = ()
    """Settings in which it differs from the method as it is now: it was taken over."""
    scores: dict[str, float] = field(default_factory=dict)
    """By judge; higher is better."""

    @property
    def key(self) -> Key:
        return sweep.key(self.row)


def own(results: Path, out: Path, tasks: Mapping[str, Task]) -> dict[Key, Run]:
    """What this command has run, of the tasks as they are now."""
    return {
        sweep.key(r): Run(row=r, folder=out / r["run"]) for r in sweep.read(results)
        if _fits(r, tasks) and "run" in r
    }  # fmt: skip


def taken_over(
    folder: Path, tasks: Mapping[str, Task], configs: Mapping[tuple[str, str], RunConfig]
) -> tuple[dict[Key, Run], list[str]]:
    """Runs of another sweep whose methods have the same names, and what was left out.

    Args:
        folder: holds results.json, and the run directories themselves or in `runs`.
        configs: (task, method) -> its config as it is now, settled.

    Raises:
        UserError: there is no list of results.
    """
    results = folder / "results.json"
    if not results.is_file():
        raise UserError(f"--take-over {folder}: there is no results.json in it")
    found: dict[Key, Run] = {}
    left: dict[str, int] = {}
    for row in sweep.read(results):
        config = configs.get((row["task"], row["method"]))
        if config is None or "error" in row:
            continue
        places = [folder / p / row.get("run", "-") for p in ("", "runs")]
        run = next((p for p in places if (p / "run.json").is_file()), None)
        if not _fits(row, tasks):
            left["are of another task than it is now"] = (
                left.get("are of another task than it is now", 0) + 1
            )
        elif run is None:
            left["have no run directory"] = left.get("have no run directory", 0) + 1
        else:
            record = json.loads((run / "run.json").read_text())
            other = tuple(
                d for d in differing(record["config"], to_dict(config))
                if METHODS[row["method"]].searches or not d.startswith("optimize.search.")
            )  # fmt: skip
            found[sweep.key(row)] = Run(row=row, folder=run, other=other)
    return found, [f"{n} rows of {folder.name} {why}: left out" for why, n in left.items()]


def _fits(row: sweep.Row, tasks: Mapping[str, Task]) -> bool:
    task = tasks.get(row["task"])
    return (
        task is not None and "error" not in row
        and row["task_digest"] == task.digest[: sweep.DIGEST_LETTERS]
    )  # fmt: skip


def differing(before: Any, now: Any, path: str = "") -> list[str]:
    """Paths of the settings in which two configs, as JSON, differ."""
    # A family of one member, as it was before there were others, had no kind.
    if path in NO_MATTER or (path.endswith(".kind") and before is None):
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        names = dict.fromkeys((*before, *now))
        return [
            d for n in names
            for d in differing(before.get(n), now.get(n), f"{path}.{n}" if path else n)
        ]  # fmt: skip
    return [] if before == now else [path]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of a table; empty where nothing was run."""

    values: tuple[float, ...] = ()
    """One a seed."""
    solved: int | None = None
    other: bool = False
    """A run behind it was taken over from other settings."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.values)) if self.values else math.nan

    def text(self) -> str:
        if not self.values:
            return ""
        low, high = mean_interval(self.values)
        ends = [short(end, self.values) for end in (low, high)]
        spread = f" ({' to '.join(ends)})" if math.isfinite(low) else ""
        solved = "" if self.solved is None else f", {self.solved}/{len(self.values)}"
        mark = " †" if self.other else ""
        return f"{short(self.mean, self.values)}{spread}{solved}{mark}"


def short(mean: float, values: Sequence[float]) -> str:
    """Two digits; a mean below 1 of what is at most 1 is never rounded up to it."""
    text = f"{mean:.2f}"
    return "0.99" if text == "1.00" and mean < 1 <= max(values) <= 1 else text


def score_cell(runs: Sequence[Run], judge: str) -> Cell:
    """Scores of one method on one task."""
    known = [r for r in runs if math.isfinite(r.scores.get(judge, math.nan))]
    solved = sum(bool(r.row["success"]) for r in known) if judge == "state" and known else None
    return Cell(
        values=tuple(r.scores[judge] for r in known),
        solved=solved,
        other=any(r.other for r in known),
    )


def rank_cells(
    runs: Mapping[Key, Run], task: str, methods: Sequence[str], judge: str
) -> dict[str, Cell]:
    """Mean ranks of the methods of one task that have been run, over the seeds that all of them have; equals
    share the mean of their places. Empty with fewer than two."""
    from scipy.stats import rankdata

    mine = {
        (s, m): r for (t, s, m), r in runs.items()
        if t == task and m in methods and math.isfinite(r.scores.get(judge, math.nan))
    }  # fmt: skip
    there = [m for m in methods if any(k[1] == m for k in mine)]
    seeds = [s for s in sorted({k[0] for k in mine}) if all((s, m) in mine for m in there)]
    if len(there) < 2 or not seeds:
        return {m: Cell() for m in methods}
    ranks = {s: rankdata([-mine[s, m].scores[judge] for m in there]) for s in seeds}
    return {
        m: Cell(
            values=tuple(float(ranks[s][there.index(m)]) for s in seeds),
            other=any(mine[s, m].other for s in seeds),
        ) if m in there else Cell()
        for m in methods
    }  # fmt: skip
