"""Judging and answering by a vision-language model: what is shown, what becomes of its answers, what the
measured ones beside them are for, and how many calls that takes. The real client speaks to a server on
this machine that answers any of the members' questions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import lucibot
from lucibot.authoring.goals import _with_goal, as_text
from lucibot.cli import main
from lucibot.config import PRESETS, RunConfig
from lucibot.core.answers import Answers, Contacts, Span
from lucibot.core.camera import Camera
from lucibot.core.errors import RunFailed, UserError
from lucibot.core.progress import silent
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video, sha256_file, write_video
from lucibot.estimate import estimate
from lucibot.options import with_settings
from lucibot.providers.answerer import PixelAnswerer, VlmAnswerer
from lucibot.providers.answerer.sheets import GAP_PX, sheets
from lucibot.providers.asking import evenly
from lucibot.providers.prompt import VlmPrompt
from lucibot.providers.verifier import PixelVerifier, VlmVerifier
from lucibot.providers.verifier.base import Shown, Verdict
from lucibot.providers.verifier.goals import relations
from lucibot.providers.verifier.judging import Judging
from lucibot.providers.verifier.pixels import Judge
from lucibot.report.data import CandidateRow, ReportData
from lucibot.report.page import write_report
from lucibot.services import Services, ServicesConfig, VlmConfig
from lucibot.services.estimate import Outlook
from lucibot.stages import select
from lucibot.store.run import RunDirectory
from lucibot.task import load_task

pytest.importorskip("openai", reason="openai is not installed: pip install 'lucibot[vlm]'")

CHAT = "/v1/chat/completions"
FRAMES, FPS = 60, 15.0
MEASURED = Verdict(
    match=6, motion=3, goal=2, new_object=False, reasons=("the goal is not reached",), doubt=0.5,
    shown=(Shown(frame=3, words="there"),),
)  # fmt: skip
VERDICT = {
    "seen": "A hand cuts the dough.", "new_object_reason": "Nothing is new.", "new_object": False,
    "match_reason": "All of it.", "match": 6, "motion_reason": "It leaps.", "motion": 2,
    "goal_reason": "Two parts lie there.", "goal": 6,
}  # fmt: skip


def enum(schema: dict, among: dict) -> list:
    """The values that a field may have."""
    found = next((x for x in schema.get("anyOf", [schema]) if x.get("type") != "null"), schema)
    if "$ref" in found:
        found = among["$defs"][found["$ref"].rpartition("/")[2]]
    return found.get("enum") or [found["const"]]


def answer(schema: dict, told: dict) -> dict:
    """An answer to any member's question; `told` is laid over it."""
    fields = schema["properties"]
    if "prompt" in fields:
        made = {"prompt": "A static camera films a hand that cuts the dough in two, calmly.",
                "negative_prompt": "cuts"}  # fmt: skip
    elif "match" in fields:
        made = VERDICT
    elif "first_contact" in fields:
        shown = enum(fields["first_contact"], schema)
        made = {"seen": "A cut.", "first_contact_reason": "Fingers close.", "first_contact": shown[3],
                "goal_reason": "It rests.", "goal": shown[-2]}  # fmt: skip
    elif "frame" in fields:
        made = {"reason": "Here.", "frame": enum(fields["frame"], schema)[-1]}
    elif "goal" in fields:
        made = {"reason": "", "goal": []}
    else:
        one = schema["$defs"]["Frame"]["properties"]
        pairs = enum(one["touching"]["items"], schema)
        made = {"frames": [{"frame": t, "seen": "The knife is in the dough.", "touching": pairs}
                           for t in enum(one["frame"], schema)]}  # fmt: skip
    return {**made, **{k: v for k, v in told.items() if k in made}}


@pytest.fixture(scope="session")
def make_httpserver():
    from pytest_httpserver import HTTPServer

    with HTTPServer(threaded=True) as server:
        yield server


