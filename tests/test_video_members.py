"""Video members beside the services and the open weights: a command, replayed candidates; and what a
single service does in a way of its own."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from werkzeug import Response

from lucibot.core.errors import RunFailed, UserError
from lucibot.core.prompt import Prompt
from lucibot.core.video import Video, read_video, why_no_video, write_video
from lucibot.options import preset, with_settings
from lucibot.providers.video import (
    CommandVideo,
    EditVideo,
    FalVideo,
    KlingVideo,
    ReplayVideo,
    RunwayVideo,
)
from lucibot.providers.video.base import NotTaken, VideoRequest
from lucibot.providers.video.diffusers import DiffusersModel, DiffusersVideo
from lucibot.providers.video.edit import CommandEditor, HostedEditor
from lucibot.providers.video.jobs import Jobs
from lucibot.providers.video.kling import signed
from lucibot.services import Services, ServicesConfig, VlmConfig

PROMPT = Prompt(text='cut it; with a "knife" & a hand', negative="blur, {text}")


def request(tmp_path: Path, index: int = 0) -> VideoRequest:
    frame = tmp_path / "a frame.png"
    cv2.imwrite(str(frame), np.full((48, 64, 3), 90, np.uint8))
    return VideoRequest(
        task=SimpleNamespace(spec=SimpleNamespace(camera=SimpleNamespace(fps=12.0))), view=None,
        scene="s", first_frame=frame, first_frame_sha256="0" * 64, prompt=PROMPT, seed=3, index=index,
    )  # fmt: skip


def make(tmp_path: Path, config, count: int, notes: list | None = None, name: str = "candidates"):
    services = Services(tmp_path / "services", ServicesConfig())
    said = notes if notes is not None else []
    jobs = Jobs(tmp_path / name, config.create(services), services, note=said.append)
    return jobs.make([request(tmp_path, i) for i in range(count)])


PROGRAM = """
import json, sys
import cv2, numpy as np
from pathlib import Path
from lucibot.core.video import Video, write_video
image, prompt, negative, seed, width, height, fps, video = sys.argv[1:]
assert prompt == 'cut it; with a "knife" & a hand' and negative == "blur, {text}", (prompt, negative)
picture = cv2.imread(image)
assert picture.shape == (int(height), int(width), 3)
frames = np.full((4, *picture.shape), int(seed) % 256, np.uint8)
write_video(Path(video), Video(frames=frames, fps=float(fps)))
"""


@pytest.fixture
def program(tmp_path) -> Path:
    path = tmp_path / "my model.py"
    path.write_text(PROGRAM)
    return path


def command(program: Path, rest: str = "") -> str:
    return (
        f"'{sys.executable}' '{program}' {{image}} {{prompt}} {{negative}} {{seed}} {{width}} {{height}} "
        f"{{fps}} {{video}} {rest}"
    ).strip()


def test_any_program_makes_candidates(tmp_path, program):
    made = make(tmp_path, CommandVideo(command=command(program), at_once=2), 2)
    videos = [read_video(c.raw) for c in made]
    assert all(v.frames.shape == (4, 48, 64, 3) and v.fps == 12 for v in videos)
    for i, v in enumerate(videos):  # Each has a seed of its own.
        assert abs(float(v.frames.mean()) - request(tmp_path, i).own_seed % 256) < 4


ALL = "x {image} {prompt} {seed} {video}"


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", UserError, r"needs the place holder \{image\}"),
        (f"{ALL} {{size}}", UserError, r"no place holder \{size\}; there are \{image\}, .*\{fps\}"),
        (f"{ALL} '{{\"a\":1}}'", UserError, r"other braces are doubled: \{\{ and \}\}"),
        (f"{ALL} {{", UserError, r"--video.command: it cannot be read \("),
        (f"{ALL} {{}}", UserError, r"--video.command: it cannot be read \("),
        (f"{ALL} {{seed:04d}}", UserError, r"--video.command: it cannot be read \("),
        (f"{ALL} 'open", UserError, r"--video.command: it cannot be read \(No closing quotation"),
        ("x {image} {prompt} {video}", UserError, r"needs the place holder \{seed\}"),
        ("/no/such {image} {prompt} {seed} {video}", UserError, "cannot be started"),
        ("false {image} {prompt} {seed} {video}", RunFailed, "ended with status 1"),
        ("true {image} {prompt} {seed} {video}", RunFailed, "wrote no video"),
        ("sleep 9 {image} {prompt} {seed} {video}", RunFailed, "status 1|took longer"),
    ],
)
def test_what_a_program_may_do_wrong_is_one_line(tmp_path, text, error, said):
    with pytest.raises(error, match=said):
        make(tmp_path, CommandVideo(command=text, timeout_s=0.5), 1)


def test_other_weights_in_the_same_folder_are_another_model(tmp_path):
    def identity(name: str) -> dict:
        config = DiffusersVideo(model=name)
        return DiffusersModel.identity(SimpleNamespace(config=config), request(tmp_path, 0))

    weights = tmp_path / "weights" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"one")
    first = identity(str(weights.parent))
    assert identity(str(weights.parent)) == first
    weights.write_bytes(b"two")
    assert identity(str(weights.parent)) != first
    assert identity("Wan-AI/other")["model"] == "Wan-AI/other"


def record(folder: Path, index: int, state: str, **more) -> None:
    folder.mkdir(parents=True)
    told = {"index": index, "state": state, "time": float(index), "message": "", **more}
    (folder / "job.json").write_text(json.dumps(told))


def test_candidates_of_an_earlier_run_are_replayed(tmp_path, program):
    earlier = make(tmp_path, CommandVideo(command=command(program)), 2)
    folder = tmp_path / "candidates"
    record(folder / "b", 2, "refused", message="a knife is seen")
    record(folder / "c", 3, "failed", message="out of memory")
    record(folder / "d", 4, "submitted", job="x")  # Nothing had come of it yet.
    config = ReplayVideo(folder=folder)
    assert config.candidates == 4
    notes: list[str] = []
    made = make(tmp_path, config, 4, notes, name="again")
    assert [c.raw.read_bytes() for c in made[:2]] == [c.raw.read_bytes() for c in earlier]
    assert [c.trouble for c in made[2:]] == ["refused: a knife is seen", "failed: out of memory"]
    assert config.create().price_usd(request(tmp_path)) == 0
    earlier[1].raw.unlink()
    with pytest.raises(UserError, match=r"the recorded video .* is gone"):
        make(tmp_path, config, 4, name="third")


def test_a_folder_that_holds_no_candidates_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder; give RUN/20_imagine/candidates"):
        with_settings(preset("quick"), {"video.folder": str(tmp_path / "nowhere")})
    config = with_settings(preset("quick"), {"video": "replay", "video.folder": str(tmp_path)})
    with pytest.raises(UserError, match="no candidates of a run; give RUN/20_imagine/candidates"):
        _ = config.video.candidates
    record(tmp_path / "a", 0, "refused")
    (tmp_path / "a/job.json").write_text("{")
    with pytest.raises(UserError, match=r"a/job\.json is damaged"):
        _ = ReplayVideo(folder=tmp_path).recorded


def test_what_is_no_video_is_told_from_what_is(tmp_path):
    path = tmp_path / "clip.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (24, 48, 64, 3), dtype=np.uint8)
    write_video(path, Video(frames=frames, fps=24))
    whole = path.read_bytes()
    assert why_no_video(path) is None
    for content, said in (
        (b"", "empty"), (b'{"error": "gone"}', "gone"), (whole[: len(whole) // 2], "cut off"),
    ):  # fmt: skip
        path.write_bytes(content)
        assert said in why_no_video(path)
    cv2.imwrite(str(tmp_path / "picture.png"), frames[0])
    assert "1 of 2 frames" in why_no_video(tmp_path / "picture.png")


def test_a_key_that_is_cut_in_two_is_hidden_all_the_same(monkeypatch):
    from lucibot.services.keys import key, quoted

    monkeypatch.setenv("SOME_KEY", "planted-0123456789-key")
    key("SOME_KEY", wanted_for="a test")
    assert quoted("x" * 290 + " planted-0123456789-key") == "x" * 290 + " [key]"


# What single services do in ways of their own.


@pytest.fixture(scope="session")
def make_httpserver():
    from pytest_httpserver import HTTPServer

    with HTTPServer(threaded=True) as server:
        yield server


def test_a_token_says_who_asks_and_until_when():
    import base64
    import hashlib
    import hmac

    head, claims, signature = signed("who", "secret", 1_000_000.9).split(".")
    told = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert told == {"iss": "who", "exp": 1_001_800, "nbf": 999_995}
    wanted = hmac.new(b"secret", f"{head}.{claims}".encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + "=") == wanted and "=" not in signature


@pytest.mark.parametrize(
    ("status", "code", "error", "said"),
    [
        (429, 1102, UserError, "empty account"),  # Kling answers so where the account is empty,
        (
            429,
            1303,
            RunFailed,
            "3 times; the video was not bought",
        ),  # and where it has too many jobs.
        (200, 1201, UserError, "code 1201"),  # An error may come with a status of 200.
        (503, 5001, RunFailed, "whether the video was bought is not known"),
    ],
)
def test_klings_own_codes_say_more_than_its_status(
    tmp_path, httpserver, monkeypatch, status, code, error, said
):
    monkeypatch.setenv("KLING_ACCESS_KEY", "access-planted")
    monkeypatch.setenv("KLING_SECRET_KEY", "secret-planted")
    httpserver.expect_request("/v1/videos/image2video").respond_with_json(
        {"code": code, "message": "empty account"}, status=status
    )
    config = KlingVideo(base_url=httpserver.url_for(""), tries=3, first_wait_s=0.0, usd=0.3)
    with pytest.raises(error, match=said):
        make(tmp_path, config, 1)
    assert len(httpserver.log) == (3 if code == 1303 else 1)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
@pytest.mark.parametrize("kind", ["kling", "runway", "fal"])
def test_a_service_that_was_never_reached_has_sold_nothing(tmp_path, monkeypatch, kind, url):
    for module in ("runwayml", "fal_client"):
        pytest.importorskip(module)
    config = {
        "kling": lambda **more: KlingVideo(base_url=url, **more),
        "runway": lambda **more: RunwayVideo(base_url=url, **more),
        "fal": lambda **more: FalVideo(queue_url=url, **more),
    }[kind](tries=2, first_wait_s=0.0, usd=0.3)
    for name in config.NEEDS.keys:
        monkeypatch.setenv(name, "planted-0123456789")
    with pytest.raises(NotTaken, match=r"cannot be reached .* 2 times; the video was not bought"):
        make(tmp_path, config, 1)
    assert Services(tmp_path / "services").ledger.spent_usd() == 0
    assert not list((tmp_path / "candidates").rglob("job.json"))


def test_what_is_wrong_with_a_request_is_told_whole():
    from lucibot.providers.video.wire import told

    said = told({"error": "Validation failed", "issues": [{"path": ["ratio"], "message": "no"}]})
    assert said.startswith("Validation failed: ") and '"ratio"' in said


def test_fal_is_told_by_the_names_that_a_model_has_and_takes_uploads(
    tmp_path, httpserver, monkeypatch
):
    fal = pytest.importorskip("fal_client.client", reason="pip install 'lucibot[fal]'")
    monkeypatch.setenv("FAL_KEY", "planted-fal-key")
    url = httpserver.url_for("").rstrip("/")
    monkeypatch.setattr(fal, "REST_URL", url)
    monkeypatch.setattr(fal, "CDN_URL", url)
    write_video(tmp_path / "clip.mp4", Video(frames=np.zeros((4, 32, 32, 3), np.uint8), fps=4))
    token = {"token": "t", "token_type": "Bearer", "base_url": url,
             "expires_at": "2100-01-01T00:00:00+00:00"}  # fmt: skip
    httpserver.expect_request("/storage/auth/token").respond_with_json(token)
    httpserver.expect_request("/files/upload").respond_with_json({"access_url": f"{url}/up.png"})
    at = f"{url}/some/model/requests/7"
    httpserver.expect_request("/some/model/v9").respond_with_json(
        {"request_id": "7", "response_url": at, "status_url": at, "cancel_url": at}
    )
    httpserver.expect_request("/some/model/requests/7/status").respond_with_json(
        {"status": "COMPLETED", "logs": None}
    )
    httpserver.expect_request("/some/model/requests/7").respond_with_json(
        {"videos": [{"url": f"{url}/clip.mp4"}]}
    )
    httpserver.expect_request("/clip.mp4").respond_with_data((tmp_path / "clip.mp4").read_bytes())
    config = FalVideo(
        model="some/model/v9", queue_url=url, upload=True, usd=0.2, poll_s=0.01,
        fields="image=start_frame,negative=,duration_as={}s", extra="resolution=720p,cfg_scale=0.5",
    )  # fmt: skip
    (made,) = make(tmp_path, config, 1)
    assert why_no_video(made.raw) is None
    (asked,) = [json.loads(r.get_data()) for r, _ in httpserver.log if r.path == "/some/model/v9"]
    assert asked == {
        "start_frame": f"{url}/up.png", "prompt": PROMPT.text, "duration": "5s", "resolution": "720p",
        "cfg_scale": 0.5, "seed": request(tmp_path).own_seed,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("fal-ai/kling-video/v2.5-turbo/pro/image-to-video", ("image_url", "", "duration", "{}")),
        ("fal-ai/kling-video/v3/pro/image-to-video", ("start_image_url", "", "duration", "{}")),
        ("fal-ai/wan/v2.2-a14b/image-to-video", ("image_url", "seed", "", "{}")),
        ("fal-ai/veo3.1/image-to-video", ("image_url", "seed", "duration", "{}s")),
        ("somebody/model", ("image_url", "seed", "duration", "{}")),
    ],
)
def test_names_of_fals_models(model, names):
    found = FalVideo(model=model).names()
    assert tuple(found[n] for n in ("image", "seed", "duration", "duration_as")) == names


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "gen4.6"}, r"Did you mean 'gen4\.5'.*pip install -U runwayml"),
        ({"model": "veo3.1"}, r"--video\.seconds 5: veo3\.1 takes 4, 6, 8"),
        ({"ratio": "1:1"}, r"--video\.ratio 1:1: gen4\.5 takes 1280:720"),
    ],
)
def test_what_runways_models_do_not_take_is_said_before_anything_is_sent(tmp_path, settings, said):
    pytest.importorskip("runwayml", reason="pip install 'lucibot[runway]'")
    with pytest.raises(UserError, match=said):
        make(tmp_path, RunwayVideo(**settings), 1)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (lambda: RunwayVideo(extra="audio"), "expected NAME=VALUE"),
        (lambda: FalVideo(fields="picture=x"), "expected image="),
        (lambda: FalVideo(model="veo"), "expected owner/name"),
        (lambda: KlingVideo(extra="=1"), "expected NAME=VALUE"),
    ],
)
def test_settings_that_are_none_are_refused_at_once(config, said):
    with pytest.raises(UserError, match=said):
        config()


def test_a_service_that_hands_over_nothing_is_asked_in_vain(tmp_path, httpserver, monkeypatch):
    """A job that is done and names no video is no reason to wait for ever, nor to buy again."""
    monkeypatch.setenv("KLING_ACCESS_KEY", "access-planted")
    monkeypatch.setenv("KLING_SECRET_KEY", "secret-planted")
    done = {"code": 0, "data": {"task_id": "1", "task_status": "succeed", "task_result": {}}}
    httpserver.expect_request(re.compile(".*")).respond_with_handler(
        lambda request: Response(json.dumps(done), content_type="application/json")
    )
    config = KlingVideo(base_url=httpserver.url_for(""), tries=2, first_wait_s=0.0, usd=0.3)
    with pytest.raises(RunFailed, match=r"sent an answer without data\.task_result\.videos"):
        make(tmp_path, config, 1)
    assert sum(r.method == "POST" for r, _ in httpserver.log) == 1


def test_the_recipe_for_a_new_service_is_a_member(tmp_path, httpserver, monkeypatch):
    """The example of docs/extending.md, as it stands there, against a server that does what it says."""
    text = (Path(__file__).parents[1] / "docs/extending.md").read_text()
    section = text.partition("## A new video model")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "recipe_of_a_service.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    import recipe_of_a_service as recipe

    monkeypatch.setenv("EXAMPLE_KEY", "planted-example-key")
    write_video(tmp_path / "clip.mp4", Video(frames=np.zeros((4, 32, 32, 3), np.uint8), fps=4))
    key = {"Authorization": "Bearer planted-example-key"}
    url = httpserver.url_for("/api")
    httpserver.expect_request("/api/jobs", "POST", headers=key).respond_with_json({"id": "j1"})
    ready = {"state": "ready", "url": httpserver.url_for("/clip.mp4")}
    httpserver.expect_request("/api/jobs/j1", headers=key).respond_with_json(ready)
    httpserver.expect_request("/clip.mp4").respond_with_data((tmp_path / "clip.mp4").read_bytes())
    config = recipe.MineVideo(base_url=url, usd=0.25, poll_s=0.01)
    (made,) = make(tmp_path, config, 1)
    assert why_no_video(made.raw) is None
    assert Services(tmp_path / "services").ledger.spent_usd() == 0.25
    posted = [json.loads(r.get_data()) for r, _ in httpserver.log if r.method == "POST"]
    assert len(posted) == 1 and posted[0]["style"] == "plain"
    # Elsewhere it is the same service, and another style another video.
    other = recipe.MineVideo(base_url="http://elsewhere", style="plain")
    assert make(tmp_path, other, 1) == [made]
    assert config.NEEDS.keys == ("EXAMPLE_KEY",)


# A goal picture -----------------------------------------------------------------------------------

FIRST = np.full((48, 64, 3), 90, np.uint8)
"""First frame of a scene that is edited."""


def to_edit(tmp_path: Path, index: int = 0) -> VideoRequest:
    return dataclasses.replace(request(tmp_path, index), view=SimpleNamespace(first_frame=FIRST))


def edited(tmp_path: Path, config: EditVideo, services: Services, count: int = 1) -> list:
    jobs = Jobs(tmp_path / "candidates", config.create(services), services, note=lambda text: None)
    return jobs.make([to_edit(tmp_path, i) for i in range(count)])


EDITOR = """
import sys
import cv2
image, prompt, goal = sys.argv[1:]
assert "at the end of what is described here" in prompt and "cut it" in prompt
picture = cv2.imread(image)
picture[:, 32:] = (0, 0, 200)
cv2.imwrite(goal, cv2.resize(picture, (128, 96)))
"""


def test_an_editor_of_ones_own_makes_a_clip_that_ends_in_its_picture(tmp_path):
    program = tmp_path / "editor.py"
    program.write_text(EDITOR)
    command = f"{sys.executable} {program} {{image}} {{prompt}} {{goal}}"
    config = EditVideo(editor=CommandEditor(command=command), candidates=1)
    services = Services(tmp_path / "services", ServicesConfig())
    (found,) = edited(tmp_path, config, services)
    video = read_video(found.raw)
    assert video.fps == pytest.approx(12.0) and video.frames.shape[1:3] == (48, 64)
    assert np.abs(video.frames[0].astype(int) - 90).max() < 12
    last = video.frames[-1].astype(int)
    assert np.abs(last[:, :28] - 90).max() < 16 and last[:, 36:, 0].mean() > 170
    assert (found.raw.parent / "goal.png").is_file()
    assert services.ledger.spent_usd() == 0


@pytest.mark.parametrize("code, words", [
    ("import sys; sys.exit('no')", "the image editor .* ended with status 1: no"),
    ("pass", "wrote no picture"),
])  # fmt: skip
def test_an_editor_that_fails_is_one_line(tmp_path, code, words):
    program = tmp_path / "editor.py"
    program.write_text(code)
    command = f"{sys.executable} {program} {{image}} {{prompt}} {{goal}}"
    config = EditVideo(editor=CommandEditor(command=command), candidates=1)
    with pytest.raises(RunFailed, match=words):
        edited(tmp_path, config, Services(tmp_path / "services", ServicesConfig()))
    with pytest.raises(UserError, match=r"needs the place holder {goal}"):
        EditVideo(editor=CommandEditor(command="x {image} {prompt}")).create(None)


EDITS = "/v1/images/edits"
PNG = cv2.imencode(".png", np.full((96, 128, 3), (20, 160, 20), np.uint8))[1].tobytes()
SENT = {"created": 1, "data": [{"b64_json": base64.b64encode(PNG).decode()}]}


@pytest.fixture
def editor(tmp_path, httpserver, monkeypatch):
    """The hosted editor at a server of this machine, and the services that it is asked through."""
    pytest.importorskip("openai", reason="openai is not installed: pip install 'lucibot[vlm]'")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-4711")
    vlm = VlmConfig(base_url=httpserver.url_for("/v1"))
    services = Services(tmp_path / "services", ServicesConfig(vlm=vlm, max_usd=0.1))
    return EditVideo(editor=HostedEditor(usd=0.04), candidates=1), services


def test_a_hosted_editor_is_sent_the_first_frame_and_paid_once(tmp_path, httpserver, editor):
    config, services = editor
    httpserver.expect_request(EDITS).respond_with_json(SENT)
    (found,) = edited(tmp_path, config, services)
    last = read_video(found.raw).frames[-1].astype(int)
    assert np.abs(last - (20, 160, 20)).max() < 16
    ((asked, _),) = httpserver.log
    assert asked.files["image"].mimetype == "image/png"
    assert "at the end of what is described here" in asked.form["prompt"]
    assert asked.form["model"] == "gpt-image-1"
    assert services.ledger.spent_usd() == pytest.approx(0.04)
    # What is there is not bought again.
    edited(tmp_path, config, services)
    assert len(httpserver.log) == 1
    with pytest.raises(RunFailed, match="raise --max-usd"):
        edited(tmp_path, config, services, count=3)


def test_a_busy_or_absent_server_of_a_hosted_editor_is_asked_again(
    tmp_path, httpserver, editor, monkeypatch
):
    config, services = editor
    slept: list[float] = []
    model = config.create(services)
    monkeypatch.setattr(model, "_sleep", slept.append)
    notes: list[str] = []
    jobs = Jobs(tmp_path / "candidates", model, services, note=notes.append)
    busy = {"error": {"message": "slow down"}}
    httpserver.expect_ordered_request(EDITS).respond_with_json(
        busy, status=429, headers={"Retry-After": "3"}
    )
    httpserver.expect_ordered_request(EDITS).respond_with_json(busy, status=429)
    httpserver.expect_ordered_request(EDITS).respond_with_json(SENT)
    request = to_edit(tmp_path)
    assert not jobs.asked_for(request)
    (found,) = jobs.make([request])
    assert slept == [3.0, 2.0] and services.ledger.spent_usd() == pytest.approx(0.04)
    assert jobs.asked_for(request)
    # What is damaged is bought again, which is said.
    found.raw.write_bytes(b"")
    assert not jobs.asked_for(request)
    httpserver.expect_ordered_request(EDITS).respond_with_json(SENT)
    jobs.make([request])
    assert "it alone is bought again" in notes[0]
    assert services.ledger.spent_usd() == pytest.approx(0.08)
    # One that was never reached took nothing, and what was begun is not there.
    second = to_edit(tmp_path, 1)
    nowhere = VlmConfig(base_url="http://127.0.0.1:9/v1", first_wait_s=0.0)
    away = Services(tmp_path / "services", ServicesConfig(vlm=nowhere))
    jobs = Jobs(tmp_path / "candidates", config.create(away), away, note=notes.append)
    with pytest.raises(RunFailed, match=r"cannot be reached \(.*refused.*\), 5 times"):
        jobs.make([second])
    assert away.ledger.spent_usd() == pytest.approx(0.08) and not jobs.asked_for(second)


@pytest.mark.parametrize("status, body, error, words, usd", [
    (401, {"error": {"message": "bad key sk-secret-4711"}}, UserError, r"answers 401: .*\[key\]", 0),
    (400, {"error": {"message": "no such model"}}, UserError, "no such model", 0),
    (500, {"error": {"message": "busy"}}, RunFailed, "answers 500", 0),
    (200, {"created": 1, "data": []}, RunFailed, "sent no picture", 0.04),
    (200, {"created": 1, "data": [{"b64_json": "AAAA"}]}, RunFailed, "sent no picture", 0.04),
])  # fmt: skip
def test_a_hosted_editor_that_fails_is_one_line(
    tmp_path, httpserver, editor, status, body, error, words, usd
):
    config, services = editor
    httpserver.expect_request(EDITS).respond_with_json(body, status=status)
    with pytest.raises(error, match=words) as e:
        edited(tmp_path, config, services)
    assert "\n" not in str(e.value) and "4711" not in str(e.value)
    assert services.ledger.spent_usd() == pytest.approx(usd)
