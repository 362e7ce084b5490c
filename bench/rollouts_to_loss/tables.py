"""The measurement's tables in Markdown, from its results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucibot.sweep import Row, key

Runs = dict[tuple[str, int, str], Row]
"""Finished runs by task, seed and setting."""
PAPER = "paper"


def table(rows: list[Row], order: Sequence[str], settings: Sequence[str]) -> str:
    """A line for each task and each of `settings`.

    Of a seed every rollout takes the same simulation steps, whatever the setting.
    """
    lines = [
        "| task | setting | seeds | reach the mark | rollouts to it: median (least to most) "
        "| of the paper's steps: median | lowest loss over the mark: median | solved |",
        "|" + " --- |" * 8,
    ]
    by = finished(rows)
    for task in sorted({t for t, _, _ in by}):
        for setting in (s for s in order if s in settings):
            seeds = [k for k in seeds_of(by, task, setting) if (task, k, PAPER) in by]
            if not seeds:
                continue
            needed, papers = needs(by, task, setting, seeds), needs(by, task, PAPER, seeds)
            share = np.median(needed / papers)
            ratio = np.array([
                by[task, k, setting]["trace"][-1][1] / mark(by, task, k) for k in seeds
            ])  # fmt: skip
            cells = [
                task, setting, len(seeds), np.isfinite(needed).sum(), spread(needed),
                f"{share:.1%}" if np.isfinite(share) else "never",
                f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})",
                sum(by[task, k, setting]["success"] for k in seeds),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def settings_tables(
    rows: list[Row], order: Sequence[str], main: Sequence[str], base: str, budget: int
) -> str:
    """A table for each task on which more than the `main` settings were run, over the seeds that all
    of its settings have."""
    by, out = finished(rows), []
    for task in sorted({t for t, _, _ in by}):
        used = [s for s in order if seeds_of(by, task, s)]
        seeds = sorted(set.intersection(*(set(seeds_of(by, task, s)) for s in used)))
        if set(used) <= set(main) or not seeds:
            continue
        out += [
            f"| {task}, seeds {', '.join(map(str, seeds))} | reach the mark | rollouts to it "
            f"| lowest loss of {budget} rollouts over that of `{base}`, 90% interval | solved |",
            "|" + " --- |" * 5,
        ]
        for setting in used:
            needed = needs(by, task, setting, seeds)
            logs = [
                np.log(
                    lowest(by[task, k, setting]["trace"], budget)
                    / lowest(by[task, k, base]["trace"], budget)
                )
                for k in seeds
            ]
            cells = [
                setting, np.isfinite(needed).sum(), spread(needed),
                "" if setting == base else mean_interval(logs),
                sum(by[task, k, setting]["success"] for k in seeds),
            ]  # fmt: skip
            out.append(f"| {' | '.join(map(str, cells))} |")
        out.append("")
    return "\n".join(out)


def finished(rows: list[Row]) -> Runs:
    return {key(r): r for r in rows if "trace" in r}


def seeds_of(by: Runs, task: str, setting: str) -> list[int]:
    return sorted(k for t, k, s in by if (t, s) == (task, setting))


def mark(by: Runs, task: str, seed: int) -> float:
    """The paper's final loss."""
    return by[task, seed, PAPER]["trace"][-1][1]


def needs(by: Runs, task: str, setting: str, seeds: Sequence[int]) -> np.ndarray:
    """Rollouts until the mark is reached, for each seed; inf where it never is."""
    return np.array([
        next((n for n, loss in by[task, k, setting]["trace"] if loss <= mark(by, task, k)), np.inf)
        for k in seeds
    ])  # fmt: skip


def lowest(trace: list[list[float]], rollouts: int) -> float:
    """The lowest loss of the first so many rollouts."""
    return min(loss for k, loss in trace if k <= rollouts)


def mean_interval(logs: Sequence[float], draws: int = 4000) -> str:
    """Geometric mean and 90% interval (bootstrap over the seeds) of ratios given by their
    logarithms."""
    each = np.random.default_rng(0).choice(logs, (draws, len(logs))).mean(1)
    low, high = np.exp(np.quantile(each, (0.05, 0.95)))
    return f"{np.exp(np.mean(logs)):.2f} ({low:.2f} to {high:.2f})"


def spread(needed: np.ndarray) -> str:
    """Median (least to most)."""

    def word(k: float) -> str:
        return f"{k:.0f}" if np.isfinite(k) else "never"

    middle = np.sort(needed)[(len(needed) - 1) // 2 : len(needed) // 2 + 1]
    return f"{word(middle[-1])} ({word(needed.min())} to {word(needed.max())})"
