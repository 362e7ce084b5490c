"""Tables 1 to 3 of the paper and the selection table, in its layout, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lucibot.paper.cells import Cell, Key, Run, rank_cells, score_cell
from lucibot.paper.methods import PREFERRED_ON, TASKS, Method


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def by_task(
    methods: Sequence[Method], tasks: Sequence[str], cell: Callable[[Method, str], Cell], *,
    averaged: bool = True,
) -> str:  # fmt: skip
    """A row a method, a column a task, and their mean where no cell is empty."""
    rows = []
    for m in methods:
        cells = {t: cell(m, t) for t in tasks}
        texts = ["/" if t in m.leaves_out else c.text() for t, c in cells.items()]
        means = [c.mean for t, c in cells.items()]
        whole = averaged and all(math.isfinite(v) for v in means)
        rows.append(
            [m.title, *texts, f"{np.mean(means):.2f}" if whole else "-" if m.leaves_out else ""]
        )
    return markdown(["", *(TASKS.get(t, t) for t in tasks), "Avg"], rows)


def table_1(
    runs: Mapping[Key, Run], methods: Sequence[Method], tasks: Sequence[str], judge: str
) -> str:
    """Average ranks, lower is better."""
    names = [m.name for m in methods]
    ranks = {t: rank_cells(runs, t, names, judge) for t in tasks}
    ranked = [sum(bool(c.values) for c in ranks[t].values()) for t in tasks]
    # A mean over ranks among other methods would say nothing.
    there = {m.name for m in methods if any(ranks[t][m.name].values for t in tasks)}
    alike = all(
        bool(ranks[t][m.name].values) == (m.name in there)
        for t in tasks for m in methods if t not in m.leaves_out
    )  # fmt: skip
    table = by_task(methods, tasks, lambda m, t: ranks[t][m.name], averaged=alike)
    return table + "\n" + "| methods ranked | " + " | ".join(str(n or "") for n in ranked) + " |  |"


def table_2(
    runs: Mapping[Key, Run], methods: Sequence[Method], tasks: Sequence[str], judge: str
) -> str:
    """Scores, higher is better; by state with how many seeds were solved."""
    return by_task(methods, tasks, lambda m, t: score_cell(_of(runs, t, m), judge))


def table_3(runs: Mapping[Key, Run], methods: Sequence[Method], judge: str) -> str:
    """Preferences against LuciBot: mean rank / score, on the two tasks."""
    two = [m for m in methods if m.name in ("vlm-pref", "full")]
    ranks = {t: rank_cells(runs, t, [m.name for m in two], judge) for t in PREFERRED_ON}

    def text(m: Method, t: str) -> str:
        rank, score = ranks[t][m.name], score_cell(_of(runs, t, m), judge)
        if not score.values:
            return ""
        return f"{f'{rank.mean:.1f}' if rank.values else '-'} / {score.text()}"

    return markdown(["", *(TASKS[t] for t in PREFERRED_ON)],
                    [[m.title, *(text(m, t) for t in PREFERRED_ON)] for m in two])  # fmt: skip


def table_4(rows: Sequence[Mapping], judge: str) -> str:
    """Selection: precision, recall and F1 of which videos are usable.

    Args:
        rows: each with `fault` ("" for a valid video) and `usable`.
    """
    head = ["", "videos", "precision", "recall", "F1"]
    if not rows:
        return markdown(head, [[judge, "", "", "", ""]])
    valid = sum(not r["fault"] for r in rows)
    taken = sum(bool(r["usable"]) for r in rows)
    hits = sum(bool(r["usable"]) and not r["fault"] for r in rows)
    precision, recall = hits / taken if taken else 0.0, hits / valid if valid else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return markdown(head, [[judge, str(len(rows)), *(f"{v:.2f}" for v in (precision, recall, f1))]])


def spent(runs: Mapping[Key, Run], methods: Sequence[Method], tasks: Sequence[str]) -> str:
    """Budgets: median rollouts and minutes of a run, over its seeds."""

    def text(m: Method, t: str) -> str:
        mine = [r.row for r in _of(runs, t, m)]
        minutes = [r["seconds"] / 60 for r in mine if "seconds" in r]
        if not mine:
            return "/" if t in m.leaves_out else ""
        took = f", {np.median(minutes):.1f} min" if minutes else ""
        return f"{np.median([r['rollouts'] for r in mine]):.0f}{took}"

    return markdown(["", *(TASKS.get(t, t) for t in tasks)],
                    [[m.title, *(text(m, t) for t in tasks)] for m in methods])  # fmt: skip


def behind(
    runs: Mapping[Key, Run], methods: Sequence[Method], tasks: Sequence[str], judge: str = "state"
) -> list[str]:
    """Where another method's mean score is above LuciBot's, on the seeds that both have."""
    out = []
    for t in tasks:
        ours = {s: r for (k, s, m), r in runs.items() if (k, m) == (t, "full")}
        for m in methods:
            theirs = {s: r for (k, s, n), r in runs.items() if (k, n) == (t, m.name)}
            both = [s for s in ours if s in theirs and m.name != "full"]
            a, b = ([q[s].scores.get(judge, math.nan) for s in both] for q in (ours, theirs))
            if both and np.mean(b) > np.mean(a):
                out.append(
                    f"{t}: {m.title} {np.mean(b):.3f}, Ours {np.mean(a):.3f}, over {len(both)} seeds"
                )
    return out


def _of(runs: Mapping[Key, Run], task: str, method: Method) -> list[Run]:
    return [r for (t, _, m), r in sorted(runs.items()) if (t, m) == (task, method.name)]
