"""Simulation processes: which answer belongs to which message, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from lucibot.core.errors import RunFailed
from lucibot.objective.evaluation import Evaluation
from lucibot.sim.process import LocalFarm, SimProcess
from lucibot.sim.sharding import Sharding
from lucibot.sim.workers import ShardedEvaluator
from lucibot.task import load_task


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Processes that are started find this module by the name that pytest gives it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def echo():
    """What a process can be that answers at once: the message, or its failure."""

    def answer(message):
        if message == "fail":
            raise ValueError("as was asked")
        return message

    return answer


def pretend(*_):
    """In place of a simulation: a rollout's loss is the first number of its waypoints. A shard that
    begins with -1 fails, one that begins with a later number comes late."""

    def answer(message):
        if not isinstance(message, np.ndarray):
            return "supervised"
        loss = message[:, 0, 0, 0]
        if loss[0] == -1:
            raise ValueError("as was asked")
        time.sleep(0.3 if loss[0] >= 10 else 0)
        return Evaluation(loss=loss, terms={}, failed=np.zeros(len(loss), bool))

    return answer


class PretendFarm(LocalFarm):
    def start(self, build, *arguments):
        return SimProcess(pretend)


def test_an_answer_that_nobody_waited_for_is_not_taken_for_a_later_one():
    process = SimProcess(echo)
    assert process.receive() == "built"
    process.send("first")
    process.send("second")
    assert process.receive() == "second"
    process.send("fail")
    with pytest.raises(RunFailed, match="as was asked"):
        process.receive()
    process.send("third")
    assert process.receive() is None
    process.close()


def test_after_a_failure_no_stale_answers_are_read():
    """One worker fails while the other is still at work: the next evaluation is whole."""
    shards = np.zeros((2, 1, 1, 6), np.float32)
    with ShardedEvaluator(
        load_task("cut_dough"), Sharding(workers=2, n_envs=1), farm=PretendFarm()
    ) as workers:
        workers.supervise(None, None)
        shards[:, 0, 0, 0] = [-1, 10]
        with pytest.raises(RunFailed, match="as was asked"):
            workers.evaluate(shards)
        shards[:, 0, 0, 0] = [3, 4]
        np.testing.assert_array_equal(workers.evaluate(shards).loss, [3, 4])


def test_where_bodies_collide_batches_follow_from_the_population_alone(monkeypatch):
    def sizes(population: int, task: str = "stack_cups", **settings) -> set[int]:
        found = set()
        for cores in (1, 2, 3, 8, 64):
            monkeypatch.setattr(os, "sched_getaffinity", lambda pid, n=cores: set(range(n)))
            s = Sharding.of(load_task(task), population, **settings)
            assert s.workers <= cores
            assert (s.workers - 1) * s.n_envs < population  # Each has something to do.
            found.add(s.n_envs)
        return found

    assert [sizes(p) for p in (1, 2, 12, 16, 64, 128)] == [
        {1}, {1}, {6}, {8}, {16}, {16}
    ]  # fmt: skip
    assert sizes(16, environments=5) == {5}
    assert sizes(16, "cut_dough") == {16, 8, 6, 2, 1}
    on_gpu = Sharding.of(load_task("stack_cups"), 128, device="cuda")
    assert (on_gpu.workers, on_gpu.n_envs) == (1, 128)


PARENT = """
import os, sys, time
from lucibot.sim.process import SimProcess
from test_processes import busy
processes = [SimProcess(busy) for _ in range(2)]
print(*(p.pid for p in processes), flush=True)
time.sleep(60)
"""


def busy():
    """A scene that takes long to build, in code that looks at no signal and no pipe."""
    with open("/dev/null", "w") as f:
        f.write(str(sum(range(3_000_000_000))))


@pytest.mark.skipif(sys.platform != "linux", reason="told by Linux alone")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_their_parent(end):
    path = os.pathsep.join([*sys.path, os.path.dirname(__file__)])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
    )  # fmt: skip
    try:
        children = [psutil.Process(int(p)) for p in parent.stdout.readline().split()]
        deadline = time.monotonic() + 60
        while min(sum(c.cpu_times()[:2]) for c in children) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        if end == signal.SIGINT:
            os.killpg(parent.pid, end)  # As Ctrl-C does: the children are told, too.
            time.sleep(0.5)
            parent.kill()
        else:
            parent.send_signal(end)
        said = parent.communicate(timeout=20)[1]
        _, alive = psutil.wait_procs(children, timeout=5)
        assert len(children) == 2 and not alive
        assert said.count("Traceback") <= (end == signal.SIGINT), said  # The parent's own.
    finally:
        parent.kill()


WAITS = """
import signal, sys
from concurrent.futures import ThreadPoolExecutor
from lucibot.core.stopping import Stopped, listening
from lucibot.providers.programs import run_words
lives = '''
import sys, time
while True:
    open(sys.argv[1], "a").write(".")
    time.sleep(0.05)
'''
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # These tests may run under nohup.
try:
    with listening(), ThreadPoolExecutor() as pool:
        pool.submit(run_words, "--flag", "the model", [sys.executable, "-c", lives, sys.argv[1]], 60.0).result()
except Stopped as e:
    sys.exit(e.status)
"""


@pytest.mark.parametrize("end", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_users_program_ends_with_who_waits_for_it_in_a_thread(tmp_path, end):
    lives = tmp_path / "lives"
    parent = subprocess.Popen(
        [sys.executable, "-c", WAITS, str(lives)], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not lives.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        parent.send_signal(end)
        parent.communicate(timeout=20)
        size = lives.stat().st_size
        time.sleep(0.3)
        assert lives.stat().st_size == size and parent.returncode == 128 + end
    finally:
        parent.kill()
