"""From the start of a process to its first scored rollout, against Genesis alone.

Cached: both have run before. Cold: every compiled kernel is gone; a single round, for it takes
minutes. Then a second task that uses the same solvers is started, and once more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from lucibot.benchmark import Bench
from lucibot.benchmark.workload import KEYFRAMES
from lucibot.core.errors import RunFailed
from lucibot.task import load_task

TASK, SECOND, ENVIRONMENTS = "cut_dough", "spread_butter", 2
HERE = Path(__file__).parent


def measure(bench: Bench) -> None:
    ours = [str(HERE / "ours.py"), TASK, str(ENVIRONMENTS), bench.device]
    bare = [str(HERE / "bare.py"), TASK, str(ENVIRONMENTS), str(steps(TASK)), bench.device]
    cached = bench.race({"ours": process(ours), "bare": process(bare)}, of="cached")
    bench.ratio("cached.ours_over_bare", cached["ours"], cached["bare"], target="at most 1.15")
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        seconds = {
            "bare": bench.once("cold.bare", process(bare, cache=a)),
            "ours": bench.once("cold.ours", process(ours, cache=b)),
        }
        bench.value("cold.ours_over_bare", seconds["ours"] / seconds["bare"], unit="x",
                    target="at most 1.15")  # fmt: skip
        before = kernels(b)
        again = bench.once("cold.ours_again", process(ours, cache=b))
        bench.value("cold.kernels_compiled_again", len(kernels(b) - before), target="0")
        bench.value("cold.first_over_again", seconds["ours"] / again, unit="x")
        other = [ours[0], SECOND, *ours[2:]]
        bench.once("second_task.first", process(other, cache=b))
        before = kernels(b)
        bench.once("second_task.again", process(other, cache=b))
        bench.value("second_task.kernels_compiled_again", len(kernels(b) - before), target="0")


def steps(name: str) -> int:
    sim = load_task(name).spec.simulation
    return KEYFRAMES * sim.steps_per_waypoint + sim.settle_steps


def process(arguments: list[str], cache: str | None = None) -> Callable[[], None]:
    """A new Python process that runs a script to its end; `cache` is where it keeps kernels."""
    where = {}
    if cache is not None:
        where = {"QD_OFFLINE_CACHE_FILE_PATH": cache, "NUMBA_CACHE_DIR": f"{cache}/numba"}

    def run() -> None:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *arguments], env=os.environ | where,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RunFailed(f"{Path(arguments[0]).name} failed:\n{done.stderr[-2000:]}")

    return run


def kernels(cache: str) -> set[str]:
    """Files of compiled kernels."""
    return {p.name for end in ("*.qdc", "*.nbc") for p in Path(cache).rglob(end) if p.is_file()}