@dataclasses.dataclass
class Server:
    http: object
    told: dict = dataclasses.field(default_factory=dict)
    """What is laid over the answers."""
    body: Callable[[dict], dict] = lambda message: message
    """Changes the whole message."""
    bad_first: bool = False
    """The first answer to each question is none."""

    def handle(self, request):
        from werkzeug import Response

        asked = request.get_json()
        schema = asked["response_format"]["json_schema"]["schema"]
        content = json.dumps(answer(schema, self.told))
        if self.bad_first and len(asked["messages"]) == 2:
            content = "I think so."
        message = self.body({"role": "assistant", "content": content})
        reply = {
            "id": "c", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 500, "completion_tokens": 50, "total_tokens": 550},
        }  # fmt: skip
        return Response(json.dumps(reply), content_type="application/json")

    def asked(self) -> list[dict]:
        return [r.get_json() for r, _ in self.http.log if r.path == CHAT]

    def texts(self, i: int) -> list[str]:
        content = self.asked()[i]["messages"][1]["content"]
        return [p["text"] for p in content if p["type"] == "text"]


@pytest.fixture
def server(httpserver):
    server = Server(httpserver)
    httpserver.expect_request(CHAT).respond_with_handler(server.handle)
    return server


@pytest.fixture
def services(tmp_path, server):
    def make(**changes) -> Services:
        told = {"base_url": server.http.url_for("/v1"), "first_wait_s": 0.0, "tries": 2,
                "usd_per_million_in": 2.0, "usd_per_million_out": 8.0}  # fmt: skip
        config = ServicesConfig(vlm=VlmConfig(**{**told, **changes}))
        return Services(tmp_path / "services", config)

    return make


@pytest.fixture
def task():
    return load_task("cut_dough")


@pytest.fixture
def view(task) -> SceneView:
    camera = Camera.look_at(
        position=(0, -0.4, 0.3), target=(0, 0, 0), vertical_fov_deg=48, width=64, height=48
    )
    one = np.ones((48, 64), np.float32)
    return SceneView(
        camera=camera, names=tuple(o.name for o in task.objects),
        first_frame=np.full((48, 64, 3), 90, np.uint8), background_frame=None,
        labels=np.zeros((48, 64), np.uint8), depth_m=one, background_depth_m=one,
    )  # fmt: skip


@pytest.fixture
def video() -> Video:
    grey = np.linspace(60, 200, FRAMES).astype(np.uint8)
    return Video(frames=np.broadcast_to(grey[:, None, None, None], (FRAMES, 48, 64, 3)), fps=FPS)


@pytest.fixture
def measured(monkeypatch):
    """The embedded judge and answerer say what they are told, at once."""
    said = {"verdict": MEASURED, "first_contact": 10, "goal": 50, "contact": False}

    class Says:
        def judge(self, task, view, video):
            return said["verdict"]

        def span(self, task, view, video, tracks, events):
            reasons = {"first_contact": "A hand lies on it.", "goal": "It lies still."}
            return Span(first_contact=said["first_contact"], goal=said["goal"], reasons=reasons)

        def contact(self, task, view, video, tracks, events, keyframes):
            pairs = events.contact_pairs
            contact = np.full((len(keyframes), len(pairs)), said["contact"])
            return Contacts(
                contact=contact, reasons={f"contact {a}, {b}": "Near." for a, b in pairs}
            )

    for cls in (PixelVerifier, PixelAnswerer):
        monkeypatch.setattr(cls, "create", lambda self, services=None: Says())
    return said


def judge(services: Services, task, view, video, **changes) -> Verdict:
    return VlmVerifier(model="m", **changes).create(services).judge(task, view, video)


def test_a_verdict_has_both_opinions_and_the_reasons_of_what_is_deducted(
    services, server, measured, task, view, video
):
    v = judge(services(), task, view, video)
    assert (v.by, v.match, v.motion, v.goal, v.total, v.usable) == ("vlm m", 6, 2, 6, 14, True)
    assert v.reasons == ("It leaps.",)
    assert v.evidence["seen"] == "A hand cuts the dough." and "match_reason" in v.evidence
    assert v.beside == MEASURED.opinion() and v.disputed
    # Of equal points the one that is measured to be better: four points are lost there.
    assert v.doubt == pytest.approx(4.5)
    assert v.shown[0].words == "measured: there"
    (body,) = server.asked()
    parts = body["messages"][1]["content"]
    assert sum(p["type"] == "image_url" for p in parts) == 13
    texts = server.texts(0)
    assert (
        "Cut the block of dough" in texts[0] and "the knife" in texts[0] and "the dough" in texts[0]
    )
    assert texts[1] == "The scene before anything happens:"
    assert texts[2] == "Frame 0 of 59, at 0.00 s:" and texts[-1] == "Frame 59 of 59, at 3.93 s:"


