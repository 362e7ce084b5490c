"""Runs that pay, by the command line, against servers on this machine: what is said before, what is
bought and what is not, where it is counted, and that no key is in anything that they leave."""

from __future__ import annotations

import base64
import json
import logging
import re
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from werkzeug import Request, Response

from lucibot import cli
from lucibot.core.video import Video, write_video

pytest.importorskip("openai", reason="pip install 'lucibot[vlm]'")
pytest.importorskip("runwayml", reason="pip install 'lucibot[runway]'")
pytest.importorskip("fal_client", reason="pip install 'lucibot[fal]'")

KEYS = {
    "RUNWAYML_API_SECRET": "key-planted-0123-runway", "FAL_KEY": "key-planted-4567-fal",
    "KLING_ACCESS_KEY": "key-planted-8901-access", "KLING_SECRET_KEY": "key-planted-2345-secret",
    "OPENAI_API_KEY": "key-planted-6789-openai",
}  # fmt: skip


@pytest.fixture(scope="session")
def make_httpserver():
    from pytest_httpserver import HTTPServer

    with HTTPServer(threaded=True) as server:
        yield server


class Server:
    """Runway, fal, Kling and a server of language models in one. Whatever goes wrong, it repeats what it
    was sent: its headers, too. The clips that it gives begin with the picture that it was sent."""

    def __init__(self, url: str, folder: Path):
        self.url, self.folder = url, folder
        self.taken: list[str] = []
        self.wrong: list[str] = []
        """What goes wrong with the next purchases: "refuse" the key, "fail" or "moderate" the job."""
        self.ends: dict[int, str] = {}

    def handle(self, request: Request) -> Response:
        if request.path.startswith("/files/"):
            return Response((self.folder / request.path.rpartition("/")[2]).read_bytes())
        if request.path.endswith("/chat/completions"):
            return self.chat(request)
        if request.method == "POST":
            return self.submit(request)
        return self.look(request)

    def said(self, request: Request) -> str:
        token = request.headers["Authorization"]
        return f"no, {token}, {token.rpartition(' ')[2]}"

    def chat(self, request: Request) -> Response:
        if self.wrong and self.wrong[0] == "refuse":
            self.wrong.pop(0)
            return _json({"error": {"message": self.said(request)}}, 401)
        told = json.dumps(
            {"prompt": "the hand does the task, seen by a static camera", "negative_prompt": "x"}
        )
        return _json(
            {
                "id": "c", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "finish_reason": "stop",
                             "message": {"role": "assistant", "content": told}}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
            }
        )  # fmt: skip

    def submit(self, request: Request) -> Response:
        wrong = self.wrong.pop(0) if self.wrong else ""
        if wrong == "refuse":
            words = self.said(request)
            return _json({"error": words, "detail": words, "message": words, "code": 1002}, 401)
        told = request.get_json()
        job = len(self.taken)
        self.taken.append(request.path)
        self.ends[job] = wrong
        image = told.get("promptImage") or told.get("image_url") or told["image"]
        self.draw(job, base64.b64decode(image.rpartition(",")[2]))
        at = f"{self.url}/a/b/requests/{job}"
        return _json(
            {"id": str(job), "request_id": str(job), "response_url": at, "status_url": at,
             "cancel_url": at, "code": 0, "data": {"task_id": str(job)}}
        )  # fmt: skip

    def draw(self, job: int, png: bytes) -> None:
        picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        rng = np.random.default_rng(job)
        frames = np.stack([picture] * 12).astype(int) + rng.integers(-2, 3, (12, *picture.shape))
        video = Video(frames=np.clip(frames, 0, 255).astype(np.uint8), fps=12)
        write_video(self.folder / f"{job}.mp4", video, crf=6)

    def look(self, request: Request) -> Response:
        job = int(re.search(r"/(\d+)(/status)?$", request.path)[1])
        url, end = f"{self.url}/files/{job}.mp4", self.ends[job]
        words = f"{'moderation: ' if end == 'moderate' else ''}{self.said(request)}"
        fine = {
            "status": "COMPLETED" if "requests" in request.path else "SUCCEEDED", "logs": None,
            "output": [url], "video": {"url": url}, "code": 0, "cost": {"credits": 60},
            "data": {"task_status": "succeed", "task_result": {"videos": [{"url": url}]}},
        }  # fmt: skip
        bad = {
            "status": "COMPLETED" if "requests" in request.path else "FAILED", "logs": None,
            "failure": words, "error": words, "code": 0, "cost": {"credits": 0},
            "data": {"task_status": "failed", "task_status_msg": words},
        }  # fmt: skip
        return _json(bad if end else fine)


