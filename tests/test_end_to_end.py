"""One whole run: drawn video in, report out; killed in the middle of the search and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SETTINGS = [
    "--seed", "100", "--optimize.search.population", "2", "--optimize.search.generations", "2",
    "--optimize.workers", "1", "--scene.renderer", "raster",
]  # fmt: skip


def lucibot(*argv: str, wait: bool = True) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "lucibot.cli", *argv], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    if wait:
        out, _ = process.communicate(timeout=1500)
        assert process.returncode == 0, out[-4000:]
    return process


@pytest.mark.slow
def test_a_new_task_runs_as_it_comes(tmp_path: Path):
    lucibot("tasks", "new", "push_box", "--dir", str(tmp_path))
    lucibot("run", str(tmp_path / "push_box"), "--out", str(tmp_path / "runs"), *SETTINGS)
    (run,) = (tmp_path / "runs" / "push_box").iterdir()
    result = json.loads((run / "result.json").read_text())
    assert result["success"] and result["metrics"]["block.away_m"] < 0.03
    verdicts = json.loads(next(run.glob("30_select/*/verdicts.json")).read_text())["candidates"]
    drawn = [json.loads(p.read_text()) for p in sorted(run.glob("20_imagine/*/planted/*.json"))]
    assert [v["usable"] for v in verdicts] == [d["fault"] == "" for d in drawn]


@pytest.mark.slow
def test_a_killed_run_resumes_to_a_whole_one(tmp_path: Path):
    first = lucibot("run", "cut_dough", "--out", str(tmp_path), *SETTINGS, wait=False)
    deadline = time.monotonic() + 1200
    while not (done := list(tmp_path.glob("cut_dough/*/50_optimize/*/checkpoints/*_000.npz"))):
        assert first.poll() is None, first.stdout.read()[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.5)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    with np.load(done[0]) as z:
        losses = z["generation/loss"]
    (run,) = (tmp_path / "cut_dough").iterdir()
    # What was planted is kept for measurement only: the rest of the run does without it.
    for planted in list(run.glob("20_imagine/**/planted")):
        shutil.rmtree(planted)
    lucibot("resume", str(run))
    result = json.loads((run / "result.json").read_text())
    assert result["rollouts"] == 4 and result["same_loss_when_replayed"]
    assert result["loss"] <= losses.min() + 1e-6
    assert (run / "report.html").stat().st_size > 100_000
    again = lucibot("resume", str(run))
    assert again.returncode == 0
    assert json.loads((run / "result.json").read_text())["loss"] == result["loss"]
