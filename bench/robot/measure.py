"""Finished runs with an arm: who succeeds, how far off its trajectory, and what failures are put down to.

    lucibot bench robot RUN... [--arm franka|ur5e|FOLDER] [--folder DIR]

Each run goes on with `--robot`, so that it gets the stage `robot`; what is there already is not made again.
Writes results.json and table.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import lucibot
from lucibot.core.errors import LuciBotError
from lucibot.store.result import Result, read_result
from lucibot.store.run import RunDirectory

HERE = Path(__file__).parent


def main(argv: list[str]) -> int:
    p = argparse.ArgumentParser(
        prog="lucibot bench robot", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("runs", nargs="+", type=Path)
    p.add_argument("--arm", default="franka")
    p.add_argument(
        "--revision", default="", help="of the code that the arm was run with, for the table"
    )
    p.add_argument("--folder", type=Path, default=HERE, help="where results are written")
    a = p.parse_args(argv)
    a.folder.mkdir(parents=True, exist_ok=True)
    results = a.folder / "results.json"
    rows = json.loads(results.read_text()) if results.is_file() else []
    for run in a.runs:
        try:
            row = measured(run, a.arm) | {"revision": a.revision}
        except LuciBotError as e:
            print(f"{run}: {e}", flush=True)
            continue
        same = ("task", "seed", "arm")
        rows = [r for r in rows if any(r[k] != row[k] for k in same)] + [row]
        rows.sort(key=lambda r: tuple(r[k] for k in same))
        results.write_text(json.dumps(rows, indent=1))
        (a.folder / "table.md").write_text(table(rows))
        print(line(row), flush=True)
    return 0


def measured(run: Path, arm: str) -> dict[str, Any]:
    """A run's row, of the run as it is then."""
    lucibot.resume(RunDirectory.open(run), settings={"robot": arm})
    return row(read_result(run))


def row(r: Result) -> dict[str, Any]:
    t = r.robot["tracking"] or {}
    return {
        "task": r.task, "seed": r.seed, "arm": r.robot["arm"], "armless": r.success,
        "success": r.robot["success"], "failed_at": r.failed_at, "why": r.robot["why"],
        "missed": r.robot["missed"], "slower": r.robot.get("slower", []),
        **{n: t.get(n) for n in ("mean_mm", "most_mm", "mean_deg", "most_deg")},
        "seconds": r.robot["seconds"],
    }  # fmt: skip


COLUMNS = ("task", "seed", "arm", "without", "with the arm", "mean mm", "most mm", "mean deg", "most deg",
           "times as long", "put down to", "revision")  # fmt: skip


def line(r: dict[str, Any]) -> str:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    return "| " + " | ".join([
        r["task"], str(r["seed"]), r["arm"], *("yes" if r[n] else "no" for n in ("armless", "success")),
        *(number(r[n]) for n in ("mean_mm", "most_mm", "mean_deg", "most_deg")),
        ", ".join(number(s) for s in r["slower"]), r["failed_at"] or "", r["revision"],
    ]) + " |"  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    return "\n".join([*head, *map(line, rows)]) + "\n"
