"""A simulation in a process of its own that tells the slope of a trajectory's loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lucibot.core.errors import RunFailed
from lucibot.objective.config import Scored
from lucibot.objective.evaluation import Evaluation
from lucibot.objective.supervision import Supervision
from lucibot.objective.weights import LossWeights
from lucibot.sim.process import SimProcess
from lucibot.task import Task

ToWaypoints = Callable[[np.ndarray], np.ndarray]
"""(P, D) of a search's coordinates to (P, K, A, 6) waypoints."""


class SlopeProcess:
    """Rolls out a few trajectories at a time, and tells which way the smooth loss of one of them falls.

    Args:
        n_envs: trajectories at a time, at most.
    """

    def __init__(
        self, task: Task, n_envs: int, supervision: Supervision, objective: Scored,
        weights: LossWeights, to_waypoints: ToWaypoints,
    ):  # fmt: skip
        self._process = SimProcess(
            _slopes, task, n_envs, supervision, objective, weights, to_waypoints
        )
        self._built = False

    def __enter__(self) -> SlopeProcess:
        return self

    def __exit__(self, kind, *_) -> None:
        self._process.close(at_once=kind is not None)

    def roll(self, samples: np.ndarray) -> Evaluation:
        """Roll out (P, D).

        Raises:
            RunFailed: the process died.
        """
        return self._ask(samples)

    def slope(self, number: int) -> tuple[float, np.ndarray]:
        """The smooth loss of one of the samples that were rolled out last, and its gradient (D,).

        Raises:
            RunFailed: the process died.
        """
        return self._ask(number)

    def _ask(self, message: Any) -> Any:
        if not self._built:
            self._built = self._process.receive() is not None
        if self._built:
            self._process.send(message)
            if (answer := self._process.receive()) is not None:
                return answer
        raise RunFailed(
            f"the simulation that tells slopes died (exit code {self._process.exit_code}); too little "
            "memory is the usual reason"
        )


def _slopes(
    task: Task, n_envs: int, supervision: Supervision, objective: Scored, weights: LossWeights,
    to_waypoints: ToWaypoints,
):  # fmt: skip
    """In the process: takes (P, D) samples, or the number of one of the last."""
    from lucibot.sim.compiled import build_scene
    from lucibot.sim.evaluator import Evaluator
    from lucibot.sim.gradient import RolloutGradient
    from lucibot.sim.moment import Moment
    from lucibot.sim.smooth import SmoothLoss

    class Keeping(Evaluator):
        moments: tuple[Moment, ...] = ()

        def _seen(self, keyframes: Moment, goal: Moment, end: Moment):
            n = self.n_envs
            self.moments = tuple(
                keyframes.of(slice(k * n, (k + 1) * n)) for k in range(len(supervision.held))
            )
            return super()._seen(keyframes, goal, end)

    scene = build_scene(task, n_envs=n_envs)
    gradient = RolloutGradient(scene)
    smooth = SmoothLoss(scene, supervision, weights)
    evaluator, last = Keeping(scene, supervision, objective), np.zeros((0, 0))

    def answer(message: np.ndarray | int) -> Any:
        nonlocal last
        if isinstance(message, np.ndarray):
            last = message
            return evaluator.evaluate(to_waypoints(message))
        found = smooth.slope(evaluator.moments, message)
        ways = gradient.back(found.particles, found.tool, message)
        return found.value, gradient.of_samples(ways, to_waypoints, last[message], supervision.held)

    return answer