def test_a_new_object_sends_a_video_to_the_lowest_score(
    services, server, measured, task, view, video
):
    server.told = {"new_object": True, "new_object_reason": "A second knife in frame 20."}
    v = judge(services(), task, view, video)
    assert v.total == 5 and not v.usable and not v.disputed
    assert v.reasons == ("A second knife in frame 20.", "It leaps.")


def test_both_judges_can_be_made_to_count(services, measured, task, view, video):
    v = judge(services(), task, view, video, both=True)
    assert (v.match, v.motion, v.goal, v.usable) == (6, 2, 2, False)
    assert v.reasons == ("It leaps.", "measured: the goal is not reached")


def refuses(message: dict) -> dict:
    return {**message, "content": None, "refusal": "no knives"}


def test_the_measured_verdict_stands_in_where_that_is_allowed(
    services, server, measured, task, view, video
):
    server.body = refuses
    with pytest.raises(RunFailed, match=r"judge \(m\): the model refuses: no knives"):
        judge(services(), task, view, video)
    v = judge(services(), task, view, video, fall_back=True)
    assert v.total == MEASURED.total and v.by == "pixels"
    assert "the model gave no verdict (judge (m): the model refuses" in v.reasons[0]


@pytest.mark.parametrize("hands", ["none", "optional"])
def test_what_a_task_says_of_hands_is_told(services, server, measured, task, view, video, hands):
    spec = task.spec.model_copy(update={"hands": hands})
    judge(services(), type(task)(task.folder, spec, task.instruction), view, video)
    assert "moves alone" in server.texts(0)[0]


def test_fewer_frames_are_shown_where_fewer_pictures_are_allowed(
    services, server, measured, task, view, video
):
    judge(services(most_pictures=5), task, view, video)
    assert len(server.texts(0)) == 1 + 5
    with pytest.raises(UserError, match=r"shows 2 pictures, and --services.vlm.most-pictures"):
        judge(services(most_pictures=1), task, view, video)


def test_a_verdict_is_kept_with_the_one_beside_it(
    services, server, measured, task, view, video, tmp_path
):
    write_video(tmp_path / "clip.mp4", video)
    notes = []

    def judged() -> Verdict:
        judging = Judging(
            tmp_path / "verdicts", VlmVerifier(model="m"), version=1, task=task, view=view, scene="s",
            services=services(), note=notes.append,
        )  # fmt: skip
        return judging.judge(tmp_path / "clip.mp4", sha256_file(tmp_path / "clip.mp4"))

    assert judged() == judged() and not notes and len(server.asked()) == 1
    assert judged().beside == MEASURED.opinion()


