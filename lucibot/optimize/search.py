"""The search (paper, section 3.4): generations of rollouts, a checkpoint after each.

The start itself is evaluated and kept as a candidate: a search whose lowest loss lies a hair above
the start's has lost something.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lucibot.core.errors import RunFailed
from lucibot.core.progress import Progress, silent
from lucibot.objective.evaluation import Evaluate, Evaluation
from lucibot.optimize.config import SearchConfig
from lucibot.optimize.parametrization import Parametrization

DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    waypoints: np.ndarray
    """(K, A, 6) of the rollout with the lowest loss."""
    loss: float
    terms: dict[str, float]
    seconds: dict[str, float]
    """Where the generations' time went, by part; of those that this process has run."""
    history: list[dict[str, np.ndarray]]
    """Per generation: "waypoints" (P, K, A, 6), "loss" (P,), "failed" (P,) and every term (P,)."""

    @property
    def rollouts(self) -> int:
        return sum(len(g["loss"]) for g in self.history)


def search(
    evaluate: Evaluate,
    parametrization: Parametrization,
    config: SearchConfig,
    *,
    seed: int,
    checkpoints: Path,
    repair: Callable[[np.ndarray], np.ndarray] = lambda waypoints: waypoints,
    progress: Progress = silent,
) -> SearchResult:
    """Minimise the loss; resumes at the generation after the last checkpoint in `checkpoints`.

    Args:
        repair: makes sampled waypoints (P, K, A, 6) possible before they are rolled out.

    Raises:
        RunFailed: every rollout of a generation diverged.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    optimizer = config.optimizer.create(parametrization.dimension, config.population, seed)
    history: list[dict[str, np.ndarray]] = []
    for g in range(config.generations):
        done = _load_checkpoint(checkpoints / f"generation_{g:03d}.npz")
        if done is None:
            break
        history.append(done["generation"])
        optimizer.restore(done["optimizer"])

    seconds: Counter[str] = Counter()
    for g in range(len(history), config.generations):
        if _stalled(history, config.patience, config.least_gain):
            progress(f"{config.patience} generations gained too little: done", 1.0)
            break
        progress(f"generation {g + 1} of {config.generations}", g / config.generations)
        begin = time.perf_counter()
        samples = optimizer.ask()
        seconds["ask and tell"] += time.perf_counter() - begin
        if g == 0 and config.include_start:
            # In place of the last sample: the population keeps its size, the start is told too.
            samples = np.concatenate([samples[:-1], np.zeros_like(samples[-1:])])
        waypoints = repair(parametrization.waypoints(samples))
        result = evaluate(waypoints)
        seconds.update(result.seconds)
        if result.failed.all():
            raise RunFailed(
                f"generation {g + 1}: all {len(waypoints)} rollouts diverged; "
                "lower simulation.dt_s or raise simulation.substeps in task.toml"
            )
        begin = time.perf_counter()
        optimizer.tell(samples, comparable(result.loss, result.failed))
        seconds["ask and tell"] += time.perf_counter() - begin
        generation = {
            "waypoints": waypoints, "loss": result.loss, "failed": result.failed, **result.terms
        }  # fmt: skip
        _save_checkpoint(
            checkpoints / f"generation_{g:03d}.npz", generation, optimizer.state(), result
        )
        history.append(generation)
        best = min(_losses(history).min(1))
        progress(f"generation {g + 1} of {config.generations}: loss {best:.4f}",
                 (g + 1) / config.generations)  # fmt: skip

    return _best(history, dict(seconds))


def best_start(evaluate: Evaluate, starts: np.ndarray) -> tuple[int, Evaluation]:
    """Which of a few starts (S, K, A, 6) has the lowest loss, the first of equals, and what each has."""
    result = evaluate(starts)
    return int(np.argmin(comparable(result.loss, result.failed))), result


def comparable(loss: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """Losses as a search compares them: whatever a failed rollout's loss is said to be, it is behind
    all that did not fail."""
    return np.where(failed | np.isnan(loss), np.inf, loss)


def _losses(history: list[dict[str, np.ndarray]]) -> np.ndarray:
    """(generations, P), comparable."""
    return np.stack([comparable(h["loss"], h["failed"]) for h in history])


def _stalled(history: list[dict[str, np.ndarray]], patience: int, least_gain: float) -> bool:
    if not 0 < patience < len(history):
        return False
    best = _losses(history).min(1)
    return min(best[-patience:]) >= (1 - least_gain) * min(best[:-patience])


def evaluate_once(evaluate: Evaluate, waypoints: np.ndarray) -> SearchResult:
    """The result of rolling out (K, A, 6) waypoints as they are.

    Raises:
        RunFailed: the rollout diverged.
    """
    result = evaluate(waypoints[None])
    if result.failed.all():
        raise RunFailed("the rollout of the estimated trajectory diverged")
    return _best([
        {"waypoints": waypoints[None], "loss": result.loss, "failed": result.failed, **result.terms}
    ], result.seconds)  # fmt: skip


def _best(history: list[dict[str, np.ndarray]], seconds: dict[str, float]) -> SearchResult:
    losses = _losses(history)
    g, i = np.unravel_index(np.argmin(losses), losses.shape)
    names = [n for n in history[g] if n not in ("waypoints", "loss", "failed")]
    return SearchResult(
        waypoints=history[g]["waypoints"][i],
        loss=float(losses[g, i]),
        terms={n: float(history[g][n][i]) for n in names},
        seconds=seconds,
        history=history,
    )


def _save_checkpoint(
    path: Path, generation: dict[str, np.ndarray], optimizer: dict, result: Evaluation
) -> None:
    """An archive of arrays, and after it its SHA-256: what is damaged in any place is known to be so
    before it is read."""
    archive = io.BytesIO()
    np.savez_compressed(
        archive, terms=np.array(json.dumps(list(result.terms))),
        **{f"generation/{k}": v for k, v in generation.items()},
        **{f"optimizer/{k}": v for k, v in optimizer.items()},
    )  # fmt: skip
    part = path.with_name(f".{path.name}")
    part.write_bytes(archive.getvalue() + hashlib.sha256(archive.getvalue()).digest())
    part.replace(path)


def _load_checkpoint(path: Path) -> dict[str, dict[str, np.ndarray]] | None:
    """A checkpoint's two groups, or None where there is none or it is damaged: then its generation is
    simply run again."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    archive, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if hashlib.sha256(archive).digest() != digest:
        return None
    groups: dict[str, dict[str, np.ndarray]] = {"generation": {}, "optimizer": {}}
    with np.load(io.BytesIO(archive)) as z:
        for key in z.files:
            group, _, name = key.partition("/")
            if name:
                groups[group][name] = z[key]
    return groups
