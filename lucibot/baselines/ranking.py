"""A ranking that grows by pairwise preferences: VLM-Pref as the paper has it (section 4.1).

The first batch is sorted by quicksort and scored evenly from 0 to 50. Each later sample is looked for by
binary search among those ranked before, and scored by where it comes: between the scores of its
neighbours. Both rest on comparisons alone, whose number is that of questions to a judge: about
2 n ln n for the first n samples, and log2(n) for each later one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

LOWEST, HIGHEST = 0.0, 50.0
"""Scores of the worst and the best of the first batch."""

Better = Callable[[int, int], bool]
"""Whether sample a is better than sample b."""


@dataclass(kw_only=True)
class Ranking:
    """Samples 0, 1, 2, ... by how good they are found to be."""

    better: Better
    order: list[int] = field(default_factory=list)
    """From the worst to the best."""
    scores: list[float] = field(default_factory=list)
    """Of each sample, as it was scored when it came."""
    asked: int = 0
    """Comparisons made."""

    def add(self, count: int, rng: np.random.Generator) -> list[float]:
        """The scores of the next `count` samples.

        Args:
            rng: chooses the pivots of the first batch.
        """
        new = list(range(len(self.scores), len(self.scores) + count))
        if not self.order:
            self.order = self._sorted(new, rng)
            rank = {sample: r for r, sample in enumerate(self.order)}
            step = (HIGHEST - LOWEST) / max(count - 1, 1)
            self.scores = [LOWEST + step * rank[sample] for sample in new]
        else:
            for sample in new:
                self._insert(sample)
        return [self.scores[sample] for sample in new]

    def _asks(self, a: int, b: int) -> bool:
        self.asked += 1
        return self.better(a, b)

    def _sorted(self, samples: list[int], rng: np.random.Generator) -> list[int]:
        if len(samples) < 2:
            return samples
        pivot = samples[int(rng.integers(len(samples)))]
        better, worse = [], []
        for sample in samples:
            if sample != pivot:
                (better if self._asks(sample, pivot) else worse).append(sample)
        return [*self._sorted(worse, rng), pivot, *self._sorted(better, rng)]

    def _insert(self, sample: int) -> None:
        low, high = 0, len(self.order)
        while low < high:
            middle = (low + high) // 2
            if self._asks(sample, self.order[middle]):
                low = middle + 1
            else:
                high = middle
        self.scores.append(self._between(low))
        self.order.insert(low, sample)

    def _between(self, place: int) -> float:
        """A score for what comes before the sample that is at `place` now."""
        scores = [self.scores[s] for s in self.order]
        if place == 0:
            return scores[0] - self._step()
        if place == len(scores):
            return scores[-1] + self._step()
        return (scores[place - 1] + scores[place]) / 2

    def _step(self) -> float:
        """Beyond the best and the worst scores go on as they are spread within; by the whole range where there
        is but one."""
        scores = [self.scores[s] for s in self.order]
        return max(max(scores) - min(scores), HIGHEST - LOWEST) / max(len(scores) - 1, 1)


def kendall_distance(order: list[int], truth: np.ndarray) -> float:
    """Share of the pairs that a ranking, from the worst to the best, has the other way round than `truth`
    (n,), where higher is better; ties count for neither."""
    values = np.asarray(truth, float)[order]
    n = len(values)
    wrong = np.triu(values[:, None] > values[None], 1).sum()
    return float(wrong / max(n * (n - 1) / 2, 1))