def test_select_says_where_the_judges_disagree_and_the_report_shows_both(
    services, measured, task, view, video, tmp_path
):
    run, scene = RunDirectory(tmp_path / "run"), tmp_path / "run/10_scene/a"
    imagine, folder = tmp_path / "run/20_imagine/a", tmp_path / "run/30_select/a"
    view.save(scene)
    (scene / "manifest.json").write_text(json.dumps({"files": {}}))
    write_video(imagine / "candidate_0.mp4", video)
    folder.mkdir(parents=True)
    row = {"file": "candidate_0.mp4", "sha256": "0", "trouble": None, "intake": None, "clip": None}
    (imagine / "candidates.json").write_text(json.dumps({"kind": "x", "candidates": [row]}))
    notes: list[str] = []
    told = SimpleNamespace(
        task=task, run=run, folder=folder, inputs={"scene": scene, "imagine": imagine},
        config=SimpleNamespace(verifier=VlmVerifier(model="m"), force_video=None),
        services=services(), note=notes.append, progress=silent,
    )  # fmt: skip
    select.run(told)
    assert notes == [
        "the judges disagree about candidate 0: vlm m gives 14.0 points (usable); pixels gives 11.0 "
        "points (rejected)"
    ]
    (kept,) = json.loads((folder / "verdicts.json").read_text())["candidates"]
    # The embedded judge alone, and a task without a goal: the run says how to get one.
    spec = task.spec.model_copy(update={"goal": []})
    told.task = type(task)(task.folder, spec, task.instruction)
    told.config.verifier = PixelVerifier()
    notes.clear()
    with pytest.raises(RunFailed, match="every video was rejected"):
        select.run(told)
    assert len(notes) == 1 and f"lucibot tasks goals {task.folder} --model NAME" in notes[0]
    assert kept["by"] == "vlm m" and kept["beside"]["goal"] == 2
    v = judge(services(), task, view, video)
    shown = CandidateRow(
        name="candidate 0", match=v.match, motion=v.motion, goal=v.goal, total=v.total, usable=True,
        by=v.by, beside=v.beside, reasons=v.reasons,
    )  # fmt: skip
    write_report(ReportData(title="t", candidates=(shown,)), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for words in ("judges disagree", "vlm m", "pixels", "It leaps.", "the goal is not reached",
                  "11.0 · rejected", "14.0 · usable"):  # fmt: skip
        assert words in page


def test_a_task_without_a_goal_is_told_how_to_get_one(task):
    bare = SimpleNamespace(spec=SimpleNamespace(goal=[]), folder=task.folder)
    reasons: list[str] = []
    Judge(PixelVerifier())._goal(bare, None, None, None, np.arange(3.0), reasons, {})
    assert f"lucibot tasks goals {task.folder} --model NAME" in reasons[0]


EVENTS = SimpleNamespace(contact_pairs=(("knife", "dough"),))


def span(services: Services, task, view, video, **changes) -> Span:
    made = VlmAnswerer(**{"model": "m", **changes}).create(services)
    return made.span(task, view, video, None, EVENTS)


def contacts(services: Services, task, view, video, keyframes, **changes) -> Contacts:
    made = VlmAnswerer(model="m", **changes).create(services)
    return made.contact(task, view, video, None, EVENTS, np.array(keyframes))


def test_a_moment_is_found_coarse_to_fine(services, server, measured, task, view, video):
    found = span(services(), task, view, video)
    coarse = evenly(0, FRAMES - 1, 16)
    # The fine look is at every frame of the step before, and the last of them was chosen.
    assert (found.first_contact, found.goal) == (coarse[3], coarse[-2])
    assert found.reasons == {"first_contact": "By vlm m: Here.", "goal": "By vlm m: Here."}
    assert found.beside.first_contact == 10 and found.by == "vlm m"
    asked = [server.texts(i)[0].rpartition("Frames shown: ")[2] for i in range(3)]
    assert asked[0].startswith(", ".join(map(str, coarse)))
    assert asked[1] == "8, 9, 10, 11, 12 of 0 to 59."
    assert asked[2] == "51, 52, 53, 54, 55 of 0 to 59."
    pictures = [p for p in server.asked()[0]["messages"][1]["content"] if p["type"] == "image_url"]
    assert len(pictures) == 4


def test_the_goal_comes_after_the_first_contact(services, server, measured, task, view, video):
    # What was answered is kept: another model is asked anew.
    server.told = {"first_contact": 59, "goal": 59}
    with pytest.raises(RunFailed, match="puts the first contact at the end of the video"):
        span(services(), task, view, video, model="late")
    server.told = {"first_contact": 8, "goal": 8}
    found = span(services(), task, view, video, model="at once")
    assert (found.first_contact, found.goal) == (8, 9)
    server.told = {"first_contact": 20, "goal": 8}
    with pytest.raises(RunFailed, match="the goal cannot be reached before the first contact"):
        span(services(), task, view, video, model="backwards")


def test_a_moment_that_is_not_found_is_said_and_measured_where_that_is_allowed(
    services, server, measured, task, view, video
):
    server.told = {"goal": None, "goal_reason": "The dough stays whole."}
    with pytest.raises(RunFailed) as told:
        span(services(), task, view, video)
    assert "span (m): it finds no goal in this video: The dough stays whole." in str(told.value)
    assert "--perceive.answerer.fall-back yes" in str(told.value)
    found = span(services(), task, view, video, fall_back=True)
    assert (found.first_contact, found.goal, found.by, found.beside) == (10, 50, "pixels", None)
    assert (
        "It lies still. (the model gave no answer (span (m): it finds no goal"
        in found.reasons["goal"]
    )
    assert len(found.notes) == 1


def test_contacts_are_asked_in_few_calls_and_only_as_pairs(
    services, server, measured, task, view, video
):
    found = contacts(services(), task, view, video, [12, 20, 31, 40, 59])
    assert found.contact.tolist() == [[True]] * 5 and found.beside.contact.tolist() == [[False]] * 5
    said = found.reasons["contact knife, dough"]
    assert said.startswith("By vlm m: keyframe 0: The knife is in the dough. keyframe 1:")
    assert len(server.asked()) == 2
    frames = sorted(t for i in range(2) for t in server.texts(i)[2:])
    assert frames == ["Frame 12:", "Frame 20:", "Frame 31:", "Frame 40:", "Frame 59:"]
    assert "Pairs: knife and dough." in server.texts(0)[0]
    # Many keyframes: no more calls than are planned.
    contacts(services(), task, view, video, list(range(3, 43)))
    assert len(server.asked()) == 2 + VlmAnswerer(model="m").contact_calls


@pytest.mark.parametrize(
    ("most", "count", "calls"), [(3, 9, 5), (4, 14, 5), (1, 2, 2), (16, 40, 4)]
)
def test_no_call_for_contacts_shows_more_pictures_than_are_allowed(
    services, server, measured, task, view, video, most, count, calls
):
    s = services(most_pictures=most)
    found = contacts(s, task, view, video, list(range(3, 3 + count)))
    assert found.contact.all() and len(server.asked()) == calls
    shown = [
        [p for p in b["messages"][1]["content"] if p["type"] == "image_url"] for b in server.asked()
    ]
    assert max(map(len, shown)) <= most
    outlook = Outlook(task=task, videos=1, services=s.config, keyframes=count)
    assert VlmAnswerer(model="m").planned(outlook)[1].calls >= calls


def test_the_default_keyframes_need_no_more_calls_than_those_for_contacts(task):
    config = with_settings(PRESETS["quick"], {"vlm": "m"})
    (found,) = [p for p in estimate(task, config).planned if p.what == "contacts"]
    assert found.calls == 4
    config = with_settings(config, {"services.vlm.most-pictures": "3"})
    (found,) = [p for p in estimate(task, config).planned if p.what == "contacts"]
    assert found.calls == 7


def test_a_keyframe_that_is_left_out_is_asked_for_again(
    services, server, measured, task, view, video
):
    server.told = {"frames": [{"frame": 12, "seen": "Apart.", "touching": []}]}
    with pytest.raises(RunFailed, match=r"one entry for each of the frames \[12, 20\], got \[12\]"):
        contacts(services(), task, view, video, [12, 20])
    assert len(server.asked()) == 2
    found = contacts(services(), task, view, video, [12])
    assert found.reasons["contact knife, dough"] == "By vlm m: at no keyframe."
    server.body = refuses
    stands_in = contacts(services(), task, view, video, [13], fall_back=True)
    assert stands_in.by == "pixels" and not stands_in.contact.any() and stands_in.notes


def test_answers_tell_where_the_measured_ones_are_others(
    services, measured, task, view, video, tmp_path
):
    measured.update(first_contact=12, goal=30)
    a = span(services(), task, view, video)
    b = contacts(services(), task, view, video, [20, 55])
    joined = Answers.joined(
        a, b, {"held knife": "No."}, contact_pairs=EVENTS.contact_pairs, around_pairs=(),
        around=np.zeros(0, bool),
    )  # fmt: skip
    assert joined.by == "vlm m" and joined.beside.by == "pixels" and "held knife" in joined.reasons
    assert joined.disputes(FPS) == [
        "goal: frame 55 by vlm m, frame 30 by pixels",
        "knife touches dough: by vlm m otherwise than by pixels at keyframes 0 (yes), 1 (yes)",
    ]
    data = ReportData(
        title="t", keyframes=(20, 55), fps=FPS, answers=joined.reasons, contact=joined.contact,
        contact_pairs=joined.contact_pairs, first_contact=joined.first_contact,
        answered_by=joined.by, beside=joined.beside, disputes=tuple(joined.disputes(FPS)),
    )  # fmt: skip
    write_report(data, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for words in ("they disagree", "frame 55", "frame 30. It lies still.", "by pixels", "≠"):
        assert words in page
    alone = dataclasses.replace(joined, beside=None)
    assert alone.disputes(FPS) == []


def test_nobody_waits_for_a_model_where_a_run_is_ended(task, view, video, monkeypatch):
    """The embedded judge is stopped, as by Ctrl-C, while the server has not answered yet."""
    answered = threading.Event()

    class Stopped:
        def judge(self, *told):
            raise KeyboardInterrupt

    monkeypatch.setattr(PixelVerifier, "create", lambda self, services=None: Stopped())
    vlm = SimpleNamespace(config=VlmConfig(), ask=lambda *a, **k: answered.wait(60))
    made = VlmVerifier(model="m").create(SimpleNamespace(vlm=vlm))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        made.judge(task, view, video)
    assert time.monotonic() - began < 30
    answered.set()


def test_sheets_hold_frames_in_order_each_with_its_number():
    frames = np.full((5, 60, 80, 3), 100, np.uint8)
    frames[:, 30:] += np.arange(5, dtype=np.uint8)[:, None, None, None] * 20
    two = sheets(frames, [3, 14, 15, 92, 65], a_sheet=4, tile_px=80)
    assert [s.shape for s in two] == [(120 + GAP_PX, 160 + GAP_PX, 3), (60, 80, 3)]
    assert [two[0][45, 70, 0], two[0][45, 150, 0], two[0][110, 70, 0]] == [100, 120, 140]
    assert (two[0][:15, :12] == 0).any() and (two[0][:15, :30] > 200).any()
    # The numbers tell them apart.
    assert not np.array_equal(two[0][:20, :60], two[0][:20, 84:144])
    assert sheets(frames, range(5), a_sheet=9, tile_px=40)[0].shape == (
        60 + GAP_PX,
        120 + 2 * GAP_PX,
        3,
    )


def chosen(**changes) -> RunConfig:
    return with_settings(PRESETS["quick"], {"vlm": "m", **changes})


def planned(task, config: RunConfig) -> list:
    members = (config.prompt, config.select.verifier, config.perceive.answerer)
    outlook = Outlook(task=task, videos=config.video.candidates, services=config.services)
    return [p for m in members for p in m.planned(outlook)]


HOSTED = {
    "type", "properties", "required", "additionalProperties", "description", "title", "enum", "const",
    "anyOf", "items", "$defs", "$ref", "minimum", "maximum",
}  # fmt: skip
"""What hosted services take in a schema that answers are held to."""


def keywords(schema: dict) -> set[str]:
    """Those of a schema, at any depth."""
    found = set(schema)
    for name in ("properties", "$defs"):
        for inner in schema.get(name, {}).values():
            found |= keywords(inner)
    for inner in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())):
        found |= keywords(inner)
    return found


