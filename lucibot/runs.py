"""`lucibot runs`: which runs there are, and what became of them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from lucibot.core.errors import LuciBotError, UserError, unknown_name
from lucibot.pipeline import STAGES
from lucibot.settings import Parser
from lucibot.store.finished import stages_finished
from lucibot.store.result import read_result, short_of_one
from lucibot.store.run import RunDirectory

RECORD = "run.json"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One run directory."""

    path: Path
    task: str
    seed: int | None
    begun: float
    """Seconds since 1970."""
    outcome: str
    """success, no success, or the last stage that has finished."""
    score: float | None = None
    loss: float | None = None
    rollouts: int | None = None
    cost_usd: float | None = None
    minutes: float | None = None
    """Sum over its stages, in whichever run each was made."""


def listed(folder: Path) -> list[Listed]:
    """Every run directory at or below a folder, the oldest first. What cannot be read says so in its
    outcome.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}; runs are made in runs/, or where --out said")
    found = [_one(record.parent) for record in sorted(folder.rglob(RECORD))]
    return sorted(found, key=lambda r: (r.begun, str(r.path)))


def _one(path: Path) -> Listed:
    begun = (path / RECORD).stat().st_mtime
    try:
        run = RunDirectory.open(path)
        record = run.record
        told = {
            "path": path,
            "task": Path(record["task"]).name,
            "seed": record["seed"],
            "begun": begun,
        }
        done = stages_finished(run)
        if STAGES[-1].name not in done:
            return Listed(**told, outcome=f"after {done[-1]}" if done else "nothing finished")
        r = read_result(path)
    except (LuciBotError, KeyError, TypeError, ValueError, OSError) as e:
        return Listed(path=path, task=path.parent.name, seed=None, begun=begun,
                      outcome=f"cannot be read ({' '.join(str(e).split())[:60]})")  # fmt: skip
    return Listed(
        **told, outcome="success" if r.success else "no success", score=r.score, loss=r.loss,
        rollouts=r.rollouts, cost_usd=r.cost_usd, minutes=sum(r.seconds.values()) / 60,
    )  # fmt: skip


def command(argv: list[str]) -> int:
    """`lucibot runs`.

    Raises:
        UserError: no such folder, or an unknown order.
    """
    p = Parser("lucibot runs", "[DIR]", "List the runs below a folder, and what became of them.")
    p.add_argument("folder", nargs="?", type=Path, default=Path("runs"), metavar="DIR",
                   help="default: runs")  # fmt: skip
    p.add_argument("--task", metavar="NAME", help="runs of this task alone")
    p.add_argument("--json", action="store_true", help="one JSON object a line")
    a, _ = p.parse(argv)
    folder = a["folder"]
    rows = listed(folder)
    if "task" in a:
        if rows and a["task"] not in (names := {r.task for r in rows}):
            raise unknown_name("task", a["task"], sorted(names))
        rows = [r for r in rows if r.task == a["task"]]
    if a.get("json"):
        for r in rows:
            print(json.dumps({**vars(r), "path": str(r.path)}))
        return 0
    if not rows:
        print(f"no run in {folder}")
        return 0
    print(table(rows))
    return 0


def table(rows: list[Listed]) -> str:
    """The rows in columns, as text."""
    lines = [
        ("task", "seed", "begun", "outcome", "score", "loss", "rollouts", "USD", "minutes", "run")
    ]
    for r in rows:
        score = "" if r.score is None else "1" if r.outcome == "success" else short_of_one(r.score)
        lines.append((
            r.task, "" if r.seed is None else str(r.seed),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(r.begun)), r.outcome, score,
            "" if r.loss is None else f"{r.loss:.3f}", "" if r.rollouts is None else str(r.rollouts),
            f"{r.cost_usd:.2f}" if r.cost_usd else "",
            "" if r.minutes is None else f"{r.minutes:.1f}", str(r.path),
        ))  # fmt: skip
    widths = [max(len(line[c]) for line in lines) for c in range(len(lines[0]) - 1)]
    return "\n".join(
        "  ".join([*(v.ljust(w) for v, w in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )
