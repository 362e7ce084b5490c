"""Where the time of an evaluation goes, told from inside."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lucibot.objective.evaluation import Evaluation

if TYPE_CHECKING:
    from lucibot.sim.evaluator import Evaluator

PARTS = ("physics", "control", "observe", "losses", "ask and tell", "Python")
"""Of a generation; the last is what is left."""


class Stopwatch:
    """Adds up the time that methods take, each counted where it is called, not within another."""

    def __init__(self, synchronize: Callable[[], None] = lambda: None):
        self.seconds: dict[str, float] = defaultdict(float)
        self._synchronize = synchronize
        self._depth = 0

    @contextmanager
    def watch(self, methods: dict[str, list[tuple[Any, str]]]) -> Iterator[None]:
        """For the time being, time methods (object, name) under the heading they are listed at."""
        kept = [(owner, name) for watched in methods.values() for owner, name in watched]
        for heading, watched in methods.items():
            for owner, name in watched:
                setattr(owner, name, self._timed(getattr(owner, name), heading))
        try:
            yield
        finally:
            for owner, name in kept:
                delattr(owner, name)

    def _timed(self, method: Callable, heading: str) -> Callable:
        def timed(*args, **kwargs):
            if self._depth:
                return method(*args, **kwargs)
            self._depth += 1
            self._synchronize()
            begin = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self._synchronize()
                self.seconds[heading] += time.perf_counter() - begin
                self._depth -= 1

        return timed


def parts_of(evaluator: Evaluator) -> dict[str, list[tuple[Any, str]]]:
    """What an `Evaluator` does, by heading."""
    scene = evaluator.scene
    return {
        "physics": [(scene, "step")],
        "control": [(scene, "servo"), (scene, "set_joint"), (scene, "reset")],
        "observe": [(evaluator._observer, n) for n in ("overlap", "picture")],
        "losses": [(evaluator._objective, "score"), (evaluator._contacts, "touching"),
                   (scene, "moment"), (scene, "diverged")],
    }  # fmt: skip


def timed(evaluator: Evaluator, waypoints: np.ndarray) -> Evaluation:
    """What the evaluator says of (P, K, A, 6) waypoints, and where its time went."""
    watch = Stopwatch()
    begin = time.perf_counter()
    with watch.watch(parts_of(evaluator)):
        result = evaluator.evaluate(waypoints)
    seconds = {part: watch.seconds.get(part, 0.0) for part in parts_of(evaluator)}
    seconds["Python"] = time.perf_counter() - begin - sum(seconds.values())
    return replace(result, seconds=seconds)