@pytest.mark.parametrize("bad_first", [False, True])
def test_a_run_makes_no_more_calls_than_it_says_and_fewer_than_forty(
    services, server, measured, task, view, video, bad_first
):
    server.bad_first = bad_first
    s = services()
    config = dataclasses.replace(chosen(), services=s.config)
    stated = planned(task, config)
    config.prompt.create(s).write(task, view)
    verifier = config.select.verifier.create(s)
    for i in range(config.video.candidates):
        verifier.judge(task, view, dataclasses.replace(video, frames=video.frames[i:]))
    answerer = config.perceive.answerer.create(s)
    first = answerer.span(task, view, video, None, EVENTS)
    # As many keyframes as the defaults can come to.
    keyframes = np.linspace(first.first_contact + 1, first.goal, 14).round().astype(int)
    answerer.contact(task, view, video, None, EVENTS, keyframes)
    total = sum(p.calls for p in stated)
    assert total == 12
    # An answer that is not valid is asked for once more.
    assert len(server.asked()) == total * (1 + bad_first) < 40
    for body in server.asked():
        assert not keywords(body["response_format"]["json_schema"]["schema"]) - HOSTED
    begun = [json.loads(x) for x in s.ledger.path.read_text().splitlines()]
    sites = {"prompt": 0, "judge": 1, "span": 2, "contacts": 3}
    if not bad_first:
        for call in (b for b in begun if b["event"] == "begun"):
            site = call["what"].removeprefix("vlm ").split(" ")[0].rstrip(":")
            assert 0 < call["usd"] <= stated[sites[site]].usd_each, call["what"]


