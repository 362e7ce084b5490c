"""Figures 5, 6 and 7: last frames of every method side by side, and what becomes of a ranking by a judge that
errs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from lucibot.paper.cells import Key, Run
from lucibot.paper.methods import TASKS, Method

WIDTH, HEAD, SIDE = 240, 24, 70
"""Of a picture, of the row of titles, and of the column of tasks [pixels]."""
ERRORS = (0.0, 0.1, 0.2, 0.3)
"""Figure 6: shares of wrong answers."""
SAMPLES, BATCH = 640, 128
"""Of a search in the paper's protocol, and its first generation."""


def best(runs: Mapping[Key, Run], task: str, method: str) -> Run | None:
    """The run that is shown, as the paper shows the best of several trials: by the state, then by the loss."""
    mine = [r for (t, _, m), r in sorted(runs.items()) if (t, m) == (task, method)]
    return max(
        mine, default=None,
        key=lambda r: (r.scores.get("state", 0.0), -(r.row["loss"] if r.row.get("loss") is not None else 1e9)),
    )  # fmt: skip


def last_frames(
    runs: Mapping[Key, Run], methods: Sequence[Method], tasks: Sequence[str],
    frame_of: Mapping[Key, np.ndarray], path: Path,
) -> None:  # fmt: skip
    """A row a task, a column a method; grey where nothing was run.

    Args:
        frame_of: last frames (H, W, 3) uint8 RGB of the runs that are shown.
    """
    rows = [_titles([m.title for m in methods])]
    for t in tasks:
        cells = []
        for m in methods:
            run = best(runs, t, m.name)
            cells.append(_tile(
                None if run is None else frame_of[run.key],
                "cannot" if t in m.leaves_out else "not run",
                "" if run is None else f"seed {run.key[1]}, {'done' if run.row['success'] else 'not done'}",
            ))  # fmt: skip
        rows.append(np.concatenate([_side(TASKS.get(t, t), cells[0].shape[0]), *cells], axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.concatenate(rows)[..., ::-1]
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 88])


def _tile(frame: np.ndarray | None, why: str, words: str) -> np.ndarray:
    h = WIDTH * 3 // 4
    tile = np.full((h, WIDTH, 3), 225, np.uint8)
    if frame is None:
        return _written(tile, why, (WIDTH // 2 - 4 * len(why), h // 2), 120)
    scale = min(WIDTH / frame.shape[1], h / frame.shape[0])
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    y, x = (h - size[1]) // 2, (WIDTH - size[0]) // 2
    tile[y : y + size[1], x : x + size[0]] = small
    tile[-18:] = 245
    return _written(tile, words, (6, h - 5), 30)


def _titles(titles: Sequence[str]) -> np.ndarray:
    row = np.full((HEAD, SIDE + WIDTH * len(titles), 3), 255, np.uint8)
    for i, title in enumerate(titles):
        row = _written(row, title, (SIDE + i * WIDTH + 6, HEAD - 7), 20)
    return row


def _side(word: str, height: int) -> np.ndarray:
    return _written(np.full((height, SIDE, 3), 255, np.uint8), word, (6, height // 2), 20)


def _written(image: np.ndarray, text: str, at: tuple[int, int], grey: int) -> np.ndarray:
    return cv2.putText(np.ascontiguousarray(image), text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45,
                       (grey,) * 3, 1, cv2.LINE_AA)  # fmt: skip


def consistency(path: Path, *, seed: int = 0) -> dict[float, float]:
    """Figure 6: samples of hidden values, scored as they come by VLM-Pref's quicksort and binary search with a
    judge that errs. Returns, by share of wrong answers, the share of pairs that the final order has the
    wrong way round."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from lucibot.baselines.ranking import Ranking, kendall_distance

    figure, axes = plt.subplots(1, len(ERRORS), figsize=(3.1 * len(ERRORS), 3.0), sharey=True)
    wrong: dict[float, float] = {}
    for ax, rate in zip(axes, ERRORS, strict=True):
        rng = np.random.default_rng(seed)
        hidden = rng.uniform(size=SAMPLES)

        def better(a: int, b: int, rate=rate, hidden=hidden, rng=rng) -> bool:
            return bool((hidden[a] > hidden[b]) != (rng.uniform() < rate))

        ranking = Ranking(better=better)
        for begin in range(0, SAMPLES, BATCH):
            ranking.add(min(BATCH, SAMPLES - begin), rng)
        wrong[rate] = kendall_distance(ranking.order, hidden)
        place = np.empty(SAMPLES)
        place[ranking.order] = np.arange(SAMPLES)
        ax.scatter(np.argsort(np.argsort(hidden)), place, s=3, c=np.arange(SAMPLES), cmap="viridis")
        ax.set_title(f"{rate:.0%} wrong answers\n{wrong[rate]:.1%} of pairs wrong, {ranking.asked} asked",
                     fontsize=8)  # fmt: skip
        ax.set_xlabel("true place")
    axes[0].set_ylabel("place found (colour: when it came)")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return wrong
