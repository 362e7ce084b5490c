"""What a batch of rollouts returns to the search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lucibot.core.errors import RunFailed


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Losses of P rollouts."""

    loss: np.ndarray
    """(P,) float32, weighted sum of the terms; infinite for failed rollouts."""
    terms: dict[str, np.ndarray]
    """Named, unweighted (P,) float32; NaN for failed rollouts, of which nothing is known."""
    failed: np.ndarray
    """(P,) bool: the simulation diverged."""
    shown: dict[str, np.ndarray] = field(default_factory=dict)
    """What the objective brings home to a judge outside of the simulation, (P, ...) each."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Where the time went, by part, of all workers together; empty where it was not measured."""


Evaluate = Callable[[np.ndarray], Evaluation]
"""Waypoints (P, K, A, 6) float32 to an `Evaluation`: all that `optimize` sees of a simulator. May raise
`OtherScale`."""


class OtherScale(RunFailed):
    """From now on losses mean something else than those before, which can no longer be compared with them."""
