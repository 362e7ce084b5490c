"""A start that has come down the slope of its rollouts' loss, by gradients through physics."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from lucibot.core.arrays import read_npz
from lucibot.core.errors import UserError
from lucibot.core.progress import Progress, silent
from lucibot.objective.evaluation import Evaluation
from lucibot.optimize.clearance import Clearance
from lucibot.optimize.config import DescentStart
from lucibot.optimize.parametrization import Parametrization
from lucibot.optimize.search import comparable

LEAST_STEP = 0.01
"""Shorter ones are not tried [first step sizes of the search]."""


class Slopes(Protocol):
    """`lucibot.sim.descent.SlopeProcess`."""

    def roll(self, samples: np.ndarray) -> Evaluation: ...

    def slope(self, number: int) -> tuple[float, np.ndarray]: ...


@dataclass(frozen=True)
class ToWaypoints:
    """(P, D) samples to (P, K, A, 6) waypoints that pass through nothing that stands still."""

    parametrization: Parametrization
    clear: Clearance
    held: np.ndarray

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        return self.clear.repaired(self.parametrization.waypoints(samples), self.held)


@dataclass(frozen=True, kw_only=True)
class Descended:
    """Where it came to, and what that took."""

    sample: np.ndarray
    """(D,) [first step sizes of the search]."""
    losses: np.ndarray
    """(N + 1,) of the start, and after each of N steps that lowered it."""
    rollouts: int
    slopes: int
    """Gradients."""
    rollout_s: float
    """A rollout took, of a batch of them."""
    slope_s: float
    """A gradient took."""

    @property
    def equivalents(self) -> float:
        """In rollouts, by time, gradients included."""
        return self.rollouts + self.slopes * self.slope_s / max(self.rollout_s, 1e-9)

    def save(self, path: Path) -> None:
        data = io.BytesIO()
        np.savez_compressed(data, **vars(self))
        part = path.with_name(f".{path.name}")
        part.write_bytes(data.getvalue())
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Descended | None:
        """None where there is none, or it is damaged."""
        try:
            with read_npz(path) as z:
                kinds = {"rollouts": int, "slopes": int, "rollout_s": float, "slope_s": float}
                return cls(sample=z["sample"], losses=z["losses"],
                           **{n: kind(z[n]) for n, kind in kinds.items()})  # fmt: skip
        except (FileNotFoundError, UserError):
            return None


def descend(
    slopes: Slopes, dimension: int, config: DescentStart, progress: Progress = silent
) -> Descended:
    """Come down from 0: along each gradient of the smooth loss a few lengths are rolled out, and the one
    with the lowest loss, the search's own, is where the next gradient is taken. Where none is lower,
    shorter ones are tried."""
    sample, radius, rollouts, number = np.zeros(dimension), config.first_step, 0, 0
    seconds = {"roll": 0.0, "slope": 0.0}

    def roll(samples: np.ndarray) -> np.ndarray:
        nonlocal rollouts
        begin = time.perf_counter()
        result = slopes.roll(samples)
        seconds["roll"] += time.perf_counter() - begin
        rollouts += len(samples)
        return comparable(result.loss, result.failed)

    losses, count = [float(roll(sample[None])[0])], 0
    reach = 2.0 ** (1 - np.arange(config.tries))
    while count < config.steps and np.isfinite(losses[-1]) and radius >= LEAST_STEP:
        progress(f"down the slope, step {count + 1} of {config.steps}: loss {losses[-1]:.4f}",
                 count / config.steps)  # fmt: skip
        begin = time.perf_counter()
        _, gradient = slopes.slope(number)
        seconds["slope"] += time.perf_counter() - begin
        count += 1
        length = np.linalg.norm(gradient)
        if not 0 < length < np.inf:
            break
        while radius >= LEAST_STEP:
            tried = sample - (radius * reach)[:, None] * gradient / length
            found = roll(tried)
            number = int(np.argmin(found))
            if found[number] < losses[-1]:
                sample, radius = tried[number], radius * reach[number]
                losses.append(float(found[number]))
                break
            radius *= reach[-1] / 4
    return Descended(
        sample=sample, losses=np.array(losses), rollouts=rollouts, slopes=count,
        rollout_s=seconds["roll"] / rollouts, slope_s=seconds["slope"] / max(count, 1),
    )  # fmt: skip
