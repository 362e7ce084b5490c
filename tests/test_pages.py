"""The pages, report and comparison, in a real browser: Debian's chromium without a screen, spoken to through
its debugging pipe (the DevTools protocol: JSON messages that end with a zero byte)."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from lucibot.cli import main
from lucibot.core.video import Video, write_video
from lucibot.report.compare import Compared, differing, write_comparison
from lucibot.report.data import (
    CandidateRow,
    Comparison,
    MaskFrame,
    Metric,
    ReportData,
    Rollouts,
    Timing,
)
from lucibot.report.page import write_report
from lucibot.store.result import Result
from lucibot.store.run import RunDirectory, StageFolder, write_json

PHONE_PX, DESK_PX = 390, 1280
PATIENCE_S = 60


class Browser:
    """One page of a headless chromium."""

    def __init__(self, program: str, profile: Path):
        ours = os.pipe(), os.pipe()
        # The ends are put above 3 and 4, where the browser looks for them.
        (its_in, self._out), (self._in, its_out) = (
            [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in pair] for pair in ours
        )
        for fd in (*ours[0], *ours[1]):
            os.close(fd)

        def ends() -> None:
            os.dup2(its_in, 3)
            os.dup2(its_out, 4)

        self._process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
             "--mute-audio", f"--user-data-dir={profile}", "about:blank"],
            close_fds=False, preexec_fn=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(its_in)
        os.close(its_out)
        self._number, self._rest, self._session = 0, b"", None
        self.said: list[str] = []
        """Errors and warnings of the console, and what was thrown, since the page was opened."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        told = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = told["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _receive(self) -> dict:
        until = time.monotonic() + PATIENCE_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0, until - time.monotonic()))
            assert ready, f"the browser says nothing for {PATIENCE_S} s"
            more = os.read(self._in, 1 << 20)
            assert more, f"the browser has ended with status {self._process.wait()}"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        told = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.said.append(str(told["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.said.append(str(told["args"]))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.said.append(told["entry"]["text"])
        return message

    def open(self, file: Path, width_px: int) -> None:
        self.said.clear()
        self.send("Emulation.setDeviceMetricsOverride", width=width_px, height=844,
                  deviceScaleFactor=1, mobile=width_px == PHONE_PX)  # fmt: skip
        self.send("Page.navigate", url=file.resolve().as_uri())
        self.ask(
            "new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))"
        )

    def ask(self, script: str):
        """What a script, or the promise that it is, comes to."""
        told = self.send("Runtime.evaluate", expression=script, awaitPromise=True,
                         returnByValue=True, userGesture=True)  # fmt: skip
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def close(self) -> None:
        os.close(self._out)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium here to look at pages with (Debian: apt install chromium)")
    found = Browser(program, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (120, 160, 3), np.uint8)


def film(path: Path, seed: int = 0) -> Path:
    write_video(path, Video(frames=np.stack([picture(seed + t) for t in range(20)]), fps=20.0))
    return path


def rollouts(count: int, terms: tuple[str, ...] = ("target_iou", "contact")) -> Rollouts:
    rng = np.random.default_rng(count)
    values = {t: rng.random(count) for t in terms}
    failed = np.arange(count) % 5 == 4
    return Rollouts(
        generation=np.arange(count) // 4, loss=np.where(failed, np.inf, sum(values.values())),
        terms=values, failed=failed, weights=dict.fromkeys(terms, 1.0),
    )  # fmt: skip


@pytest.fixture
def report(tmp_path) -> Path:
    mask = np.zeros((1, 120, 160), bool)
    mask[0, 20:50, 20:60] = True
    one = film(tmp_path / "film.mp4")
    long = "optimize.objective.weights." + "settled_part_distance" * 3
    data = ReportData(
        title="Cut the dough in two with a knife", instruction="Cut it.", success=True,
        objects=("knife",), first_frame=picture(1), film=one, chosen_video=one, fps=20.0,
        headline={"score": "1.00", "loss": "0.412", "rollouts": "112", "video": "storyboard"},
        candidates=(CandidateRow(name="candidate 0", video=one, total=13.0, usable=True, chosen=True,
                                 reasons=(long,), pictures=((picture(2), "Frame 2: a spot."),)),),
        masks=(MaskFrame(index=0, image=picture(3), masks=mask),),
        keyframes=(3, 9), keyframe_images=(picture(4), picture(5)), actuators=("knife",),
        held=np.ones((2, 1), bool), rollouts=rollouts(16),
        comparisons=(Comparison(keyframe=0, frame=3, video=picture(6), simulation=picture(7)),),
        metrics=(Metric(name=long, value="2", wanted="2", passed=True),),
        timings=(Timing(stage="scene", seconds=12.0),), notes=(long,), provenance={"digest": "0f" * 40},
    )  # fmt: skip
    write_report(data, tmp_path / "report.html")
    return tmp_path / "report.html"


@pytest.fixture
def runs(tmp_path) -> list[Compared]:
    told = {"instruction": "Do it.", "first_frame": picture(1)}
    both = {"--optimize.search.population": "16", "task": "cut_dough"}
    return [
        Compared(letter="A", run="20261129-051642_a7b6", title="cut_dough", outcome="success",
                 success=True, film=film(tmp_path / "a.mp4"), chosen_video=film(tmp_path / "v.mp4", 9),
                 rollouts=rollouts(24), loss=0.41, terms={"target_iou": 0.1, "contact": 0.0},
                 metrics={"pieces": 2.0}, seconds={"scene": 3.0}, settings=both | {"seed": "0"},
                 facts={"loss": "0.41"}, **told),
        Compared(letter="B", run="20261129-052725_83f4", title="open_drawer", 
                 outcome="no success (score 0.94: pieces(dough) 1, wanted 2; at(knife) 0.061, wanted 0.04)",
                 film=film(tmp_path / "b.mp4", 3), rollouts=rollouts(1, ("contact", "around")),
                 loss=None, terms={"contact": 0.2, "around": None}, settings=both | {"seed": "1"},
                 **told),
        Compared(letter="C", run="20261129-052725_0000", title="cut_dough",
                 outcome="unfinished, after perceive", settings={**both, "video: <x>": "<b>"}, **told),
        Compared(letter="D", run="20261129-052725_0001", title="cut_dough", outcome="nothing finished",
                 instruction="Do it."),
    ]  # fmt: skip


@pytest.fixture
def comparison(runs, tmp_path) -> Path:
    write_comparison(runs, tmp_path / "compare.html")
    return tmp_path / "compare.html"


@pytest.mark.parametrize("page", ["report", "comparison"])
def test_a_page_shows_in_a_browser_what_it_holds(page, browser, request):
    file = request.getfixturevalue(page)
    for width in (DESK_PX, PHONE_PX):
        browser.open(file, width)
        assert browser.ask("document.documentElement.scrollWidth") <= width
        assert browser.ask("parseFloat(getComputedStyle(document.body).fontSize)") >= 16
        images = browser.ask(
            "[...document.images].map(i => { i.loading = 'eager'; return i; }) && "
            "Promise.all([...document.images].map(async i => { await i.decode(); "
            "return [i.alt.trim().length, i.naturalWidth, i.getBoundingClientRect().width]; }))"
        )
        assert images and all(words and there for words, there, _ in images)
        assert all(shown <= width for _, _, shown in images)
        drawn = browser.ask(
            "[...document.querySelectorAll('svg[role=img]')].map(s => s.getAttribute('aria-label'))"
        )
        assert drawn and all(drawn)
        played = browser.ask(
            "Promise.all([...document.querySelectorAll('video')].map(async v => { v.loop = false;"
            " v.currentTime = 0; await v.play(); await new Promise(r => setTimeout(r, 400));"
            " return [v.getAttribute('aria-label'), v.videoWidth, v.currentTime, v.error && v.error.message]; }))"
        )
        assert len(played) >= 3
        for words, there, seconds, error in played:
            assert words and there == 160 and seconds > 0.05 and error is None, played
        assert browser.said == []


def test_the_films_of_a_comparison_play_together(browser, comparison):
    browser.open(comparison, DESK_PX)
    browser.ask("document.querySelector('#films button').click()")
    at = browser.ask(
        "new Promise(r => setTimeout(r, 400)).then(() => "
        "[...document.querySelectorAll('video')].map(v => [v.closest('section').id, v.currentTime]))"
    )
    films = [t for section, t in at if section == "films"]
    assert len(films) == 2 and min(films) > 0.05 and max(films) - min(films) < 0.3
    assert all(t == 0 for section, t in at if section != "films")


def test_a_comparison_lists_what_differs_and_nothing_else(runs, comparison):
    assert [(r.name, r.cells) for r in differing(runs[:2])] == [("seed", ("0", "1"))]
    rows = {r.name: r.cells for r in differing(runs[:3])}
    assert rows["seed"] == ("0", "1", "–") and "task" not in rows
    text = comparison.read_text()
    assert ">&lt;b&gt;</td>" in text and "<b>" not in text.split("What differs")[1], (
        "values are escaped"
    )
    assert "different scales" in text and "It came no further: unfinished, after perceive" in text


def test_a_comparison_of_like_runs_marks_the_least(runs, tmp_path):
    write_comparison([runs[0], runs[0]], tmp_path / "same.html")
    text = (tmp_path / "same.html").read_text()
    assert "Nothing: all were run with the same settings" in text and 'class="yes"' not in text
    other = dataclasses.replace(runs[0], letter="B", loss=0.3)
    write_comparison([runs[0], other], tmp_path / "two.html")
    text = (tmp_path / "two.html").read_text()
    assert '<td class="yes">0.3</td>' in text and '<td class="yes">0.41</td>' not in text
    assert "different scales" not in text


def run_directory(out: Path, task: str, *, seed: int, chosen: int | None, finished: bool) -> Path:
    """A run as its stages leave it, up to the replay or to the choice of a video."""
    config = {"type": "RunConfig", "optimize": {"type": "O", "search": {"type": "S", "population": 8 + seed}},
              "video": {"type": "StoryboardVideo", "kind": "storyboard"}}  # fmt: skip
    record = {"task": f"/gone/{task}", "instruction": "Do  it.\n", "seed": seed, "config": config}
    run, digests = RunDirectory.create(out, task, record), {}

    def stage(number: int, name: str) -> StageFolder:
        folder = StageFolder(run.path / f"{number}_{name}" / "f", "f")
        folder.path.mkdir(parents=True)
        return folder

    def finish(folder: StageFolder, name: str, *needs: str) -> None:
        folder.finish(
            config={}, inputs={n: digests[n] for n in needs}, seconds=1.0, notes=[]
        )  # fmt: skip
        digests[name] = folder.digest()

    imagine, select = stage(20, "imagine"), stage(30, "select")
    film(imagine.path / "candidate_0.mp4", seed)
    finish(imagine, "imagine")
    told = {"chosen": chosen, "candidates": [{"file": "candidate_0.mp4"}], "usable_above": 12}
    write_json(select.path / "verdicts.json", told)
    finish(select, "select", "imagine")
    if not finished:
        return run.path
    perceive, optimize, execute = (
        stage(n, s) for n, s in ((40, "perceive"), (50, "optimize"), (60, "execute"))
    )
    finish(perceive, "perceive", "imagine", "select")
    r = rollouts(8)
    np.savez(optimize.path / "history.npz", loss=r.loss.reshape(2, 4), failed=r.failed.reshape(2, 4),
             **{n: v.reshape(2, 4) for n, v in r.terms.items()})  # fmt: skip
    write_json(optimize.path / "search.json", {"weights": r.weights})
    finish(optimize, "optimize", "perceive")
    film(execute.path / "film.mp4", 2 * seed)
    finish(execute, "execute", "perceive", "optimize")
    blank = {f.name: None for f in dataclasses.fields(Result)}
    write_json(run.path / "result.json", blank | {
        "task": task, "seed": seed, "success": True, "score": 1.0, "missed": [], "loss": 0.25,
        "terms": {"contact": 0.125}, "metrics": {"pieces": 2.0}, "rollouts": 8, "cost_usd": 0.5,
        "seconds": {"execute": 2.0}, "video": {"kind": "storyboard"},
        "robot": {"arm": "franka", "success": False},
    })  # fmt: skip
    return run.path


def test_runs_are_read_as_far_as_they_came(tmp_path, browser, capsys):
    done, rejected = (
        run_directory(tmp_path / "runs", "cut", seed=seed, chosen=chosen, finished=finished)
        for seed, chosen, finished in ((0, 0, True), (1, None, False))
    )
    out = tmp_path / "new" / "two.html"
    assert main(["compare", str(done), str(rejected), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"comparison: {out}\n"
    browser.open(out, PHONE_PX)
    rows = browser.ask(
        "[...document.querySelectorAll('tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    for row in (["--optimize.search.population", "8", "9"], ["seed", "0", "1"], ["pieces", "2", "–"],
                ["loss", "0.25", "–"], ["contact", "0.125", "–"], ["execute", "2.0", "–"]):  # fmt: skip
        assert row in rows, row
    assert not [r for r in rows if r[0] == "--video"], "what is the same is left out"
    text = browser.ask("document.body.textContent.replace(/\\s+/g, ' ')")
    assert "unfinished, after select" in text
    assert "arm franka no success".replace(" ", "") in text.replace(" ", "") and "0.50 USD" in text
    assert browser.ask("document.querySelectorAll('video').length") == 2
    assert browser.ask("document.documentElement.scrollWidth") <= PHONE_PX and not browser.said


@pytest.mark.parametrize(
    "runs, more, said",
    [
        ("a", "", "give 2 to 26 runs to compare; there is 1"),
        ("aa", "", "is given twice"),
        ("ax", "", "is no run directory"),
        ("ab", "--out .", "is a folder; give a file's name"),
        ("ab", "--out a/run.json/page.html", "cannot be written"),
    ],
)
def test_what_cannot_be_compared_is_one_line(runs, more, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate("ab"):
        run_directory(tmp_path / "runs", "cut", seed=i, chosen=None, finished=False).rename(name)
    assert main(["compare", *runs, *more.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error and not Path("compare.html").exists()
