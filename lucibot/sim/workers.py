"""A population sharded over one-thread worker processes, with the same bits as one process.

Genesis on one CPU thread gives an environment the same bits whatever its neighbours do, so it does
not matter which worker rolls out which member. Batches are always full and of one size: where rigid
bodies collide, another batch size changes the last bits. A worker that dies is replaced and its
shard is run again.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

import numpy as np

from lucibot.core.errors import LuciBotError, RunFailed
from lucibot.core.progress import Progress, silent
from lucibot.objective.evaluation import Evaluation
from lucibot.objective.supervision import Supervision
from lucibot.objective.weights import LossWeights
from lucibot.task import Task

if TYPE_CHECKING:
    from lucibot.sim.evaluator import Evaluator
    from lucibot.sim.scene import SimScene

ONE_THREAD = {
    "QD_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1",
}  # fmt: skip
MAX_DEATHS = 3
"""Workers that may die in one evaluation or while starting before the run is given up."""


class Rollouts:
    """The environments of one task: where rollouts will run.

    On a GPU one process holds the whole population. On the CPU it is sharded over `workers`
    processes (default: one per core this process may use), which build their scenes in the
    background from now on; one worker needs no process of its own.

    Args:
        population: rollouts that are wanted at a time.
        environments: environments of each worker; default: enough for one round of the population.
    """

    def __init__(
        self,
        task: Task,
        *,
        population: int,
        workers: int | None = None,
        device: str = "cpu",
        environments: int | None = None,
    ):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        count = 1 if device != "cpu" else min(workers or cores or 1, population)
        self._task, self._device = task, device
        self.n_envs = environments or -(-population // count)
        """Environments that one worker rolls out together."""
        self._workers = (
            ShardedEvaluator(task, workers=count, n_envs=self.n_envs) if count > 1 else None
        )
        self._scene: SimScene | None = None

    def __enter__(self) -> Rollouts:
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def evaluator(
        self, supervision: Supervision, weights: LossWeights, progress: Progress = silent
    ) -> Evaluator | ShardedEvaluator:
        """What scores waypoints: `evaluate(waypoints) -> Evaluation`. Waits for the scenes."""
        if self._workers is not None:
            self._workers.supervise(supervision, weights, progress)
            return self._workers
        from lucibot.sim.evaluator import Evaluator
        from lucibot.sim.scene import SimScene

        if self._scene is None:
            self._scene = SimScene(
                self._task, n_envs=self.n_envs, device=self._device, progress=progress
            )
        return Evaluator(self._scene, supervision, weights)

    def close(self) -> None:
        """End the workers, if there are any."""
        if self._workers is not None:
            self._workers.close()


@dataclass
class _Worker:
    process: mp.process.BaseProcess
    pipe: Connection


class ShardedEvaluator:
    """`Evaluator` in `workers` processes, each with its own scene of `n_envs` environments.

    The workers start at once and build in the background; `supervise` says what is to be scored,
    and may be called again with another video.
    """

    def __init__(self, task: Task, *, workers: int, n_envs: int):
        self._task, self._n_envs = task, n_envs
        self._supervision: tuple[Supervision, LossWeights] | None = None
        self._progress: Progress = silent
        self._workers: list[_Worker] = []
        try:
            self._workers = [self._spawn() for _ in range(workers)]
        except BaseException:
            self.close()
            raise
        self._building = set(range(workers))

    def __enter__(self) -> ShardedEvaluator:
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    @property
    def process_ids(self) -> list[int]:
        return [w.process.pid for w in self._workers]

    def supervise(
        self, supervision: Supervision, weights: LossWeights, progress: Progress = silent
    ) -> None:
        """Give the video's supervision to all workers; waits until their scenes are built.

        Raises:
            UserError: the supervision speaks of other objects than the task has.
            RunFailed: a worker could not build its scene.
        """
        self._progress = progress
        self._await_scenes()
        self._supervision = (supervision, weights)
        waiting, deaths = dict.fromkeys(range(len(self._workers))), 0
        for i in waiting:
            self._send(i, self._supervision)
        while waiting:
            for i in self._ready(waiting):
                if self._receive(i) is None:
                    deaths += 1
                    self._replace(i, deaths)
                del waiting[i]

    def evaluate(self, waypoints: np.ndarray) -> Evaluation:
        """Roll out (P, K, A, 6) float32 waypoints; P may be any number."""
        waypoints = np.asarray(waypoints, np.float32)
        shards = [waypoints[i : i + self._n_envs] for i in range(0, len(waypoints), self._n_envs)]
        results: list[Evaluation | None] = [None] * len(shards)
        waiting, running, deaths = list(range(len(shards))), {}, 0
        while waiting or running:
            for i in range(len(self._workers)):
                if waiting and i not in running:
                    running[i] = waiting.pop(0)
                    self._send(i, shards[running[i]])
            for i in self._ready(running):
                shard, answer = running.pop(i), self._receive(i)
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
        )

    def close(self) -> None:
        """End the workers."""
        for w in self._workers:
            w.pipe.close()
        for w in self._workers:
            w.process.join(timeout=2)
            if w.process.is_alive():
                w.process.terminate()
                w.process.join()
        self._workers = []

    def _spawn(self) -> _Worker:
        here, there = mp.get_context("spawn").Pipe()
        process = mp.get_context("spawn").Process(
            target=_serve,
            args=(there, self._task, self._n_envs),
            daemon=True,
            name="lucibot-rollouts",
        )
        with _environment(ONE_THREAD):
            process.start()
        there.close()
        return _Worker(process, here)

    def _await_scenes(self) -> None:
        """Workers build their scenes at the same time, each on its own core."""
        total, deaths = len(self._workers), 0
        if self._building:
            self._progress(f"{total} simulation workers are building their scenes", 0.0)
        while self._building:
            for i in self._ready(self._building):
                if self._receive(i) is None:
                    deaths += 1
                    self._restart(i, deaths)
                    continue
                self._building.discard(i)
                done = 1 - len(self._building) / total
                self._progress(f"simulation worker {i + 1} of {total} ready", done)

    def _ready(self, indices) -> list[int]:
        """Which of these workers have answered or died; waits for the first."""
        pipes = {self._workers[i].pipe: i for i in indices}
        return sorted(pipes[p] for p in wait(list(pipes)))

    def _receive(self, i: int):
        """A worker's answer; None if it died. What it raised is raised here."""
        try:
            answer = self._workers[i].pipe.recv()
        except (EOFError, OSError):
            return None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _send(self, i: int, message) -> None:
        try:
            self._workers[i].pipe.send(message)
        except OSError:
            pass  # It has died; whoever waits for its answer sees that and replaces it.

    def _restart(self, i: int, deaths: int) -> None:
        """A new process in place of a dead one; it builds in the background."""
        worker = self._workers[i]
        worker.pipe.close()
        worker.process.join(timeout=5)
        if deaths > MAX_DEATHS:
            raise RunFailed(
                f"simulation workers died {deaths} times (last exit code "
                f"{worker.process.exitcode}); too little memory is the usual reason, "
                "use fewer workers"
            )
        self._progress(f"simulation worker {i + 1} died; starting it again")
        self._workers[i] = self._spawn()

    def _replace(self, i: int, deaths: int) -> None:
        """A new worker that is ready for shards."""
        self._restart(i, deaths)
        built = self._receive(i) is not None
        if built:
            self._send(i, self._supervision)
        if not built or self._receive(i) is None:
            self._replace(i, deaths + 1)


