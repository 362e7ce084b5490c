"""The benchmark's tables in Markdown, from its results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SHORT = {
    "full": "solved",
    "no_parts": "without parts",
    "estimated": "estimated poses",
}


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


def perception_table(rows: list[dict]) -> str:
    """One line a task: how far what was read lies from what was drawn, median (worst) over seeds."""
    lines = [
        "| task | masks [IoU] | target at the goal [IoU] | position [mm] | rotation [deg] "
        "| contacts right | goal [frames] |",
        "|" + " --- |" * 7,
    ]
    full = [r for r in rows if r["method"] == "full" and r.get("perception")]
    for task in sorted({r["task"] for r in full}):
        read = [r["perception"] for r in full if r["task"] == task]
        cells = [
            spread([v for p in read for v in p["mask_iou"].values()], min, "{:.2f}"),
            spread([v for p in read for v in p["last_mask_iou"].values()], min, "{:.2f}"),
            spread([v for p in read for v in p["position_mm"].values()], max, "{:.1f}"),
            spread([v for p in read for v in p["rotation_deg"].values()], max, "{:.1f}"),
            spread([p["contact_accuracy"] for p in read if "contact_accuracy" in p], min, "{:.0%}"),
            spread([p["goal_frames"] for p in read if "goal_frames" in p],
                   lambda v: max(v, key=abs), "{:+.0f}"),
        ]  # fmt: skip
        lines.append("| " + " | ".join([task, *cells]) + " |")
    return "\n".join(lines) + "\n"


def spread(values: list[float], worst: Callable[[list[float]], float], form: str) -> str:
    """Median and worst; empty where there are none."""
    if not values:
        return ""
    return f"{form.format(np.median(values))} ({form.format(worst(values))})"