def test_what_all_members_asked_can_be_replayed_without_a_server(
    services, server, measured, task, view, video, tmp_path, monkeypatch
):
    def said(s: Services) -> list:
        config = chosen()
        answerer = config.perceive.answerer.create(s)
        found = answerer.contact(task, view, video, None, EVENTS, np.array([12, 20, 31, 40, 55]))
        return [
            config.prompt.create(s).write(task, view),
            config.select.verifier.create(s).judge(task, view, video),
            answerer.span(task, view, video, None, EVENTS), found.contact.tolist(), found.reasons,
        ]  # fmt: skip

    recorded = said(services())
    asked = len(server.asked())
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    config = ServicesConfig(max_usd=0.0, vlm=VlmConfig(replay=tmp_path / "services" / "answers"))
    assert said(Services(tmp_path / "other", config)) == recorded
    assert len(server.asked()) == asked == 7
    # What is replayed is held to the schema of today.
    (prompt,) = [
        p for p in (tmp_path / "services" / "answers").glob("*") if "calmly" in p.read_text()
    ]
    kept = json.loads(prompt.read_text())
    content = '{"prompt": "short", "negative_prompt": "cuts"}'
    kept |= {"content": content, "sha256": hashlib.sha256(content.encode()).hexdigest()}
    prompt.write_text(json.dumps(kept))
    with pytest.raises(
        UserError, match=r"prompt \(m\): the answer .* of another version of LuciBot"
    ):
        said(Services(tmp_path / "third", config))