def _serve(pipe: Connection, task: Task, n_envs: int) -> None:
    """A worker's life: build, say so; then take supervision and shards until the pipe closes."""
    import signal

    # Ctrl-C goes to the whole group; the parent decides, and closing the pipe ends the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import torch

        torch.set_num_threads(1)
        from lucibot.sim.evaluator import Evaluator
        from lucibot.sim.scene import SimScene

        scene = SimScene(task, n_envs=n_envs)
        evaluator = None
        pipe.send("built")
        while True:
            message = pipe.recv()
            if isinstance(message, np.ndarray):
                pipe.send(evaluator.evaluate(message))
            else:
                evaluator = Evaluator(scene, *message)
                pipe.send("supervised")
    except (EOFError, BrokenPipeError):
        return  # The parent has closed the pipe: that is how a worker is told to end.
    except LuciBotError as e:
        _send_last(pipe, e)
    except Exception:
        # The traceback crosses the pipe as text: not every exception survives being pickled.
        _send_last(pipe, RunFailed(f"a simulation worker failed:\n{traceback.format_exc()}"))


def _send_last(pipe: Connection, error: LuciBotError) -> None:
    """Tell the parent, unless it has already given up over another worker's error."""
    try:
        pipe.send(error)
    except BrokenPipeError:
        return


@contextmanager
def _environment(values: dict[str, str]):
    """Environment variables for the processes started inside."""
    before = {k: os.environ.get(k) for k in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for k, v in before.items():
            if v is None:
                del os.environ[k]
            else:
                os.environ[k] = v
