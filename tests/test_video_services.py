"""Services that videos are bought from: through their real clients, against servers on this machine
that speak their protocols and fail in every way. What is counted is what the server took."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import multiprocessing
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from werkzeug import Request, Response

from lucibot.core.errors import LuciBotError, RunFailed, UserError
from lucibot.core.prompt import Prompt
from lucibot.core.video import Video, why_no_video, write_video
from lucibot.providers.video import FalVideo, KlingVideo, RunwayVideo
from lucibot.providers.video.base import NotTaken, VideoRequest
from lucibot.providers.video.jobs import Jobs
from lucibot.services import Services, ServicesConfig

KEYS = {
    "RUNWAYML_API_SECRET": "key_planted0123456789runway", "FAL_KEY": "planted-id:0123456789fal",
    "KLING_ACCESS_KEY": "planted0access0kling", "KLING_SECRET_KEY": "planted0secret0kling",
}  # fmt: skip
USD = 0.5


@pytest.fixture(scope="session")
def make_httpserver():
    from pytest_httpserver import HTTPServer

    with HTTPServer(threaded=True) as server:
        yield server


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (12, 48, 64, 3), dtype=np.uint8)
    write_video(path, Video(frames=frames, fps=12))
    return path.read_bytes()


@dataclass
class Service:
    """What all fake services do: they count what they take, and fail as they are told to.

    `faults` are used up one a call, by what is called: "submit", "poll" or "download".
    """

    url: str
    clip: bytes
    faults: dict[str, list] = field(default_factory=dict)
    ends: Callable[[int], tuple[str, str]] = lambda index: ("done", "")
    """How the nth job that was taken ends: done, failed, refused or never; and the reason."""
    taken: list[dict] = field(default_factory=list)
    calls: Counter = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def handle(self, request: Request) -> Response:
        with self.lock:
            where = self.where(request)
            self.calls[where] += 1
            waiting = self.faults.get(where, [])
            fault = waiting.pop(0) if waiting else None
            kind, *more = fault or ("well",)
            if where != "download" and not self.knows(request):
                return self.error(401, "who are you?")
            if kind == "status":
                status, headers = more[0], more[1] if len(more) > 1 else {}
                words = more[2] if len(more) > 2 else "no such luck"
                answer = self.error(status, words)
                answer.headers.extend(headers)
                return answer
            # A service that takes a job and says nothing, or nothing sensible, has taken it.
            answer = getattr(self, where)(request)
        if kind == "silent":
            time.sleep(0.6)
        elif kind == "cut":
            whole = answer.get_data()
            answer = Response(whole[: len(whole) // 2], content_type=answer.content_type)
            answer.headers["Content-Length"] = str(len(whole))
        elif kind == "says":
            answer = Response(more[0], content_type="application/json")
        return answer

    def download(self, request: Request) -> Response:
        return Response(self.clip, content_type="video/mp4")

    def file(self, job: int) -> str:
        return f"{self.url}/files/{job}.mp4"

    def where(self, request: Request) -> str:
        if request.path.startswith("/files/"):
            return "download"
        return "submit" if request.method == "POST" else "poll"

    def take(self, request: Request) -> int:
        self.taken.append(json.loads(request.get_data()))
        return len(self.taken) - 1


class Runway(Service):
    config = RunwayVideo

    def settings(self) -> dict:
        return {"base_url": self.url}

    def knows(self, request):
        return request.headers["Authorization"] == f"Bearer {KEYS['RUNWAYML_API_SECRET']}"

    def error(self, status, words):
        return _json({"error": words}, status)

    def submit(self, request):
        assert request.path == "/v1/image_to_video" and request.headers["X-Runway-Version"]
        job = self.take(request)
        assert self.taken[-1]["promptImage"].startswith("data:image/png;base64,")
        return _json({"id": f"task-{job}", "estimatedCost": {"credits": 50}})

    def poll(self, request):
        job = int(request.path.removeprefix("/v1/tasks/task-"))
        if job >= len(self.taken):
            return self.error(404, "no such task")
        state, words = self.ends(job)
        told = {"id": f"task-{job}", "createdAt": "2026-01-01T00:00:00Z"}
        if state == "done":
            more = {"status": "SUCCEEDED", "output": [self.file(job)], "cost": {"credits": 60}}
        elif state == "never":
            more = {"status": "RUNNING", "progress": 0.5, "estimatedCost": {"credits": 50}}
        else:
            code = "SAFETY.INPUT.IMAGE" if state == "refused" else "INTERNAL.BAD_OUTPUT.CODE01"
            more = {
                "status": "FAILED",
                "failure": words,
                "failureCode": code,
                "cost": {"credits": 0},
            }
        return _json(told | more)


class Kling(Service):
    config = KlingVideo
    codes = {400: 1201, 401: 1002, 402: 1102, 404: 1203, 429: 1302, 500: 5000}  # noqa: RUF012

    def settings(self) -> dict:
        return {"base_url": self.url}

    def knows(self, request):
        head, claims, signature = (
            request.headers["Authorization"].removeprefix("Bearer ").split(".")
        )
        wanted = hmac.digest(
            KEYS["KLING_SECRET_KEY"].encode(), f"{head}.{claims}".encode(), hashlib.sha256
        )
        told = json.loads(_unpadded(claims))
        return (
            _unpadded(signature) == wanted and json.loads(_unpadded(head))["alg"] == "HS256"
            and told["iss"] == KEYS["KLING_ACCESS_KEY"]
            and told["nbf"] < time.time() < told["exp"] <= time.time() + 1801
        )  # fmt: skip

    def error(self, status, words):
        code = 1301 if "risk" in words else self.codes[status]
        return _json({"code": code, "message": words, "request_id": "r"}, status)

    def submit(self, request):
        assert request.path == "/v1/videos/image2video"
        job = self.take(request)
        told = self.taken[-1]
        assert told["duration"] == "5" and base64.b64decode(told["image"])[1:4] == b"PNG"
        return self.answer({"task_id": str(job), "task_status": "submitted"})

    def poll(self, request):
        name = request.path.removeprefix("/v1/videos/image2video/")
        ours = [i for i, t in enumerate(self.taken) if t["external_task_id"] == name]
        if not ours and not (name.isdigit() and int(name) < len(self.taken)):
            return self.error(404, "no such task")
        job = ours[0] if ours else int(name)
        state, words = self.ends(job)
        told = {"task_id": str(job), "task_status_msg": words}
        if state == "done":
            videos = [{"id": "v", "url": self.file(job), "duration": "5"}]
            return self.answer(
                {**told, "task_status": "succeed", "task_result": {"videos": videos}}
            )
        return self.answer({**told, "task_status": "processing" if state == "never" else "failed"})

    def answer(self, data):
        return _json({"code": 0, "message": "SUCCEED", "request_id": "r", "data": data})


class Fal(Service):
    config = FalVideo

    def settings(self) -> dict:
        return {"queue_url": self.url}

    def knows(self, request):
        return request.headers["Authorization"] == f"Key {KEYS['FAL_KEY']}"

    def error(self, status, words):
        return _json({"detail": words}, status)

    def submit(self, request):
        model = FalVideo().model
        assert request.path == f"/{model}"
        job = self.take(request)
        told = self.taken[-1]
        assert told["duration"] == "5" and told["image_url"].startswith("data:image/png")
        at = f"{self.url}/fal-ai/kling-video/requests/{job}"
        return _json({"request_id": str(job), "response_url": at, "status_url": f"{at}/status",
                      "cancel_url": f"{at}/cancel", "queue_position": 0})  # fmt: skip

    def poll(self, request):
        job, what = re.fullmatch(
            r"/fal-ai/kling-video/requests/(\d+)(/status)?", request.path
        ).groups()
        if int(job) >= len(self.taken):
            return self.error(404, "no such request")
        state, words = self.ends(int(job))
        if what and state == "never":
            return _json({"status": "IN_PROGRESS", "logs": None})
        if what:
            failed = {"error": words, "error_type": "internal_error"} if state == "failed" else {}
            return _json({"status": "COMPLETED", "logs": None, "metrics": {}, **failed})
        if state == "refused":
            what = {"type": "content_policy_violation", "loc": ["body", "prompt"], "msg": words}
            return _json({"detail": [what]}, 422)
        return _json({"video": {"url": self.file(int(job)), "content_type": "video/mp4"}})


def _json(told: dict, status: int = 200) -> Response:
    return Response(json.dumps(told), status=status, content_type="application/json")


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


MEMBERS = {"runway": Runway, "fal": Fal, "kling": Kling}


@dataclass
class World:
    """One service, one run."""

    service: Service
    folder: Path
    notes: list[str] = field(default_factory=list)
    settings: dict = field(default_factory=dict)

    def jobs(self, **changes) -> Jobs:
        told = {"usd": USD, "poll_s": 1e-3, "first_wait_s": 0.0, "tries": 3, "at_once": 1}
        config = self.service.config(
            **{**told, **self.service.settings(), **self.settings, **changes}
        )
        services = Services(self.folder / "services", ServicesConfig())
        return Jobs(
            self.folder / "candidates", config.create(services), services, note=self.notes.append
        )

    def make(self, count: int = 1, **changes):
        return self.jobs(**changes).make([self.request(i) for i in range(count)])

    def request(self, index: int) -> VideoRequest:
        frame = self.folder / "frame.png"
        if not frame.is_file():
            cv2.imwrite(str(frame), np.full((480, 640, 3), 90, np.uint8))
        return VideoRequest(
            task=SimpleNamespace(name="t"), view=None, scene="s", first_frame=frame,
            first_frame_sha256="0" * 64, prompt=Prompt(text="do it", negative="blur"), seed=3,
            index=index,
        )  # fmt: skip

    @property
    def usd(self) -> float:
        """What a video comes to in the end: Runway says so, 60 credits; elsewhere the price is set."""
        return 0.6 if isinstance(self.service, Runway) else USD

    def spent(self) -> float:
        return Services(self.folder / "services").ledger.spent_usd()


@pytest.fixture(params=MEMBERS)
def world(request, httpserver, tmp_path, clip, monkeypatch) -> World:
    if request.param == "runway":
        pytest.importorskip("runwayml", reason="pip install 'lucibot[runway]'")
    if request.param == "fal":
        pytest.importorskip("fal_client", reason="pip install 'lucibot[fal]'")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    service = MEMBERS[request.param](httpserver.url_for("").rstrip("/"), clip)
    httpserver.expect_request(re.compile(".*")).respond_with_handler(service.handle)
    return World(service, tmp_path)


def test_videos_come_and_the_service_is_told_what_there_is_to_tell(world):
    made = world.make(3, at_once=3)
    assert [c.trouble for c in made] == ["", "", ""] and len(world.service.taken) == 3
    assert all(why_no_video(c.raw) is None for c in made)
    texts = json.dumps(world.service.taken)
    assert texts.count("do it") == 3
    assert world.spent() == pytest.approx(3 * world.usd)
    if isinstance(world.service, Runway):
        seeds = {t["seed"] for t in world.service.taken}
        assert len(seeds) == 3 and all(t["ratio"] == "1104:832" for t in world.service.taken)
        assert "negativePrompt" not in texts  # gen4.5 takes none.
    else:
        assert texts.count("blur") == 3
    assert not world.notes
    assert [c.raw for c in world.make(2)] == [c.raw for c in made[:2]]
    assert len(world.service.taken) == 3


AGAIN = 2
"""After a purchase of which nothing is known, a resumed run asks again, says so, and counts both."""

FAULTS: dict[str, tuple[dict[str, list], str, int, int]] = {
    # name: faults, how it ends, jobs taken by then, jobs taken after a resumed run that finishes
    "key refused": ({"submit": [("status", 401)]}, "user right key", 0, 1),
    "no credit": ({"submit": [("status", 402)]}, "user", 0, 1),
    "wrong request": ({"submit": [("status", 400)]}, "user", 0, 1),
    "busy, says how long": ({"submit": [("status", 429, {"Retry-After": "0"})]}, "done", 1, 1),
    "busy": ({"submit": [("status", 429), ("status", 429)]}, "done", 1, 1),
    "busy for long": ({"submit": [("status", 429, {"Retry-After": "900"})]}, "not taken 900 s", 0, 1),
    "always busy": ({"submit": [("status", 429)] * 3}, "not taken 3 times", 0, 1),
    "broken at submit": ({"submit": [("status", 500)]}, "unknown 500", 0, 1),
    "silent at submit": ({"submit": [("silent",)]}, "unknown did not answer", 1, AGAIN),
    "cut at submit": ({"submit": [("cut",)]}, "unknown", 1, AGAIN),
    "no JSON at submit": ({"submit": [("says", "<html>")]}, "unknown", 1, AGAIN),
    "a list at submit": ({"submit": [("says", "[]")]}, "unknown", 1, AGAIN),
    "no id at submit": ({"submit": [("says", "{}")]}, "unknown", 1, AGAIN),
    "an id of another type": ({"submit": [("says", '{"id": 3, "request_id": null, "data": {}}')]},
                              "unknown", 1, AGAIN),
    "null at submit": ({"submit": [("says", "null")]}, "unknown", 1, AGAIN),
    "key refused at poll": ({"poll": [("status", 401)]}, "user right key", 1, 1),
    "busy at poll": ({"poll": [("status", 429, {"Retry-After": "0"}), ("status", 429)]}, "done", 1, 1),
    "broken at poll": ({"poll": [("status", 500)]}, "done", 1, 1),
    "long broken at poll": ({"poll": [("status", 500)] * 3}, "kept 3 times", 1, 1),
    "silent at poll": ({"poll": [("silent",)]}, "done", 1, 1),
    "cut at poll": ({"poll": [("cut",)]}, "done", 1, 1),
    "no JSON at poll": ({"poll": [("says", "<html>")]}, "done", 1, 1),
    "a list at poll": ({"poll": [("says", "[]")]}, "done", 1, 1),
    "no status at poll": ({"poll": [("says", "{}")]}, "done", 1, 1),
    "a strange status": ({"poll": [("says", '{"status": "ODD", "data": {"task_status": "odd"}}')]},
                         "done", 1, 1),
    "null at poll": ({"poll": [("says", "null")]}, "done", 1, 1),
    "a number as status": ({"poll": [("says", '{"status": 1, "data": {"task_status": 1}}')]},
                           "done", 1, 1),
    "never JSON at poll": ({"poll": [("says", "<html>")] * 3}, "kept", 1, 1),
    "broken download": ({"download": [("status", 500)]}, "done", 1, 1),
    "cut download": ({"download": [("cut",)]}, "done", 1, 1),
    "silent download": ({"download": [("silent",)]}, "done", 1, 1),
    "always cut download": ({"download": [("cut",)] * 3}, "kept broke off", 1, 1),
    "link expired": ({"download": [("status", 404)]}, "kept fresh link", 1, 1),
    "no video": ({"download": [("says", "<html>sorry</html>")]}, "done", 1, 1),
    "never a video": ({"download": [("says", "<html>sorry</html>")] * 2}, "kept no video, 2 times", 1, 1),
    "empty video": ({"download": [("says", "")] * 2}, "kept it is empty", 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_ends_in_a_video_or_in_one_error_and_loses_nothing(world, fault):
    faults, end, taken, after = FAULTS[fault]
    world.service.faults = {where: list(told) for where, told in faults.items()}
    if "silent" in fault:
        world.settings["timeout_s"] = 0.3
    kind, _, words = end.partition(" ")
    if kind == "done":
        assert why_no_video(world.make()[0].raw) is None
        assert world.spent() == pytest.approx(world.usd)
    else:
        with pytest.raises(LuciBotError) as told:
            world.make()
        error, said = told.value, str(told.value)
        assert words.removeprefix("taken ") in said and "\n" not in said
        assert not [k for k in KEYS.values() if k in said]
        if kind == "user":
            assert isinstance(error, UserError) and error.exit_status == 2
        else:
            assert isinstance(error, RunFailed) and error.exit_status == 1
        assert isinstance(error, NotTaken) == (kind == "not")
        # What is not bought counts nothing; of what nobody knows, all that it could have cost.
        over = "download" in faults
        bought = taken or kind == "unknown"
        assert world.spent() == pytest.approx((world.usd if over else USD) if bought else 0.0)
        if kind == "unknown":
            assert world.service.calls["submit"] == 1 and "not known" in said
        if kind == "kept":
            assert "kept" in said
    assert len(world.service.taken) == taken
    # Resumed, with the service well again: nothing that is known to be bought is bought again.
    world.service.faults = {}
    (made,) = world.make()
    assert why_no_video(made.raw) is None
    found = kind == "unknown" and taken and isinstance(world.service, Kling)
    assert len(world.service.taken) == (1 if found else after)
    doubt = [n for n in world.notes if "not known" in n]
    assert bool(doubt) == (kind == "unknown" and not found)


def test_jobs_that_fail_or_are_refused_say_why_and_end_no_other(world):
    ends = {0: ("failed", "out of memory"), 1: ("refused", "it violates our risk control policy")}
    world.service.ends = lambda job: ends.get(job, ("done", ""))
    failed, refused, fine = world.make(3)
    assert failed.trouble.startswith("failed: ") and "out of memory" in failed.trouble
    assert refused.trouble.startswith("refused: ") and "risk control" in refused.trouble
    assert why_no_video(fine.raw) is None and len(world.service.taken) == 3
    # What failed may be asked for again, what was refused is not.
    again = world.make(3)
    assert [bool(c.raw) for c in again] == [True, False, True] and len(world.service.taken) == 4
    if isinstance(world.service, Runway):  # It gives back what failed.
        assert world.spent() == pytest.approx(1.2)


def test_what_is_refused_at_once_is_not_bought_and_ends_no_other(world):
    words = "moderation: the risk control policy is violated"
    world.service.faults = {"submit": [("status", 400, {}, words)]}
    refused, fine = world.make(2)
    assert refused.trouble.startswith("refused: ") and "risk control" in refused.trouble
    assert fine.raw is not None and len(world.service.taken) == 1
    assert world.spent() == pytest.approx(world.usd)
    assert world.make(2) == [refused, fine] and len(world.service.taken) == 1


def test_a_job_that_never_ends_is_left_and_taken_up_again(world):
    world.service.ends = lambda job: ("never", "")
    with pytest.raises(RunFailed, match="is still running after"):
        world.make(patience_s=0.05)
    world.service.ends = lambda job: ("done", "")
    assert world.make()[0].raw is not None and len(world.service.taken) == 1


def test_a_job_that_the_service_has_forgotten_is_asked_for_again(world):
    world.service.ends = lambda job: ("never", "")
    with pytest.raises(RunFailed):
        world.make(patience_s=0.02)
    world.service.taken.clear()
    world.service.ends = lambda job: ("done", "")
    (gone,) = world.make()
    assert "knows this job no more" in gone.trouble
    assert world.make()[0].raw is not None and len(world.service.taken) == 1


@pytest.mark.parametrize("point", ["submit", "poll", "fetch"])
def test_a_run_killed_between_submit_and_fetch_buys_nothing_twice(world, point):
    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    def work():
        jobs = world.jobs()
        if point == "submit":  # Taken, and the id is not on disk yet.
            submit = jobs.model.submit
            jobs.model.submit = lambda request: (submit(request), die())
        else:
            setattr(jobs.model, point, die)
        jobs.make([world.request(0)])

    killed = multiprocessing.get_context("fork").Process(target=work)
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL and len(world.service.taken) == 1
    (made,) = world.make()
    assert why_no_video(made.raw) is None
    lost = point == "submit" and not isinstance(world.service, Kling)
    assert len(world.service.taken) == (2 if lost else 1)
    assert bool([n for n in world.notes if "not known" in n]) == lost


@pytest.mark.parametrize("world", ["fal"], indirect=True)
def test_a_first_frame_that_cannot_be_uploaded_buys_nothing(world, monkeypatch):
    import fal_client
    import httpx

    def upload(self, data, media_type, name):
        raise httpx.ConnectError("no route")

    monkeypatch.setattr(fal_client.SyncClient, "upload", upload)
    with pytest.raises(NotTaken, match=r"no route.*, 3 times; the video was not bought"):
        world.make(upload=True)
    assert world.spent() == 0 and not world.jobs().asked_for(world.request(0))
    (world.folder / "frame.png").unlink()
    jobs, request = world.jobs(), world.request(0)
    request.first_frame.unlink()
    with pytest.raises(NotTaken, match="no video was bought"):
        jobs.make([request])
    assert world.spent() == 0 and not world.service.taken
    world.make()
    assert not world.notes and len(world.service.taken) == 1


@pytest.mark.parametrize("where", ["submit", "poll"])
def test_an_interrupt_ends_the_waiting_to_try_again(world, where):
    def interrupt(number, frame):
        raise KeyboardInterrupt

    world.service.faults = {where: [("status", 429)] * 9}
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            world.make(first_wait_s=60.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begin < 20
    assert world.spent() == (0 if where == "submit" else USD)
    world.service.faults = {}
    assert world.make()[0].raw is not None and len(world.service.taken) == 1


def test_a_missing_key_is_named_and_one_that_is_not_needed_is_not_asked_for(world, monkeypatch):
    made = world.make()
    for name in KEYS:
        monkeypatch.delenv(name)
    assert world.make() == made  # It has all its videos.
    with pytest.raises(UserError, match=f"set the environment variable {_key(world)}"):
        world.make(2)
    assert len(world.service.taken) == 1 and world.spent() <= 0.6


def _key(world: World) -> str:
    return world.service.config.NEEDS.keys[0]
