"""The benchmark's table in Markdown, from its results."""

from __future__ import annotations

import numpy as np

SHORT = {"full": "solved", "estimated": "estimated poses", "drawn": "drawn fit",
         "paper_terms": "paper's terms", "paper": "paper preset"}  # fmt: skip


def table(rows: list[dict]) -> str:
    """One line a task: how many seeds each method solved, and what the full search took."""
    used = [m for m in SHORT if any(r["method"] == m for r in rows)]
    head = ["task", *[SHORT[m] for m in used], "mean score", "rollouts", "minutes"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for task in sorted({r["task"] for r in rows}):
        mine = {m: [r for r in rows if r["task"] == task and r["method"] == m] for m in used}
        full = mine.get("full", [])
        cells = [task, *[share(mine[m]) for m in used]]
        cells += [
            f"{np.mean([r['score'] for r in full]):.2f}" if full else "",
            f"{np.median([r['rollouts'] for r in full]):.0f}" if full else "",
            f"{np.median(timed) / 60:.1f}"
            if (timed := [r["seconds"] for r in full if "seconds" in r])
            else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def share(rows: list[dict]) -> str:
    return f"{sum(r['success'] for r in rows)}/{len(rows)}" if rows else ""
