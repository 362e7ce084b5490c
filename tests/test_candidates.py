"""Candidate videos are jobs: nothing is bought twice, and a bad one does not end the others.

A fake service stands in for a paid model. It keeps its books in a folder of its own, outside the
run, as a real one does, so that it outlives whatever is killed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lucibot.core.errors import RunFailed, UserError
from lucibot.core.prompt import Prompt
from lucibot.providers.video.base import Job, JobState, JobStatus, VideoRequest
from lucibot.providers.video.jobs import Jobs
from lucibot.services import Services, ServicesConfig
from lucibot.services.ledger import CapReached


@pytest.fixture(autouse=True)
def any_bytes_are_a_video(monkeypatch):
    """What is told apart here are bytes; that they are a video is tested with the services."""
    monkeypatch.setattr("lucibot.providers.video.jobs.why_no_video", lambda path: None)


POINTS = ("before_submit", "after_submit", "poll", "fetch", "after_fetch")


class Books:
    """What the service knows: one file a job."""

    def __init__(self, folder: Path):
        self.folder, self.lock = folder, threading.Lock()
        folder.mkdir(exist_ok=True)

    def submitted(self) -> list[dict]:
        return [json.loads(p.read_text()) for p in sorted(self.folder.glob("*.json"))]

    def add(self, asked: dict) -> str:
        with self.lock:
            job = f"job{len(self.submitted())}"
            (self.folder / f"{job}.json").write_text(json.dumps(asked))
            return job


@dataclass
class Paid:
    """A service that kills the process at `dies`, and says of each index what `ends` holds."""

    books: Books
    dies: str = ""
    ends: dict | None = None
    style: str = "plain"
    usd: float | None = 0.5
    kind = "paid"
    at_once = 1
    poll_s = 0.0
    patience_s = 30.0
    fitted = True
    given = False

    def _here(self, point: str) -> None:
        if self.dies == point:
            os._exit(9)

    def identity(self, request):
        return {"style": self.style, **request.told()}

    def price_usd(self, request):
        return self.usd

    def submit(self, request):
        self._here("before_submit")
        job = self.books.add({"index": request.index, "seed": request.own_seed})
        self._here("after_submit")
        return job

    def poll(self, job: Job):
        self._here("poll")
        assert (self.books.folder / f"{job.id}.json").is_file()
        state, why = (self.ends or {}).get(job.request.index, (JobState.DONE, ""))
        return JobStatus(state=state, message=why)

    def close(self): ...

    def fetch(self, job: Job, folder: Path, progress):
        (folder / "clip.mp4").write_bytes(b"half")
        self._here("fetch")
        (folder / "clip.mp4").write_bytes(f"video of {job.request.index}".encode())
        self._here("after_fetch")
        return folder / "clip.mp4"


def request(index: int, **changes) -> VideoRequest:
    told = {
        "task": SimpleNamespace(name="t"), "view": None, "scene": "s", "first_frame": Path("f.png"),
        "first_frame_sha256": "0" * 64, "prompt": Prompt(text="do it", negative="blur"), "seed": 3,
    }  # fmt: skip
    return VideoRequest(**{**told, **changes}, index=index)


def jobs(tmp_path: Path, model: Paid, max_usd: float | None = None, notes: list | None = None):
    services = Services(tmp_path / "services", ServicesConfig(max_usd=max_usd))
    said = notes if notes is not None else []
    return Jobs(tmp_path / "candidates", model, services, note=said.append)


def make(tmp_path: Path, model: Paid, count: int, **more):
    return jobs(tmp_path, model, **more).make([request(i) for i in range(count)])


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_buys_nothing_twice(tmp_path, point):
    books = Books(tmp_path / "service")
    context = multiprocessing.get_context("fork")
    killed = context.Process(target=make, args=(tmp_path, Paid(books, dies=point), 2))
    killed.start()
    killed.join(30)
    assert killed.exitcode == 9
    notes: list[str] = []
    made = make(tmp_path, Paid(books), 2, notes=notes)
    assert [c.raw.read_bytes() for c in made] == [b"video of 0", b"video of 1"]
    indices = [s["index"] for s in books.submitted()]
    # Killed between the service's taking a job and the id's being on disk, a run cannot know of the
    # job; it says that it asks again. Everywhere else each candidate is bought once.
    assert indices == ([0, 0, 1] if point == "after_submit" else [0, 1])
    assert any("asked for again" in n for n in notes) == (
        point in ("before_submit", "after_submit")
    )
    # What may have been charged counts as spent.
    spent = Services(tmp_path / "services").ledger.spent_usd()
    assert spent == pytest.approx(1.5 if "submit" in point else 1.0)


def test_four_and_then_eight_buys_four_more(tmp_path):
    books = Books(tmp_path / "service")
    four = make(tmp_path, Paid(books), 4)
    eight = make(tmp_path, Paid(books), 8)
    assert [s["index"] for s in books.submitted()] == list(range(8))
    assert eight[:4] == four and len({s["seed"] for s in books.submitted()}) == 8
    assert make(tmp_path, Paid(books), 2) == four[:2] and len(books.submitted()) == 8


@pytest.mark.parametrize(
    "changes", [{"prompt": Prompt(text="else", negative="")}, {"seed": 4}, {"first_frame_sha256": "1"}]
)  # fmt: skip
def test_what_the_model_sees_makes_another_candidate(tmp_path, changes):
    books = Books(tmp_path / "service")
    before = jobs(tmp_path, Paid(books))
    assert before.fingerprint(request(0)) != before.fingerprint(request(0, **changes))
    assert before.fingerprint(request(0)) != jobs(tmp_path, Paid(books, style="x")).fingerprint(
        request(0)
    )
    assert before.fingerprint(request(0)) == before.fingerprint(request(0, first_frame=Path("g")))


def test_a_damaged_download_is_fetched_again_and_not_bought(tmp_path):
    books = Books(tmp_path / "service")
    made = make(tmp_path, Paid(books), 3)
    made[1].raw.write_bytes(b"damaged")
    made[2].raw.unlink()
    notes: list[str] = []
    again = make(tmp_path, Paid(books), 3, notes=notes)
    assert again == made and len(books.submitted()) == 3 and len(notes) == 2
    assert [c.raw.read_bytes() for c in again] == [f"video of {i}".encode() for i in range(3)]


def test_a_service_that_has_forgotten_a_damaged_one_is_asked_again(tmp_path):
    books = Books(tmp_path / "service")
    made = make(tmp_path, Paid(books), 2)
    made[1].raw.write_bytes(b"damaged")

    class Forgetful(Paid):
        def poll(self, job):
            gone = job.id in ("job0", "job1")
            return JobStatus(state=JobState.FAILED if gone else JobState.DONE, message="expired")

    assert make(tmp_path, Forgetful(books), 2) == made
    assert [s["index"] for s in books.submitted()] == [0, 1, 1]


def test_refused_and_failed_jobs_say_why_and_end_no_other(tmp_path):
    books = Books(tmp_path / "service")
    ends = {0: (JobState.REFUSED, "a knife is seen"), 2: (JobState.FAILED, "out of memory")}
    made = make(tmp_path, Paid(books, ends=ends), 4)
    assert [c.trouble for c in made] == [
        "refused: a knife is seen",
        "",
        "failed: out of memory",
        "",
    ]
    assert [c.raw is None for c in made] == [True, False, True, False]
    # What was refused is not asked for again; what failed is.
    again = make(tmp_path, Paid(books), 4)
    assert [s["index"] for s in books.submitted()] == [0, 1, 2, 3, 2]
    assert [c.raw is None for c in again] == [True, False, False, False]


def test_the_cap_stops_before_the_job_that_would_pass_it(tmp_path):
    books = Books(tmp_path / "service")
    with pytest.raises(CapReached, match=r"could cost 0\.5 USD, and 1 of the 1\.2 USD"):
        make(tmp_path, Paid(books), 4, max_usd=1.2)
    assert len(books.submitted()) == 2
    assert len(make(tmp_path, Paid(books), 4, max_usd=2.0)) == 4 and len(books.submitted()) == 4
    with pytest.raises(UserError, match="no price is known"):
        make(tmp_path, Paid(books, usd=None, style="other"), 1, max_usd=2.0)
    assert len(books.submitted()) == 4


def test_a_service_that_rejects_the_request_leaves_no_doubt(tmp_path):
    class NoKey(Paid):
        def submit(self, request):
            raise UserError("set SOME_KEY")

    books = Books(tmp_path / "service")
    with pytest.raises(UserError, match="SOME_KEY"):
        make(tmp_path, NoKey(books), 3)
    notes: list[str] = []
    assert len(make(tmp_path, Paid(books), 3, max_usd=1.5, notes=notes)) == 3 and not notes


def test_a_job_that_never_ends_is_left_and_taken_up_again(tmp_path):
    class Slow(Paid):
        patience_s = 0.0

        def poll(self, job):
            return JobStatus(state=JobState.RUNNING, progress=0.1)

    books = Books(tmp_path / "service")
    with pytest.raises(RunFailed, match="job job0 is still running"):
        make(tmp_path, Slow(books), 2)
    assert len(make(tmp_path, Paid(books), 2)) == 2 and len(books.submitted()) == 2


def test_an_interrupt_ends_the_waiting_and_keeps_the_job(tmp_path):
    class Slow(Paid):
        poll_s = 60.0

        def poll(self, job):
            return JobStatus(state=JobState.RUNNING)

    def interrupt(number, frame):
        raise KeyboardInterrupt

    books = Books(tmp_path / "service")
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, Slow(books), 3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begin < 20 and len(books.submitted()) == 1
    assert len(make(tmp_path, Paid(books), 3)) == 3 and len(books.submitted()) == 3


def test_one_error_lets_the_jobs_under_way_come_in(tmp_path):
    class Flaky(Paid):
        at_once = 3

        def poll(self, job):
            if job.request.index == 1:
                raise RunFailed("the service does not answer")
            return super().poll(job)

    books = Books(tmp_path / "service")
    with pytest.raises(RunFailed, match="does not answer"):
        make(tmp_path, Flaky(books), 3)
    bought = len(books.submitted())
    assert len(make(tmp_path, Paid(books), 3)) == 3 and len(books.submitted()) == 3 >= bought


def test_a_record_that_cannot_be_read_is_no_reason_to_buy(tmp_path):
    books = Books(tmp_path / "service")
    (made,) = make(tmp_path, Paid(books), 1)
    (made.folder / "job.json").write_text("{")
    with pytest.raises(RunFailed, match="whether this video was bought is not known"):
        make(tmp_path, Paid(books), 1)
    assert len(make(tmp_path, Paid(books, usd=0.0), 1)) == 1  # What is free is made again.


def test_no_one_is_asked_for_what_two_candidates_share(tmp_path):
    from lucibot.providers.video import FileVideo

    for name, text in (("a.mp4", b"one"), ("b.webm", b"two"), ("copy.mp4", b"one")):
        (tmp_path / name).write_bytes(text)
    paths = tuple(tmp_path / n for n in ("a.mp4", "b.webm", "copy.mp4"))
    model = FileVideo(paths=paths).create()
    a, b, copy = jobs(tmp_path, model).make([request(i) for i in range(3)])
    assert copy == replace(a, index=2) and b.raw.name == "b.webm"
    # Its content is what a file is, not its name.
    paths[0].write_bytes(b"changed")
    changed, same, _ = jobs(tmp_path, model).make([request(i) for i in range(3)])
    assert changed.fingerprint != a.fingerprint and same == b
    assert changed.raw.read_bytes() == b"changed" and a.raw.read_bytes() == b"one"
    paths[1].unlink()
    with pytest.raises(UserError, match=r"no such video: .*b\.webm"):
        jobs(tmp_path, model).make([request(i) for i in range(3)])
    paths[1].mkdir()
    with pytest.raises(UserError, match=r"b\.webm is a folder"):
        jobs(tmp_path, model).make([request(i) for i in range(3)])
    shutil.rmtree(a.folder)


def test_of_eight_drawn_candidates_the_first_four_are_the_four():
    from lucibot.providers.video import StoryboardVideo
    from lucibot.task import load_task

    task = load_task("cut_dough")

    def identities(**settings) -> list[dict]:
        config = StoryboardVideo(**settings)
        model = config.create()
        return [model.identity(request(i, task=task)) for i in range(config.candidates)]

    four = identities(candidates=4)
    eight = identities(candidates=8)
    assert eight[:4] == four and len({json.dumps(i) for i in eight}) == 8
    assert identities(candidates=4, threads=1) == four
    assert identities(candidates=4, noise=2.0)[0] != four[0]
    for group in (eight[:4], eight[4:]):
        assert 1 <= sum(i["fault"] == "" for i in group) <= 3
    assert all(i["fault"] for i in identities(candidates=3, faulty=3))