def _json(told: dict, status: int = 200) -> Response:
    return Response(json.dumps(told), status=status, content_type="application/json")


@pytest.fixture
def server(httpserver, tmp_path, monkeypatch) -> Server:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    # What is written of faults goes where it is looked at, too.
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "service").mkdir()
    made = Server(httpserver.url_for("").rstrip("/"), tmp_path / "service")
    httpserver.expect_request(re.compile(".*")).respond_with_handler(made.handle)
    return made


@pytest.fixture
def task(small_task, tmp_path) -> Path:
    return small_task("cut_dough", tmp_path / "cut_dough", width=160, height=120, fps=12).folder


class Line:
    """The command line, on one run."""

    def __init__(self, task: Path, out: Path, capfd):
        self.task, self.out, self.capfd = task, out, capfd
        self.said = ""

    def __call__(self, *words: str) -> tuple[int, str]:
        status = cli.main(list(words))
        said = "".join(self.capfd.readouterr())
        self.said += said
        return status, said

    def run(self, *words: str) -> tuple[int, str]:
        return self(
            "run", str(self.task), "--out", str(self.out), "--scene.renderer", "raster", "--until",
            "imagine", *words,
        )  # fmt: skip

    def resume(self, *words: str) -> tuple[int, str]:
        return self("resume", str(self.folder), "--until", "imagine", *words)

    @property
    def folder(self) -> Path:
        (found,) = self.out.glob("cut_dough/*")
        return found


@pytest.fixture
def line(task, tmp_path, capfd) -> Line:
    return Line(task, tmp_path / "runs", capfd)


def runway(server: Server) -> list[str]:
    return ["--video", "runway", "--video.base-url", server.url, "--video.candidates", "2",
            "--video.poll-s", "0.01", "--video.first-wait-s", "0"]  # fmt: skip


def test_what_is_paid_is_said_before_and_counted_after(line, server):
    # Nothing is made and nobody is asked by a dry run.
    status, said = line.run(*runway(server), "--dry-run", "--max-usd", "1.8")
    assert status == 0 and not server.taken and not line.out.exists()
    assert "up to 2 x videos of 5 s by runway gen4.5, 1.25 USD each" in said
    assert "in all up to 2 calls, at most 2.50 USD; the cap is 1.8 USD, and stops the run" in said
    assert "examples looked up on 2026-" in said
    # The same is said before a run that pays; the cap stops it before what would pass it.
    status, said = line.run(*runway(server), "--max-usd", "1.8", "--video.at-once", "1")
    assert status == 1 and "at most 2.50 USD" in said and len(server.taken) == 1
    assert "could cost 1.25 USD, and 0.6 of the 1.8 USD that this run may spend are spent" in said
    # What there is already is not asked for again.
    status, said = line("resume", str(line.folder), "--dry-run", "--max-usd", "none")
    assert status == 0 and "1 of them are there already" in said and len(server.taken) == 1
    assert (
        "in all up to 1 call, at most 1.25 USD; 0.60 USD are spent already; no cap is set" in said
    )
    status, said = line.resume("--max-usd", "none")
    assert status == 0 and len(server.taken) == 2
    # Runway says what its jobs came to, 60 credits each.
    page = (line.folder / "report.html").read_text()
    assert "1.20 USD in all" in page and "video runway gen4.5" in page
    status, said = line("resume", str(line.folder), "--dry-run")
    assert said == "nothing is paid\n" and status == 0
    status, said = line("resume", str(line.folder), "--dry-run", "--video.candidates", "4")
    assert "up to 4 x videos" in said and "2 of them are there already" in said
    assert len(server.taken) == 2


def test_what_a_run_still_lacks_is_said_by_a_dry_one(line, server, monkeypatch):
    status, said = line.run("--video", "command", "--dry-run")
    assert status == 0 and "it cannot begin yet" in said and "--video.command" in said
    monkeypatch.delenv("RUNWAYML_API_SECRET", raising=False)
    status, said = line.run(*runway(server), "--dry-run")
    assert status == 0 and "at most 2.50 USD" in said
    assert "it cannot begin yet" in said and "RUNWAYML_API_SECRET" in said
    assert not server.taken and not line.out.exists()


