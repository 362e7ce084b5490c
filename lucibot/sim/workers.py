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

import numpy as np

from lucibot.core.errors import LuciBotError, RunFailed
from lucibot.core.progress import Progress, silent
from lucibot.objective.evaluation import Evaluation
from lucibot.objective.supervision import Supervision
from lucibot.objective.weights import LossWeights
from lucibot.task import Task

ONE_THREAD = {
    "QD_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1",
}  # fmt: skip
MAX_DEATHS = 3
"""Workers that may die in one evaluation or while starting before the run is given up."""


def create_evaluator(
    task: Task,
    supervision: Supervision,
    weights: LossWeights,
    *,
    population: int,
    workers: int | None = None,
    device: str = "cpu",
    environments: int | None = None,
    progress: Progress = silent,
):
    """A context manager with `evaluate(waypoints) -> Evaluation`.

    On a GPU one process holds the whole population. On the CPU it is sharded over `workers`
    processes (default: one per core this process may use); one worker needs no process of its own.

    Args:
        environments: environments of each worker; default: enough for one round of the population.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = 1 if device != "cpu" else min(workers or cores or 1, population)
    n_envs = environments or -(-population // count)
    if count == 1:
        from lucibot.sim.evaluator import Evaluator

        return Evaluator(
            task, supervision, weights, n_envs=n_envs, device=device, progress=progress
        )
    return ShardedEvaluator(
        task, supervision, weights, workers=count, n_envs=n_envs, progress=progress
    )


@dataclass
class _Worker:
    process: mp.process.BaseProcess
    pipe: Connection


class ShardedEvaluator:
    """`Evaluator` in `workers` processes, each with its own scene of `n_envs` environments."""

    def __init__(
        self,
        task: Task,
        supervision: Supervision,
        weights: LossWeights,
        *,
        workers: int,
        n_envs: int,
        progress: Progress = silent,
    ):
        self._arguments = (task, supervision, weights, n_envs)
        self._progress, self._n_envs = progress, n_envs
        self._workers: list[_Worker] = []
        try:
            self._workers = [self._spawn() for _ in range(workers)]
            self._await_ready()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ShardedEvaluator:
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    @property
    def n_envs(self) -> int:
        """Environments that one worker rolls out together."""
        return self._n_envs

    @property
    def process_ids(self) -> list[int]:
        return [w.process.pid for w in self._workers]

    def evaluate(self, waypoints: np.ndarray) -> Evaluation:
        """Roll out (P, K, A, 6) float32 waypoints; P may be any number."""
        waypoints = np.asarray(waypoints, np.float32)
        shards = [waypoints[i : i + self._n_envs] for i in range(0, len(waypoints), self._n_envs)]
        results: list[Evaluation | None] = [None] * len(shards)
        waiting, running, deaths = list(range(len(shards))), {}, 0
        while waiting or running:
            for i, worker in enumerate(self._workers):
                if waiting and i not in running:
                    running[i] = waiting.pop(0)
                    try:
                        worker.pipe.send(shards[running[i]])
                    except OSError:
                        pass  # It has died; the wait below sees that and replaces it.
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
            target=_serve, args=(there, *self._arguments), daemon=True, name="lucibot-rollouts"
        )
        with _environment(ONE_THREAD):
            process.start()
        there.close()
        return _Worker(process, here)

    def _await_ready(self) -> None:
        """Workers build their scenes at the same time, each on its own core."""
        self._progress(f"starting {len(self._workers)} simulation workers", 0.0)
        building, deaths = dict.fromkeys(range(len(self._workers))), 0
        while building:
            for i in self._ready(building):
                if self._receive(i) is None:
                    deaths += 1
                    self._replace(i, deaths, wait_until_ready=False)
                    continue
                del building[i]
                done = 1 - len(building) / len(self._workers)
                self._progress(f"simulation worker {i + 1} of {len(self._workers)} ready", done)

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

    def _replace(self, i: int, deaths: int, *, wait_until_ready: bool = True) -> None:
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
        if wait_until_ready and self._receive(i) is None:
            self._replace(i, deaths + 1)


def _serve(pipe: Connection, task, supervision, weights, n_envs: int) -> None:
    """A worker's life: build, say so, then answer shards until the pipe closes."""
    import signal

    # Ctrl-C goes to the whole group; the parent decides, and closing the pipe ends the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import torch

        torch.set_num_threads(1)
        from lucibot.sim.evaluator import Evaluator

        evaluator = Evaluator(task, supervision, weights, n_envs=n_envs)
        pipe.send("ready")
        while True:
            pipe.send(evaluator.evaluate(pipe.recv()))
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
