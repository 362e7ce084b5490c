"""`lucibot compare`'s page: several runs side by side, in the manner of a run's report."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lucibot.report import art
from lucibot.report.data import Rollouts
from lucibot.report.page import write_page

NONE = "–"
"""Stands where a run has nothing."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One run, as far as it came. What is empty is left out, or shown as a dash in its column."""

    letter: str
    """What the page calls it."""
    run: str
    """Its directory's name."""
    title: str
    instruction: str
    outcome: str
    success: bool = False
    facts: dict[str, str] = field(default_factory=dict)
    first_frame: np.ndarray | None = None
    """(H, W, 3) uint8 RGB."""
    film: Path | None = None
    """mp4 of the replay."""
    chosen_video: Path | None = None
    rollouts: Rollouts | None = None
    loss: float | None = None
    terms: dict[str, float | None] = field(default_factory=dict)
    """Unweighted, of the best trajectory as it was replayed."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What the success predicates measured."""
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    """Everything that it was run with, by name."""


@dataclass(frozen=True, kw_only=True)
class Row:
    name: str
    cells: tuple[str, ...]
    """A run each."""
    best: int | None = None
    """Which of them is the least; None where that says nothing."""


def write_comparison(runs: list[Compared], out: Path) -> None:
    """Write the page to `out`, whole or not at all."""
    colours = {r.letter: art.css(art.PALETTE[i % len(art.PALETTE)]) for i, r in enumerate(runs)}
    searched = {
        r.letter: r.rollouts for r in runs if r.rollouts is not None and r.rollouts.any_finished
    }
    weights = [r.weights for r in searched.values()]
    alike = len({r.title for r in runs}) == 1 and all(w == weights[0] for w in weights)
    with tempfile.TemporaryDirectory(prefix="lucibot_compare_") as scratch:
        write_page(
            "compare.html.j2", Path(out), runs=runs, colours=colours,
            firsts=[r.first_frame is not None and art.jpeg(r.first_frame, 640) for r in runs],
            films=[r.film and art.mp4(r.film, Path(scratch)) for r in runs],
            videos=[r.chosen_video and art.mp4(r.chosen_video, Path(scratch)) for r in runs],
            loss_plot=art.losses_together(searched, colours) if searched else None,
            term_plots=art.terms_together(searched, colours) if searched else {},
            alike=alike, terms=_terms(runs, alike), weights=_weights(searched),
            metrics=_numbers([r.metrics for r in runs]), settings=differing(runs),
            seconds=_numbers([r.seconds for r in runs], "{:.1f}"),
        )  # fmt: skip


def differing(runs: list[Compared]) -> list[Row]:
    """The settings that are not the same in all runs."""
    names = dict.fromkeys(n for r in runs for n in r.settings)
    rows = (Row(name=n, cells=tuple(r.settings.get(n, NONE) for r in runs)) for n in names)
    return [row for row in rows if len(set(row.cells)) > 1]


def _terms(runs: list[Compared], alike: bool) -> list[Row]:
    """The loss, then each term; where they are of one scale the least is marked."""
    told = [({"loss": r.loss} if r.terms else {}) | r.terms for r in runs]
    return _numbers(told, best=alike)


def _numbers(runs: list[dict], form: str = "{:.4g}", best: bool = False) -> list[Row]:
    rows = []
    for name in dict.fromkeys(n for r in runs for n in r):
        values = [r.get(name) for r in runs]
        known = [v for v in values if v is not None]
        least = min(known, default=None) if best and len(set(known)) > 1 else None
        cells = tuple(NONE if v is None else form.format(v) for v in values)
        rows.append(
            Row(name=name, cells=cells, best=None if least is None else values.index(least))
        )
    return rows


def _weights(searched: dict[str, Rollouts]) -> dict[str, str]:
    """Term -> its weight; several where the runs differ in it."""
    found: dict[str, list[str]] = {}
    for r in searched.values():
        for name, weight in r.weights.items():
            found.setdefault(name, []).append(f"{weight:g}")
    return {n: ", ".join(dict.fromkeys(w)) for n, w in found.items()}
