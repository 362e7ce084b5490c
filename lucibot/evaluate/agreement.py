"""How far two judges agree on the same outcomes, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
"""Of bootstrap intervals."""


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Rank correlation over the outcomes that both judges have scored. NaN where it is not defined: of
    fewer than three, or where one of them says the same of all."""

    count: int
    spearman: float = math.nan
    spearman_interval: tuple[float, float] = (math.nan, math.nan)
    """Bootstrap, 95%."""
    kendall: float = math.nan
    """tau-b."""

    @property
    def why_none(self) -> str:
        """Why it is not defined; empty where it is."""
        if math.isfinite(self.spearman):
            return ""
        return "too few" if self.count < 3 else "all alike"


def correlation(a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> Correlation:
    """Of two judges' scores of the same outcomes; NaN in either leaves an outcome out."""
    from scipy.stats import kendalltau, spearmanr

    x, y = np.asarray(a, float), np.asarray(b, float)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(count=len(x))

    def rho(i: np.ndarray) -> float:
        if np.ptp(x[i]) == 0 or np.ptp(y[i]) == 0:
            return math.nan
        return float(spearmanr(x[i], y[i]).statistic)

    return Correlation(
        count=len(x), spearman=rho(np.arange(len(x))),
        spearman_interval=bootstrap(len(x), rho, seed=seed),
        kendall=float(kendalltau(x, y).statistic),
    )  # fmt: skip


def bootstrap(
    count: int, statistic: Callable[[np.ndarray], float], *, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a statistic of `count` things, which is given indices of a resample;
    resamples of which it is NaN are left out. NaN where all are, or of one thing alone."""
    if count < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    drawn = np.array([statistic(rng.integers(0, count, count)) for _ in range(RESAMPLES)])
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return math.nan, math.nan
    edge = 50 * (1 - LEVEL)
    low, high = np.percentile(drawn, [edge, 100 - edge])
    return float(low), float(high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Bootstrap interval of a mean."""
    x = np.asarray(values, float)
    return bootstrap(len(x), lambda i: float(x[i].mean()))
