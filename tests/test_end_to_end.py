"""One whole run: drawn video in, report out; killed in the middle of the search and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SETTINGS = [
    "--seed", "100", "--optimize.search.population", "2", "--optimize.search.generations", "2",
    "--optimize.workers", "1", "--scene.renderer", "raster",
]  # fmt: skip


def lucibot(*argv: str, wait: bool = True) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "lucibot", *argv], stdout=subprocess.PIPE,
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


def outcome(run: Path) -> dict:
    """What a run has found, apart from its times."""
    result = json.loads((run / "result.json").read_text())
    apart = ("seconds", "own_seconds", "taken_over_seconds", "wall_seconds", "taken_over")
    return {n: v for n, v in result.items() if n not in apart}


@pytest.mark.slow
def test_a_killed_run_resumes_to_what_it_would_have_been(tmp_path: Path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    first = lucibot("run", "cut_dough", "--out", str(killed), *SETTINGS, wait=False)
    deadline = time.monotonic() + 1200
    while not list(killed.glob("cut_dough/*/50_optimize/*/checkpoints/*_000.npz")):
        assert first.poll() is None, first.stdout.read()[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.5)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    (run,) = (killed / "cut_dough").iterdir()
    # What was planted is kept for measurement only: the rest of the run does without it.
    for planted in list(run.glob("20_imagine/**/planted")):
        shutil.rmtree(planted)
    lucibot("resume", str(run))
    lucibot("run", "cut_dough", "--out", str(whole), *SETTINGS)
    (undisturbed,) = (whole / "cut_dough").iterdir()
    found = outcome(run)
    assert found == outcome(undisturbed)
    assert found["rollouts"] == 4 and found["same_loss_when_replayed"]
    assert (run / "report.html").stat().st_size > 100_000
    lucibot("resume", str(run))
    assert outcome(run) == found