def test_one_flag_chooses_a_model_everywhere_and_each_place_can_differ():
    c = chosen()
    assert [type(m) for m in (c.prompt, c.select.verifier, c.perceive.answerer)] == [
        VlmPrompt, VlmVerifier, VlmAnswerer,
    ]  # fmt: skip
    assert {c.prompt.model, c.select.verifier.model, c.perceive.answerer.model} == {"m"}
    c = chosen(**{"prompt": "template", "select.verifier.model": "n", "select.verifier.frames": "6",
                  "perceive.answerer.fall-back": "yes"})  # fmt: skip
    assert c.prompt.kind == "template" and c.select.verifier.model == "n"
    assert c.select.verifier.frames == 6 and c.perceive.answerer.fall_back
    # A setting of another member chooses that one.
    assert chosen(**{"select.verifier.same-scene": "0.8"}).select.verifier.kind == "pixels"
    # Settings stay with another model, and all go with none.
    c = with_settings(chosen(**{"select.verifier.frames": "6"}), {"vlm": "n"})
    assert (c.select.verifier.model, c.select.verifier.frames) == ("n", 6)
    none = with_settings(c, {"vlm": "none"})
    assert none == PRESETS["quick"]
    with pytest.raises(UserError, match="--vlm needs the name of a model"):
        chosen(vlm=" ")


def goals(server, folder, *more: str) -> list[str]:
    return ["tasks", "goals", str(folder), "--model", "m", "--services.vlm.base-url",
            server.http.url_for("/v1"), "--out", str(folder.parent / "runs"), *more]  # fmt: skip


GOAL = [{"relation": "pieces", "object": "dough", "count": 2},
        {"relation": "moved", "object": "knife", "least": 0.3}]  # fmt: skip


def without(folder: Path) -> Path:
    """Takes [[goal]] out of a task folder."""
    text, found = re.subn(r"\[\[goal\]\]\n(?:\w.*\n)+\n", "", (folder / "task.toml").read_text())
    assert found
    (folder / "task.toml").write_text(text)
    return folder


@pytest.fixture
def without_goal(tmp_path, small_task):
    """A shipped task with a small camera and no [[goal]]."""
    small_task("cut_dough", tmp_path / "cut_dough", width=160, height=120, fps=10)
    path = without(tmp_path / "cut_dough") / "task.toml"
    path.write_text(path.read_text().replace("[[success]]", "# What is measured.\n[[success]]", 1))
    return path.parent


def test_a_goal_is_proposed_shown_and_written_when_asked_for(server, without_goal, capsys):
    server.told = {"reason": "Two parts lie on the board.", "goal": GOAL}
    before = (without_goal / "task.toml").read_text()
    assert main(goals(server, without_goal)) == 0
    said = capsys.readouterr().out
    assert (without_goal / "task.toml").read_text() == before
    assert said.startswith('# Two parts lie on the board.\n[[goal]]\nrelation = "pieces"\n')
    assert "not written" in said
    assert main(goals(server, without_goal, "--write")) == 0
    assert len(server.asked()) == 1, "the same question is asked once"
    after = (without_goal / "task.toml").read_text()
    task = load_task(without_goal)
    assert task.spec.goal == GOAL and len(relations(task)) == 2
    # All other text is what it was, and the goal stands before the measured success.
    start = after.index("[[goal]]")
    end = after.index("# What is measured.")
    assert after[:start] + after[end:] == before
    assert main(goals(server, without_goal, "--write")) == 2
    assert "has a goal already" in capsys.readouterr().err
    assert not keywords(server.asked()[0]["response_format"]["json_schema"]["schema"]) - HOSTED
    asked = server.asked()[0]["messages"][1]["content"]
    assert "Cut the block of dough" in asked[0]["text"] and asked[1]["type"] == "image_url"


