"""The search (paper, section 3.4): generations of rollouts, a checkpoint after each.

The start itself is evaluated and kept as a candidate: a search whose lowest loss lies a hair above
the start's has lost something. A search that stalls far from what was asked for begins again about the best
rollout, with first steps again and then with wider ones.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lucibot.core.errors import RunFailed
from lucibot.core.progress import Progress, silent
from lucibot.objective.evaluation import Evaluate, Evaluation, OtherScale
from lucibot.optimize.config import SearchConfig
from lucibot.optimize.optimizer import Optimizer
from lucibot.optimize.parametrization import Parametrization

DIGEST_BYTES = hashlib.sha256().digest_size
RESTARTED = 1_000_003
"""Added to the seed of a search for each time that it begins again."""


class AllDiverged(RunFailed):
    """No rollout has a loss."""


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
    reached: Callable[[Mapping[str, float]], bool] = lambda terms: True,
    progress: Progress = silent,
) -> SearchResult:
    """Minimise the loss; resumes at the generation after the last checkpoint in `checkpoints`. Where losses
    come to mean something else (`OtherScale`) it begins anew.

    Args:
        repair: makes sampled waypoints (P, K, A, 6) possible before they are rolled out.
        reached: whether a rollout of these terms does what was asked for; a search that has stalled
            begins again where its best does not.

    Raises:
        AllDiverged: every rollout of a generation diverged, and none before it had a loss. Where one had,
            the search goes on: it stalls there, and may begin again about its best.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    history: list[dict[str, np.ndarray]] = []
    attempt = _Attempt.first(parametrization.dimension, config, seed)
    seconds: Counter[str] = Counter()
    kept = True
    for g in range(config.generations):
        if attempt.stalled(history):
            if attempt.number == config.restarts or reached(_terms(history, *_best_at(history))):
                progress(f"{config.patience} generations gained too little: done", 1.0)
                break
            attempt = attempt.next(history)
        path = checkpoints / f"generation_{g:03d}.npz"
        done = _load_checkpoint(path) if kept else None
        kept = done is not None
        if done is not None:
            history.append(done["generation"])
            attempt.samples.append(done["search"]["samples"])
            attempt.optimizer.restore(done["optimizer"])
            continue
        again = f", begun again ({attempt.number})" if attempt.number else ""
        progress(f"generation {g + 1} of {config.generations}{again}", g / config.generations)
        begin = time.perf_counter()
        samples = attempt.optimizer.ask()
        seconds["ask and tell"] += time.perf_counter() - begin
        if g == 0 and config.include_start:
            # In place of the last sample: the population keeps its size, the start is told too.
            samples = np.concatenate([samples[:-1], np.zeros_like(samples[-1:])])
        waypoints = repair(parametrization.waypoints(attempt.displaced(samples)))
        try:
            result = evaluate(waypoints)
        except OtherScale as e:
            progress(f"{e}: the search begins anew", 0.0)
            for path in checkpoints.glob("generation_*.npz"):
                path.unlink()
            return search(
                evaluate, parametrization, config, seed=seed, checkpoints=checkpoints,
                repair=repair, reached=reached, progress=progress,
            )  # fmt: skip
        seconds.update(result.seconds)
        if result.failed.all() and not (history and np.isfinite(_losses(history)).any()):
            raise AllDiverged(
                f"generation {g + 1}: all {len(waypoints)} rollouts diverged; "
                "lower simulation.dt_s or raise simulation.substeps in task.toml"
            )
        begin = time.perf_counter()
        attempt.optimizer.tell(samples, comparable(result.loss, result.failed))
        attempt.samples.append(samples)
        seconds["ask and tell"] += time.perf_counter() - begin
        generation = {
            "waypoints": waypoints, "loss": result.loss, "failed": result.failed, **result.terms
        }  # fmt: skip
        _save_checkpoint(path, generation, attempt.optimizer.state(), samples, result)
        history.append(generation)
        best = min(_losses(history).min(1))
        progress(f"generation {g + 1} of {config.generations}: loss {best:.4f}",
                 (g + 1) / config.generations)  # fmt: skip

    return _best(history, dict(seconds))


