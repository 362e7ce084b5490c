"""A simulation in a process of its own: built in the background, then answering messages."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from lucibot.core.errors import LuciBotError, RunFailed

ONE_THREAD = {
    "QD_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1",
}  # fmt: skip


MAX_DEATHS = 3
"""Processes that may die in one piece of work, or while starting, before the run is given up."""


class SimProcess:
    """A one-thread process that runs `answer = build(*arguments)` and from then on sends
    `answer(message)` for each message.

    Its first message back, when it is built, is "built". `build` must be a module's function.
    Messages and answers are numbered: an answer that nobody has waited for is not taken for that to
    a later message. On Linux the process ends with the thread that has started it.
    """

    def __init__(self, build: Callable[..., Callable[[Any], Any]], *arguments: Any):
        context = mp.get_context("spawn")
        self.pipe, there = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(there, build, arguments), name="lucibot-simulation"
        )
        self._number = 0
        with _environment(ONE_THREAD), _interrupts_held():
            self._process.start()
        there.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.exitcode

    def send(self, message: Any) -> None:
        """Send a message; a process that has died says so when its answer is received."""
        self._number += 1
        try:
            self.pipe.send((self._number, message))
        except OSError:
            pass

    def receive(self) -> Any:
        """Wait for the answer to the last message; None if the process died. What it raised is raised
        here."""
        number = -1
        while number != self._number:
            try:
                number, answer = self.pipe.recv()
            except (EOFError, OSError):
                self._process.join(timeout=5)
                return None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self, *, at_once: bool = False) -> None:
        """Let the process end by itself, which takes seconds: it keeps what it has compiled.

        The interpreter waits for it before it exits. `at_once` kills it instead.
        """
        self.pipe.close()
        if at_once:
            self._process.kill()
            self._process.join()


class LocalFarm:
    """Starts simulation processes on this machine."""

    def start(self, build: Callable[..., Callable[[Any], Any]], *arguments: Any) -> SimProcess:
        return SimProcess(build, *arguments)

    def ready(self, workers: Sequence[SimProcess]) -> list[SimProcess]:
        """Those that have answered or died; waits for the first."""
        pipes = {w.pipe: w for w in workers}
        return [pipes[p] for p in wait(list(pipes))]


def _serve(pipe: Connection, build: Callable, arguments: tuple) -> None:
    """The process's life; it ends when the pipe closes."""
    _end_with_parent()
    number = 0
    try:
        import torch

        torch.set_num_threads(1)
        answer = build(*arguments)
        reply = "built"
        while _sent(pipe, (number, reply)):
            try:
                number, message = pipe.recv()
            except (EOFError, ConnectionResetError):
                return
            reply = answer(message)
    except LuciBotError as e:
        _sent(pipe, (number, e))
    except Exception as e:
        # The traceback crosses the pipe as text: not every exception survives being pickled.
        cause = f"{type(e).__name__}: {e}".splitlines()[0]
        failed = RunFailed(f"a simulation process failed: {cause}\n{traceback.format_exc()}")
        _sent(pipe, (number, failed))


def _end_with_parent() -> None:
    """A parent that is killed closes the pipe, but who is building a scene looks at no pipe for up to
    a minute. Linux can be told to end it at once; elsewhere it ends when it has built."""
    if sys.platform != "linux":
        return
    import ctypes

    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if mp.parent_process() is not None and os.getppid() != mp.parent_process().pid:
        os._exit(1)  # It died before Linux was told.


def _sent(pipe: Connection, reply: Any) -> bool:
    """False if the parent has gone, or has given up over another process's error."""
    try:
        pipe.send(reply)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


@contextmanager
def _interrupts_held():
    """Processes that are started inside never hear Ctrl-C, not even while they import what they
    need: it goes to the whole group, the parent decides, and closing the pipe ends them. The parent
    hears afterwards of one that came meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Where this helper of multiprocessing is started first, it lets go of the signals that we hold.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
