"""A population sharded over one-thread worker processes, with the same bits as one process.

Genesis on one CPU thread gives an environment the same bits whatever its neighbours do, so it does
not matter which worker rolls out which member. Batches are always full and of one size, see
`Sharding`. A worker that dies is replaced and its shard is run again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lucibot.core.errors import RunFailed
from lucibot.core.progress import Progress, silent
from lucibot.objective.config import Scored
from lucibot.objective.evaluation import Evaluation
from lucibot.objective.supervision import Supervision
from lucibot.sim.cluster import RayFarm, RayWorker
from lucibot.sim.memory import ensure_memory
from lucibot.sim.process import MAX_DEATHS, LocalFarm, SimProcess
from lucibot.sim.sharding import Sharding
from lucibot.task import Task

Worker = SimProcess | RayWorker
Farm = LocalFarm | RayFarm
"""Where workers are started and waited for."""


class ShardedEvaluator:
    """`Evaluator` in worker processes, each with its own scene.

    The workers start at once and build in the background; `supervise` says what is to be scored,
    and may be called again with another video.
    """

    def __init__(
        self, task: Task, sharding: Sharding, *, device: str = "cpu", farm: Farm | None = None
    ):
        """
        Args:
            farm: where the workers live; by default processes on this machine.

        Raises:
            UserError: this machine has not enough memory for them.
        """
        if farm is None:
            ensure_memory(task, sharding, device=device)
        self._arguments, self.sharding = (task, sharding.n_envs, device), sharding
        self._farm = farm or LocalFarm()
        self._supervision: tuple[Supervision, Scored] | None = None
        self._progress: Progress = silent
        self._building = set(range(sharding.workers))
        self._workers: list[Worker] = []
        try:
            for _ in range(sharding.workers):
                self._workers.append(self._farm.start(_evaluator, *self._arguments))
        except BaseException:
            self.close(at_once=True)
            raise

    def __enter__(self) -> ShardedEvaluator:
        return self

    def __exit__(self, kind, *_) -> None:
        self.close(at_once=kind is not None)

    @property
    def process_ids(self) -> list[int]:
        return [w.pid for w in self._workers]

    def supervise(
        self, supervision: Supervision, objective: Scored, progress: Progress = silent
    ) -> None:
        """Give the video's supervision to all workers; waits until their scenes are built.

        Raises:
            UserError: the supervision speaks of other objects than the task has.
            RunFailed: a worker could not build its scene.
        """
        self._progress = progress
        self._await_scenes()
        self._supervision = (supervision, objective)
        waiting, deaths = set(range(len(self._workers))), 0
        for i in waiting:
            self._workers[i].send(self._supervision)
        while waiting:
            for i in self._ready(waiting):
                if self._workers[i].receive() is None:
                    deaths += 1
                    self._replace(i, deaths)
                waiting.discard(i)

    def evaluate(self, waypoints: np.ndarray) -> Evaluation:
        """Roll out (P, K, A, 6) float32 waypoints; P may be any number."""
        waypoints = np.asarray(waypoints, np.float32)
        size = self.sharding.n_envs
        shards = [waypoints[i : i + size] for i in range(0, len(waypoints), size)]
        results: list[Evaluation | None] = [None] * len(shards)
        waiting, running, deaths = list(range(len(shards))), {}, 0
        while waiting or running:
            for i, worker in enumerate(self._workers):
                if waiting and i not in running:
                    running[i] = waiting.pop(0)
                    worker.send(shards[running[i]])
            for i in self._ready(running):
                shard, answer = running.pop(i), self._workers[i].receive()
                if answer is None:
                    deaths += 1
                    self._replace(i, deaths)
                    waiting.insert(0, shard)
                else:
                    results[shard] = answer
        return Evaluation(
            loss=np.concatenate([r.loss for r in results]),
            terms={n: np.concatenate([r.terms[n] for r in results]) for n in results[0].terms},
            failed=np.concatenate([r.failed for r in results]),
            shown={n: np.concatenate([r.shown[n] for r in results]) for n in results[0].shown},
            seconds={n: sum(r.seconds[n] for r in results) for n in results[0].seconds},
        )

    def close(self, *, at_once: bool = False) -> None:
        """End the workers; see `SimProcess.close`."""
        for w in self._workers:
            w.close(at_once=at_once)
        self._workers = []

    def _await_scenes(self) -> None:
        """Workers build their scenes at the same time, each on its own core."""
        total, deaths = len(self._workers), 0
        if self._building:
            self._progress(f"{total} simulation workers are building their scenes", 0.0)
        while self._building:
            for i in self._ready(self._building):
                if self._workers[i].receive() is None:
                    deaths += 1
                    self._restart(i, deaths)
                    continue
                self._building.discard(i)
                done = 1 - len(self._building) / total
                self._progress(f"simulation worker {i + 1} of {total} ready", done)

    def _ready(self, indices) -> list[int]:
        """Which of these workers have answered or died; waits for the first."""
        number = {id(self._workers[i]): i for i in indices}
        return sorted(number[id(w)] for w in self._farm.ready([self._workers[i] for i in indices]))

    def _restart(self, i: int, deaths: int) -> None:
        """A new process in place of a dead one; it builds in the background."""
        self._workers[i].close()
        if deaths > MAX_DEATHS:
            raise RunFailed(
                f"simulation workers died {deaths} times (last exit code "
                f"{self._workers[i].exit_code}); too little memory is the usual reason, "
                "use fewer workers"
            )
        self._progress(f"simulation worker {i + 1} died; starting it again")
        self._workers[i] = self._farm.start(_evaluator, *self._arguments)

    def _replace(self, i: int, deaths: int) -> None:
        """A new worker that is ready for shards."""
        self._restart(i, deaths)
        built = self._workers[i].receive() is not None
        if built:
            self._workers[i].send(self._supervision)
        if not built or self._workers[i].receive() is None:
            self._replace(i, deaths + 1)


def _evaluator(task: Task, n_envs: int, device: str):
    """In the worker: takes (supervision, objective), and from then on waypoints."""
    from lucibot.sim.compiled import build_scene
    from lucibot.sim.evaluator import Evaluator

    scene = build_scene(task, n_envs=n_envs, device=device)
    evaluator: Evaluator | None = None

    def answer(message: Any) -> Any:
        nonlocal evaluator
        if isinstance(message, np.ndarray):
            return evaluator.evaluate(message)
        evaluator = Evaluator(scene, *message)
        return "supervised"

    return answer