def comparable(loss: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """Losses as a search compares them: whatever a failed rollout's loss is said to be, it is behind
    all that did not fail."""
    return np.where(failed | np.isnan(loss), np.inf, loss)


def _losses(history: list[dict[str, np.ndarray]]) -> np.ndarray:
    """(generations, P), comparable."""
    return np.stack([comparable(h["loss"], h["failed"]) for h in history])


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """A search with one optimizer, from its first generation to where it stalls.

    Which attempt a generation belongs to follows from the losses before it, so that a search that is
    resumed finds its way again.
    """

    config: SearchConfig
    seed: int
    number: int
    begin: int
    """Its first generation."""
    centre: np.ndarray
    """(D,) where it begins [first step sizes of the search]."""
    scale: float
    """Its own first step size, likewise."""
    optimizer: Optimizer
    samples: list[np.ndarray] = field(default_factory=list)
    """Of each of its generations (P, D) [its own first step sizes]."""

    @classmethod
    def first(cls, dimension: int, config: SearchConfig, seed: int) -> _Attempt:
        return cls(
            config=config, seed=seed, number=0, begin=0, centre=np.zeros(dimension, np.float32),
            scale=1.0, optimizer=config.optimizer.create(dimension, config.population, seed),
        )  # fmt: skip

    def displaced(self, samples: np.ndarray) -> np.ndarray:
        """Samples (P, D) as the search's own."""
        return self.centre + np.float32(self.scale) * samples

    def stalled(self, history: list[dict[str, np.ndarray]]) -> bool:
        """Whether the last `patience` generations, all its own, gained too little over all before."""
        patience = self.config.patience
        if not 0 < patience <= min(len(history) - self.begin, len(history) - 1):
            return False
        best = _losses(history).min(1)
        before = min(best[:-patience])
        # Losses may be negative: those of judges, and of terms of one's own.
        return min(best[-patience:]) >= (1 - math.copysign(self.config.least_gain, before)) * before

    def next(self, history: list[dict[str, np.ndarray]]) -> _Attempt:
        """The next attempt: about the best of this one, or from where that began if it found nothing
        better. The first takes the search's first steps again, and each after it wider ones."""
        losses = _losses(history)
        own = losses[self.begin :]
        g, i = np.unravel_index(np.argmin(own), own.shape)
        better = self.begin == 0 or own[g, i] < losses[: self.begin].min()
        number = self.number + 1
        return _Attempt(
            config=self.config, seed=self.seed, number=number, begin=len(history),
            centre=self.displaced(self.samples[g])[i] if better else self.centre,
            scale=self.config.widen**self.number,
            optimizer=self.config.optimizer.create(
                len(self.centre), self.config.population, self.seed + RESTARTED * number
            ),
        )  # fmt: skip


def evaluate_once(evaluate: Evaluate, waypoints: np.ndarray) -> SearchResult:
    """The result of rolling out (K, A, 6) waypoints as they are.

    Raises:
        AllDiverged: the rollout diverged.
    """
    result = evaluate(waypoints[None])
    if result.failed.all():
        raise AllDiverged("the rollout of the estimated trajectory diverged")
    return _best([
        {"waypoints": waypoints[None], "loss": result.loss, "failed": result.failed, **result.terms}
    ], result.seconds)  # fmt: skip


def _best(history: list[dict[str, np.ndarray]], seconds: dict[str, float]) -> SearchResult:
    g, i = _best_at(history)
    return SearchResult(
        waypoints=history[g]["waypoints"][i],
        loss=float(_losses(history)[g, i]),
        terms=_terms(history, g, i),
        seconds=seconds,
        history=history,
    )


def _best_at(history: list[dict[str, np.ndarray]]) -> tuple[int, int]:
    """Generation and number of the rollout with the lowest loss."""
    losses = _losses(history)
    g, i = np.unravel_index(np.argmin(losses), losses.shape)
    return int(g), int(i)


def _terms(history: list[dict[str, np.ndarray]], g: int, i: int) -> dict[str, float]:
    return {
        n: float(v[i]) for n, v in history[g].items() if n not in ("waypoints", "loss", "failed")
    }


def _save_checkpoint(
    path: Path, generation: dict[str, np.ndarray], optimizer: dict, samples: np.ndarray,
    result: Evaluation,
) -> None:  # fmt: skip
    """An archive of arrays, and after it its SHA-256: what is damaged in any place is known to be so
    before it is read."""
    archive = io.BytesIO()
    np.savez_compressed(
        archive, terms=np.array(json.dumps(list(result.terms))),
        **{f"generation/{k}": v for k, v in generation.items()},
        **{f"optimizer/{k}": v for k, v in optimizer.items()}, **{"search/samples": samples},
    )  # fmt: skip
    part = path.with_name(f".{path.name}")
    part.write_bytes(archive.getvalue() + hashlib.sha256(archive.getvalue()).digest())
    part.replace(path)


def _load_checkpoint(path: Path) -> dict[str, dict[str, np.ndarray]] | None:
    """A checkpoint's groups, or None where there is none or it is damaged: then its generation is
    simply run again."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    archive, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if hashlib.sha256(archive).digest() != digest:
        return None
    groups: dict[str, dict[str, np.ndarray]] = {"generation": {}, "optimizer": {}, "search": {}}
    with np.load(io.BytesIO(archive)) as z:
        for key in z.files:
            group, _, name = key.partition("/")
            if name:
                groups[group][name] = z[key]
    return groups
