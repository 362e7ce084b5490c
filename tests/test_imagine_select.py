"""imagine, select and prompt: who goes on until when, what is kept, and what is said of bad videos."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lucibot.config import RunConfig, SelectConfig
from lucibot.core.camera import Camera
from lucibot.core.errors import RunFailed, UserError
from lucibot.core.progress import silent
from lucibot.core.prompt import Prompt
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video, write_video
from lucibot.options import with_settings
from lucibot.pipeline import Context
from lucibot.providers.prompt import TemplatePrompt, VlmPrompt
from lucibot.providers.verifier.base import Shown, Verdict
from lucibot.providers.video.base import Immediate
from lucibot.report.data import ReportData
from lucibot.report.page import write_report
from lucibot.services import Services, ServicesConfig, VlmConfig
from lucibot.stages import imagine, prompt, select
from lucibot.stages.report import SECTIONS
from lucibot.store.run import RunDirectory
from lucibot.task import load_task, task_names

GREY = 16
"""Levels of grey between two candidates: the judge reads their number from the picture."""


@dataclass(frozen=True, kw_only=True)
class Model(Immediate):
    """Its own config; draws pictures whose grey is their number."""

    candidates: int = 4
    given: bool = False
    fitted: bool = True
    bad: tuple[int, ...] = ()
    """Those that are no videos."""
    asked: list[int] = field(default_factory=list)
    kind = "grey"

    def create(self, services):
        return self

    def identity(self, request):
        return request.told()

    def fetch(self, job, folder, progress):
        i = job.request.index
        self.asked.append(i)
        if i in self.bad:
            (folder / "clip.mp4").write_text("no video")
        else:
            frames = np.full((4, 48, 64, 3), GREY * (i + 1), np.uint8)
            write_video(folder / "clip.mp4", Video(frames=frames, fps=10))
        return folder / "clip.mp4"


@dataclass(frozen=True)
class Judge:
    """Its own config; `usable` are the numbers that it likes."""

    usable: tuple[int, ...] = ()
    fails_at: int | None = None
    asked: list[int] = field(default_factory=list, compare=False, metadata={"fingerprint": False})

    def create(self, services):
        return self

    def judge(self, task, view, video):
        i = round(float(video.frames.mean()) / GREY) - 1
        if i == self.fails_at:
            raise RunFailed("the judge is gone")
        self.asked.append(i)
        good = 6.0 if i in self.usable else 2.0
        return Verdict(match=6, motion=3, goal=good, new_object=False, doubt=i / 100,
                       reasons=() if good > 2 else (f"number {i} is not liked",),
                       evidence={"words": "grey", "number": float(i)},
                       shown=(Shown(frame=i % 4, words="grey", box=(0.1, 0.2, 0.3, 0.4)),))  # fmt: skip


class Bench:
    """A run directory with scene and prompt, in which both stages are run as the pipeline does."""

    def __init__(self, path: Path):
        self.run, self.task = RunDirectory(path / "run"), load_task("cut_dough")
        self.notes: list[str] = []
        self.scene, self.prompt = path / "run/10_scene/a", path / "run/15_prompt/a"
        camera = Camera.look_at(
            position=(0, -0.4, 0.3), target=(0, 0, 0), vertical_fov_deg=48, width=64, height=48
        )
        rgb, one = np.full((48, 64, 3), 90, np.uint8), np.ones((48, 64), np.float32)
        SceneView(
            camera=camera, names=tuple(o.name for o in self.task.objects), first_frame=rgb,
            background_frame=rgb, labels=np.zeros((48, 64), np.uint8), depth_m=one,
            background_depth_m=one,
        ).save(self.scene)  # fmt: skip
        self.prompt.mkdir(parents=True)
        (self.prompt / "prompt.json").write_text(json.dumps({"text": "do", "negative": "blur"}))
        for folder in (self.scene, self.prompt):
            (folder / "manifest.json").write_text(json.dumps({"files": {folder.parent.name: "0"}}))

    def context(self, stage: str, config, name: str = "a", **changes) -> Context:
        folder = self.run.path / stage / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        told = {
            "task": self.task, "config": config, "seed": 0, "folder": folder, "run": self.run,
            "inputs": {"scene": self.scene, "prompt": self.prompt,
                       "imagine": self.run.path / "20_imagine/a"},
            "progress": silent, "note": self.notes.append,
            "services": Services(self.run.path / "services"),
        }  # fmt: skip
        return Context(**{**told, **changes})

    def imagine(self, model: Model, judge: Judge | None = None, budget: int = 0) -> list[dict]:
        config = SimpleNamespace(video=model, judge=judge, budget=budget, intake=None)
        ctx = self.context("20_imagine", config)
        imagine.run(ctx)
        return json.loads((ctx.folder / "candidates.json").read_text())["candidates"]

    def select(self, judge: Judge, force_video: int | None = None, name: str = "a") -> dict:
        config = SimpleNamespace(verifier=judge, force_video=force_video)
        ctx = self.context("30_select", config, name)
        select.run(ctx)
        return json.loads((ctx.folder / "verdicts.json").read_text())

    def select_again(self, judge: Judge) -> list[dict]:
        """What is said of the candidates where every verdict is kept already."""
        count = len(judge.asked)
        with pytest.raises(RunFailed):
            self.select(judge, name="again")
        assert len(judge.asked) == count
        return json.loads((self.run.path / "30_select/again/verdicts.json").read_text())[
            "candidates"
        ]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_without_a_budget_imagine_asks_no_judge(bench):
    model, judge = Model(), Judge(usable=(2,))
    rows = bench.imagine(model)
    assert model.asked == [0, 1, 2, 3] and [r["file"] for r in rows] == [
        f"candidate_{i}.mp4" for i in range(4)
    ]
    assert bench.select(judge)["chosen"] == 2 and judge.asked == [0, 1, 2, 3]


def test_imagine_goes_on_until_one_is_usable(bench):
    model, judge = Model(), Judge(usable=(5,))
    rows = bench.imagine(model, judge, budget=9)
    assert model.asked == list(range(6)) == judge.asked
    # select finds the verdicts, and so does a run that begins again: with the same outcome.
    told = bench.select(judge)
    assert told["chosen"] == 5 and len(told["candidates"]) == 6
    assert bench.imagine(model, judge, budget=9) == rows and bench.select(judge) == told
    assert model.asked == list(range(6)) == judge.asked


def test_a_run_that_ended_anywhere_in_between_comes_to_the_same(bench, tmp_path):
    whole = Bench(tmp_path / "whole")
    rows = whole.imagine(Model(), Judge(usable=(5,)), budget=9)
    asked: list[int] = []
    for fails_at in range(6):
        with pytest.raises(RunFailed, match="the judge is gone"):
            bench.imagine(Model(asked=asked), Judge((5,), fails_at, asked=[]), budget=9)
    judge = Judge(usable=(5,))
    assert bench.imagine(Model(asked=asked), judge, budget=9) == rows
    assert asked == list(range(6))


def test_the_budget_ends_with_every_reason(bench):
    model, judge = Model(), Judge()
    assert len(bench.imagine(model, judge, budget=6)) == 6
    with pytest.raises(RunFailed, match="every video was rejected") as error:
        bench.select(judge)
    text = str(error.value)
    assert all(f"{i} (11.0): number {i} is not liked" in text for i in range(6))
    assert "--force-video 0" in text and "\n" not in text and len(judge.asked) == 6
    (verdicts,) = bench.run.path.glob("30_select/a/verdicts.json")
    told = json.loads(verdicts.read_text())
    assert told["chosen"] is None and len(told["candidates"]) == 6
    assert told["candidates"][3]["evidence"] == {"words": "grey", "number": 3.0}
    # The report shows what each lost points for.
    folders = {"scene": bench.scene, "imagine": bench.run.path / "20_imagine/a",
               "select": bench.run.path / "30_select/a"}  # fmt: skip
    rows = SECTIONS["select"](None, folders)["candidates"]
    ((image, words),) = rows[3].pictures
    assert image.shape == (48, 64, 3) and words == "Frame 3: grey." and len(rows) == 6
    # Kept and read again it is the same.
    assert bench.select_again(judge) == told["candidates"]


def test_another_choice_judges_nothing_again(bench):
    judge = Judge(usable=(1,))
    bench.imagine(Model())
    assert bench.select(judge)["chosen"] == 1
    told = bench.select(judge, force_video=3, name="b")
    assert told["chosen"] == 3 and told["forced"] and len(judge.asked) == 4
    assert "candidate 3 was forced; its 11.0 points reject it" in bench.notes
    # Another judge, another opinion.
    assert bench.select(Judge(usable=(0,)), name="c")["chosen"] == 0
    with pytest.raises(UserError, match="there are candidates 0 to 3"):
        bench.select(judge, force_video=4)


def test_what_was_judged_before_a_kill_is_kept(bench):
    bench.imagine(Model())
    with pytest.raises(RunFailed):
        bench.select(Judge((1,), fails_at=2))
    judge = Judge(usable=(1,))
    again = Judge((1,), fails_at=2)
    with pytest.raises(RunFailed):
        bench.select(again)
    assert again.asked == [] and len(list((bench.run.path / "verdicts").glob("*.json"))) == 2
    kept = sorted((bench.run.path / "verdicts").glob("*.json"))
    kept[0].write_text(kept[0].read_text().replace('"motion": 3', '"motion": 2'))
    with pytest.raises(RunFailed):
        bench.select(again)
    assert len(again.asked) == 1 and any("is damaged" in n for n in bench.notes)
    assert bench.select(judge)["chosen"] == 1


def test_two_are_judged_side_by_side_with_the_same_outcome(bench, monkeypatch):
    bench.imagine(Model())
    alone = bench.select(Judge(usable=(2,)))
    shutil.rmtree(bench.run.path / "verdicts")
    both = threading.Barrier(2, timeout=20)

    class Beside(Judge):
        def judge(self, task, view, video):
            both.wait()
            return super().judge(task, view, video)

    monkeypatch.setattr(select, "_side_by_side", lambda verifier: True)
    judge = Beside(usable=(2,))
    assert bench.select(judge) == alone and sorted(judge.asked) == [0, 1, 2, 3]
    assert len(list((bench.run.path / "verdicts").glob("*.json"))) == 4


def test_a_bad_video_is_recorded_and_ends_no_other(bench):
    model, judge = Model(bad=(1,), fitted=False), Judge(usable=(2,))
    # None of these starts with the scene, so intake is played here.
    said = imagine.take_in

    def take_in(path, task, view, config, progress):
        if path.read_bytes() == b"no video":
            return said(path, task, view)
        from lucibot.core.video import read_video

        return read_video(path), SimpleNamespace(
            to_dict=lambda: {"warnings": []},
            done=(),
            warnings=(),
            file=path.name,
            valid=(0, 0, 64, 48),
        )

    with pytest.MonkeyPatch.context() as m:
        m.setattr(imagine, "take_in", take_in)
        rows = bench.imagine(model)
    assert [r["file"] is None for r in rows] == [False, True, False, False]
    assert "clip.mp4 cannot be decoded" in rows[1]["trouble"]
    told = bench.select(judge)
    assert told["chosen"] == 2 and judge.asked == [0, 2, 3]
    row = told["candidates"][1]
    assert row["total"] == 5.0 and not row["usable"] and row["reasons"] == [rows[1]["trouble"]]
    with pytest.raises(UserError, match="--force-video 1: it has no video"):
        bench.select(judge, force_video=1)


@pytest.mark.parametrize(("given", "error"), [(False, RunFailed), (True, UserError)])
def test_where_no_video_can_serve_every_reason_is_told(bench, given, error):
    model = Model(candidates=2, bad=(0, 1), fitted=False, given=given)
    with pytest.raises(error, match=r"clip\.mp4 cannot be decoded") as told:
        bench.imagine(model, Judge(), budget=3)
    assert model.asked == ([0, 1] if given else [0, 1, 2])
    assert str(bench.run.path) not in str(told.value), "the file is named as the user knows it"
    rows = json.loads((bench.run.path / "20_imagine/a/candidates.json").read_text())["candidates"]
    assert all("clip.mp4" in r["trouble"] for r in rows)


def test_a_refused_video_leaves_a_picture_and_the_report_shows_it(bench, monkeypatch):
    seen = np.full((48, 64, 3), 200, np.uint8)

    def take_in(path, task, view, config, progress):
        raise imagine.Refused(f"{path} shows another scene", seen)

    monkeypatch.setattr(imagine, "take_in", take_in)
    with pytest.raises(UserError, match="shows another scene"):
        bench.imagine(Model(candidates=2, fitted=False, given=True))
    folder = bench.run.path / "20_imagine/a"
    rows = SECTIONS["imagine"](None, {"scene": bench.scene, "imagine": folder})["candidates"]
    assert len(rows) == 2 and all("another scene" in r.reasons[0] for r in rows)
    (expected, said), (shown, other) = rows[1].pictures
    assert "expected" in said and "seen" in other
    assert (expected == 90).all() and (shown == 200).all()
    write_report(ReportData(title="t", candidates=rows), bench.run.path / "report.html")
    assert (bench.run.path / "report.html").read_text().count("data:image/jpeg") == 4


def test_the_judge_counts_for_imagine_only_where_it_is_asked():
    config = RunConfig()
    assert config.imagine.judge is None and config.imagine.budget == 0
    config = dataclasses.replace(config, select=SelectConfig(budget=4))
    assert config.imagine.judge is None, "four are made anyway"
    config = with_settings(RunConfig(), {"select.budget": "5"})
    assert config.imagine.judge == config.select.verifier and config.imagine.budget == 5


def test_templates_say_what_the_paper_asks_for():
    for name in task_names():
        task = load_task(name)
        told = TemplatePrompt().create().write(task, None)
        assert "static camera" in told.text and "hand" in told.text
        assert " ".join(task.instruction.split()) in told.text and len(told.text) <= 1000
        for o in task.actuators:
            assert f"the {o.name.replace('_', ' ')}" in told.text
        assert "must stay" in told.text and "camera movement" in told.negative


@pytest.mark.parametrize(
    ("hands", "asks"), [("none", "No hand, no arm"), ("optional", "or no hand")]
)
def test_a_template_asks_for_the_hands_that_the_task_wants(hands, asks):
    for name in task_names():
        task = load_task(name)
        task = type(task)(
            task.folder, task.spec.model_copy(update={"hands": hands}), task.instruction
        )
        told = TemplatePrompt().create().write(task, None)
        assert asks in told.text and "static camera" in told.text and len(told.text) <= 1100
        assert ("move by themselves" in told.negative) is False
        assert told.negative.startswith("camera movement") and ("arms" in told.negative) == (
            hands == "none"
        )


def test_a_vlm_writes_the_prompt_once_and_a_new_one_is_never_silent(bench, httpserver, monkeypatch):
    pytest.importorskip("openai", reason="openai is not installed: pip install 'lucibot[vlm]'")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789")
    services = Services(
        bench.run.path / "services",
        ServicesConfig(vlm=VlmConfig(base_url=httpserver.url_for("/v1"), first_wait_s=0)),
    )

    def answer(text: str) -> None:
        httpserver.clear()
        content = json.dumps({"prompt": text, "negative_prompt": "zoom"})
        message = {"role": "assistant", "content": content}
        httpserver.expect_request("/v1/chat/completions").respond_with_json(
            {"id": "c", "object": "chat.completion", "created": 1, "model": "m",
             "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
        )  # fmt: skip

    def write(name: str, **settings) -> Prompt:
        ctx = bench.context("15_prompt", VlmPrompt(model="m", **settings), name, services=services)
        prompt.run(ctx)
        return Prompt.load(ctx.folder)

    text = "A static camera shows a table; a hand takes the knife and cuts the dough."
    (bench.prompt / "prompt.json").unlink()
    answer(text)
    told = write("b")
    assert told == Prompt(text=text, negative="zoom") and not bench.notes
    sent = httpserver.log[0][0].get_json()["messages"]
    assert bench.task.instruction in sent[1]["content"][0]["text"]
    assert "the knife" in sent[1]["content"][0]["text"] and len(sent[1]["content"]) == 2
    # The same question is not asked again, were the folder lost.
    answer("Another one that would make every bought candidate worthless, if it were taken.")
    shutil.rmtree(bench.run.path / "15_prompt/b")
    assert write("b") == told and not httpserver.log and not bench.notes
    assert write("c", longest=900) != told
    assert any("differs from the run's earlier one (b)" in n for n in bench.notes)
