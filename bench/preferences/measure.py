"""How consistent is a ranking by pairwise preferences, and of hundreds of rollouts? (paper, Figure 6)

A judge that knows every rollout's worth answers wrongly in a set share of its answers. The first batch is
sorted by quicksort, the others find their places by binary search, as the objective `vlm-pref` does it.
Measured as samples come in: how many pairs of the ranking the judge itself contradicts when it is asked
about them (`inconsistent`, which needs no truth and can be measured of any judge), how many are the
wrong way round (`wrong`), and what the rollout that is ranked best is really worth (`best`, its true
quantile).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from lucibot.baselines.ranking import Ranking, kendall_distance

RATES = (0.0, 0.05, 0.1, 0.2, 0.3)
FIRST = 128
"""Rollouts of the first batch: the paper's population."""
SIZES = (8, 16, 32, 64, 128, 192, 256, 384, 512, 640)
"""Samples at which the ranking is looked at; up to 128 they are those of the first batch."""


class NoisyJudge:
    """Errs independently in each pair, and says of a pair always the same."""

    def __init__(self, worth: np.ndarray, rate: float, rng: np.random.Generator):
        n = len(worth)
        errs = np.triu(rng.uniform(size=(n, n)) < rate, 1)
        self._says = (worth[:, None] > worth[None]) ^ (errs | errs.T)

    def better(self, a: int, b: int) -> bool:
        return bool(self._says[a, b])

    def contradicts(self, order: list[int]) -> float:
        """Share of a ranking's pairs, from the worst to the best, of which it says the opposite."""
        said = self._says[np.ix_(order, order)]
        n = len(order)
        return float(np.triu(said, 1).sum() / max(n * (n - 1) / 2, 1))


def measured(
    rate: float, seed: int, sizes: tuple[int, ...] = SIZES, first: int = FIRST
) -> list[dict]:
    """A row for each size, of one judge and one order in which rollouts come."""
    rng = np.random.default_rng([seed, round(1000 * rate)])
    worth, rows = rng.normal(size=max(sizes)), []
    judge = NoisyJudge(worth, rate, rng)
    for size in (s for s in sizes if s <= first):
        ranking = Ranking(better=judge.better)
        ranking.add(size, np.random.default_rng(seed))
        rows.append(row(ranking, judge, worth))
    for size in (s for s in sizes if s > first):
        ranking.add(size - len(ranking.scores), np.random.default_rng(seed))
        rows.append(row(ranking, judge, worth))
    return rows


def row(ranking: Ranking, judge: NoisyJudge, worth: np.ndarray) -> dict:
    """What there is to say of a ranking."""
    n, best = len(ranking.order), ranking.order[-1]
    return {
        "samples": n, "asked": ranking.asked, "inconsistent": judge.contradicts(ranking.order),
        "wrong": kendall_distance(ranking.order, worth[:n]), "best": float((worth[:n] <= worth[best]).mean()),
    }  # fmt: skip


def main(argv: list[str]) -> int:
    p = argparse.ArgumentParser(
        prog="lucibot bench preferences", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--seeds", type=int, default=20, help="judges of each error rate (default: 20)")
    p.add_argument("--picture", type=Path, metavar="FILE", help="draw the figure into this PNG")
    p.add_argument("--json", action="store_true", help="print all rows as JSON")
    options = p.parse_args(argv)
    found = {
        rate: [measured(rate, seed) for seed in range(max(options.seeds, 1))] for rate in RATES
    }
    means = {
        rate: [{n: float(np.mean([s[i][n] for s in seeds])) for n in seeds[0][i]}
               for i in range(len(SIZES))]
        for rate, seeds in found.items()
    }  # fmt: skip
    if options.json:
        print(json.dumps({str(r): rows for r, rows in means.items()}, indent=1))
    else:
        for line in table(means):
            print(line)
    if options.picture:
        draw(found, options.picture)
        print(f"figure: {options.picture}", file=sys.stderr)
    return 0


def table(means: dict[float, list[dict]]) -> list[str]:
    """In Markdown: a row for each error rate and size."""
    lines = ["| errors | samples | questions | inconsistent | wrong | quantile of the best |",
             "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for rate, rows in means.items():
        for r in rows:
            if int(r["samples"]) in (32, 128, 640):
                lines.append(
                    f"| {rate:.0%} | {r['samples']:.0f} | {r['asked']:.0f} | {r['inconsistent']:.1%} | "
                    f"{r['wrong']:.1%} | {r['best']:.3f} |"
                )
    return lines


def draw(found: dict[float, list[list[dict]]], path: Path) -> None:
    """The figure: inconsistency, and what is wrong, against the number of samples."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    told = (
        ("inconsistent", "pairs that the judge contradicts"),
        ("wrong", "pairs the wrong way round"),
        ("best", "true quantile of the best"),
    )
    for axis, (name, title) in zip(axes, told, strict=True):
        for rate, seeds in found.items():
            values = np.array([[r[name] for r in rows] for rows in seeds])
            low, mean, high = (
                np.quantile(values, 0.1, 0),
                values.mean(0),
                np.quantile(values, 0.9, 0),
            )
            (line,) = axis.plot(SIZES, mean, label=f"{rate:.0%}")
            axis.fill_between(SIZES, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
        axis.axvline(FIRST, color="0.6", linewidth=0.8, linestyle=":")
        axis.set(title=title, xlabel="samples", xlim=(0, max(SIZES)))
        axis.grid(alpha=0.2)
    axes[0].legend(title="judge's errors", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