@pytest.mark.parametrize(
    ("goal", "match"),
    [
        ([{"relation": "pieces", "object": "bread", "count": 2}], "object"),
        ([{"relation": "pieces", "object": "dough", "count": 0}], "count: must lie between 1"),
        ([{"relation": "melted", "object": "dough"}], "relation"),
        ([{"relation": "moved", "object": "dough", "least": 7}], "least: must lie between 0 and 1"),
    ],
)
def test_a_proposal_is_held_to_the_schema_of_task_files(server, without_goal, capsys, goal, match):
    server.told = {"reason": "So.", "goal": goal}
    assert main(goals(server, without_goal, "--write")) == 1
    said = capsys.readouterr().err
    assert "goals (m): twice no valid answer" in said and match in said
    assert len(server.asked()) == 2 and not load_task(without_goal).spec.goal


def test_a_goal_that_no_relation_tells_is_said(server, without_goal, capsys):
    server.told = {"reason": "The taste tells.", "goal": []}
    assert main(goals(server, without_goal, "--write")) == 0
    assert "--select.verifier vlm" in capsys.readouterr().out
    assert not load_task(without_goal).spec.goal
    assert main(["tasks", "goals", str(without_goal)]) == 2
    assert "needs --model NAME" in capsys.readouterr().err


def test_a_goal_goes_to_the_end_where_no_success_is_told():
    goal = as_text(GOAL[:1])
    assert tomllib.loads(_with_goal('title = "x"\n', goal)) == {"title": "x", "goal": GOAL[:1]}
    assert _with_goal("a = 1\n[[ success ]]\n", goal) == f"a = 1\n{goal}\n[[ success ]]\n"


def whole(task, out, **settings) -> RunDirectory:
    """A run of a small task up to what is read from its chosen video."""
    vlm = {f"services.vlm.{k.replace('_', '-')}": str(v) for k, v in settings.items()}
    return lucibot.run(
        task, out=out, until="perceive", settings={"vlm": "m", "scene.renderer": "raster", **vlm}
    )


@pytest.mark.slow
def test_a_whole_run_asks_no_more_than_it_says_and_can_be_replayed(
    server, small_task, tmp_path, monkeypatch
):
    """Minutes: from the scene to the answers, everything that may ask a model does. Then the same
    again without server and key, from what the first run has kept."""
    key = "sk-planted-0123456789abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    small_task("cut_dough", tmp_path / "cut_dough", width=320, height=240, fps=10)
    task = load_task(without(tmp_path / "cut_dough"))
    assert not task.spec.goal
    told = {"usd_per_million_in": 2.0, "usd_per_million_out": 8.0}
    first = whole(task, tmp_path / "runs", base_url=server.http.url_for("/v1"), **told)
    asked = len(server.asked())
    assert 10 <= asked <= 12
    files = [p for p in first.path.rglob("*") if p.is_file()]
    assert len(files) > 20 and not [p for p in files if key.encode() in p.read_bytes()]
    spent = Services(first.path / "services").ledger.spent_usd()
    assert spent == pytest.approx(asked * (500 * 2e-6 + 50 * 8e-6))
    monkeypatch.delenv("OPENAI_API_KEY")
    again = whole(task, tmp_path / "more", replay=first.path)
    assert len(server.asked()) == asked
    assert Services(again.path / "services").ledger.spent_usd() == 0
    for name in ("15_prompt/*/prompt.json", "40_perceive/*/answers.json"):
        (one,), (other,) = first.path.glob(name), again.path.glob(name)
        assert one.read_text() == other.read_text()
    assert json.loads(one.read_text())["beside"]["by"] == "pixels"
    page = (again.path / "report.html").read_text()
    assert "lucibot tasks goals" in page, "the embedded judge says how to get a goal"
    assert "vlm m" in page and "Two answers" in page