def test_a_price_that_nobody_knows_is_asked_for_where_there_is_a_cap(line, server, tmp_path):
    words = [*runway(server), "--video.model", "seedance2", "--video.candidates", "1"]
    status, said = line.run(*words, "--dry-run")
    assert status == 0 and "0.00 USD and what 1 of them cost, of which no price is known" in said
    status, said = line.run(*words, "--max-usd", "5")
    assert status == 2 and "no price is known" in said and not server.taken
    table = tmp_path / "prices.toml"
    table.write_text('checked = "today"\n[video.runway]\n"seedance2" = { usd_per_clip = 0.7 }\n')
    status, said = line.resume("--services.prices", str(table), "--max-usd", "5")
    assert status == 0 and "0.7 USD each" in said and "prices.toml" in said
    assert len(server.taken) == 1
    for text, named in (
        ("[video", "is no TOML"),
        ('[video.runway]\n"a" = { usd_per_secnd = 1 }', "Did you mean 'usd_per_second'"),
        ('[video.runway]\n"a" = { usd_per_second = -1 }', "greater than or equal to 0"),
    ):
        table.write_text(text)
        bad = tmp_path / f"{len(text)}.toml"
        bad.write_text(text)
        status, said = line.run(*words, "--dry-run", "--services.prices", str(bad))
        assert status == 2 and named in said and said.count("\n") == 1
    status, said = line.run(*words, "--dry-run", "--services.prices", str(tmp_path / "no.toml"))
    assert status == 2 and "cannot be read" in said


def test_no_key_is_in_anything_that_a_run_leaves_says_or_logs(line, server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    members = {
        "runway": ["--video.base-url", server.url], "fal": ["--video.queue-url", server.url],
        "kling": ["--video.base-url", server.url],
    }  # fmt: skip
    vlm = ["--prompt", "vlm", "--prompt.model", "m", "--services.vlm.base-url", f"{server.url}/v1"]
    server.wrong = ["refuse"]
    status, said = line.run(*runway(server), *vlm)
    assert status == 2 and "401" in said
    for kind, where in members.items():
        asks = ["--video", kind, *where, "--video.candidates", "3", "--video.poll-s", "0.01",
                "--video.at-once", "1"]  # fmt: skip
        server.wrong = ["refuse"]
        status, said = line.resume(*asks, *vlm)
        assert status == 2 and "answers 401: no, " in said and "[key]" in said
        server.wrong = ["fail", "moderate", ""]
        status, said = line.resume(*asks, *vlm)
        assert status == 0 and "failed: no, " in said and "refused: moderation: no, " in said
    # A fault of ours is written down in a file of its own.
    server.look = lambda request: 1 / 0
    line.resume("--video", "kling", *members["kling"], "--video.candidates", "4",
                "--video.tries", "1")  # fmt: skip
    files = [p for p in tmp_path.rglob("*") if p.is_file() and "service/" not in str(p)]
    assert len(files) > 40 and any(p.name == "report.html" for p in files)
    told = line.said + "".join(
        r.getMessage() + str(r.exc_text or "") for r in caplog.records if r.name != "werkzeug"
    )
    for name, key in KEYS.items():
        assert key not in told, name
        assert not [p for p in files if key.encode() in p.read_bytes()], name
    # Nor a token that was made from one.
    assert "eyJ" not in told and not [p for p in files if b"eyJhbGciOi" in p.read_bytes()]


def test_what_a_member_lacks_is_said_before_anything_is_made(line, server, monkeypatch, tmp_path):
    monkeypatch.delenv("RUNWAYML_API_SECRET")
    for words, named in (
        (runway(server), "set the environment variable RUNWAYML_API_SECRET"),
        (["--video", "runway", "--video.model", "gen9"], "unknown --video.model 'gen9'"),
        (["--video", "command", "--video.command", "x"], "needs the place holder {image}"),
        (["--video", "replay", "--video.folder", str(tmp_path)], "no candidates of a run"),
        (["--video", "diffusers", "--video.device", "cpu", "--video.model", str(tmp_path / "x")],
         "no such folder"),
    ):  # fmt: skip
        status, said = line.run(*words)
        assert status == 2 and named in said and said.count("\n") == 1
    assert not server.taken and not line.out.exists()
