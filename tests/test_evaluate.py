"""Judges of what runs left. The models' server is on this machine: it looks at the pictures that it is
sent and answers by how bright they are, so that a judge that mixes them up is caught."""

from __future__ import annotations

import base64
import json
import math
import re
import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from lucibot.cli import main
from lucibot.core.errors import UserError
from lucibot.evaluate.agreement import correlation, mean_interval
from lucibot.evaluate.command import agrees, decides, evaluate
from lucibot.evaluate.config import EvaluateConfig
from lucibot.evaluate.judges import Judged
from lucibot.evaluate.picture import PictureJudge
from lucibot.evaluate.ranking import RankingJudge, heats, ranks
from lucibot.evaluate.vqa import VqaJudge
from lucibot.services import Services, ServicesConfig, VlmConfig
from lucibot.task import Task, load_task

CHAT = "/v1/chat/completions"
pytest.importorskip("openai", reason="pip install 'lucibot[vlm]'")


@pytest.fixture(scope="session")
def make_httpserver():
    from pytest_httpserver import HTTPServer

    with HTTPServer(threaded=True) as server:
        yield server


@pytest.fixture
def services(tmp_path, httpserver):
    told = {"base_url": httpserver.url_for("/v1"), "first_wait_s": 0.0, "tries": 2,
            "usd_per_million_in": 2.0, "usd_per_million_out": 8.0}  # fmt: skip
    return Services(tmp_path / "services", ServicesConfig(vlm=VlmConfig(**told)))


def outcome(brightness: int, *, seed: int = 0, task=None):
    frame = np.full((48, 64, 3), brightness, np.uint8)
    return SimpleNamespace(
        name=f"run_{brightness}", task=task or load_task("cut_dough"), seed=seed, last_frame=frame,
        film=SimpleNamespace(frames=np.zeros((1, 48, 64, 3), np.uint8)),
    )  # fmt: skip


def brightness(part: dict) -> float:
    data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    return float(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).mean())


def pictures(body: dict) -> list[float]:
    content = body["messages"][1]["content"]
    return [brightness(p) for p in content if p["type"] == "image_url"]


def serve(httpserver, answer):
    """`answer(body)` gives the answer's text, or a message with more in it."""
    from werkzeug import Response

    def handle(request):
        body = request.get_json()
        found = answer(body)
        if isinstance(found, Response):
            return found
        choice = (
            found
            if isinstance(found, dict)
            else {"message": {"role": "assistant", "content": found}}
        )
        reply = {
            "id": "c", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", **choice}],
            "usage": {"prompt_tokens": 500, "completion_tokens": 5, "total_tokens": 505},
        }  # fmt: skip
        return Response(json.dumps(reply), content_type="application/json")

    httpserver.expect_request(CHAT).respond_with_handler(handle)


def asked(httpserver) -> list[dict]:
    return [r.get_json() for r, _ in httpserver.log if r.path == CHAT]


def by_brightness(body: dict) -> str:
    shown = pictures(body)[1:]  # The first is the scene before.
    levels: dict[float, list[str]] = {}
    for letter, value in zip("ABCDEFGH", shown, strict=False):
        levels.setdefault(round(value), []).append(letter)
    ranking = [levels[v] for v in sorted(levels, reverse=True)]
    return json.dumps({"seen": "Greys.", "ranking": ranking})


def test_a_ranking_finds_its_way_back_through_shuffled_orders(services, httpserver):
    serve(httpserver, by_brightness)
    outcomes = [outcome(b) for b in (40, 200, 120, 200, 80)]
    found = RankingJudge(EvaluateConfig(model="m", rounds=4), services).judge(outcomes)
    assert [j.told["mean_rank"] for j in found.each] == pytest.approx([5, 1.5, 3, 1.5, 4])
    assert found.each[0].score == 0 and found.each[1].score == pytest.approx(1 - 0.5 / 4)
    assert found.facts["tied_pairs"] == pytest.approx(0.1) and found.facts["unanswered"] == 0
    orders = [pictures(b)[1:] for b in asked(httpserver)]
    assert len({tuple(o) for o in orders}) > 1
    # The same command asks nothing again.
    RankingJudge(EvaluateConfig(model="m", rounds=4), services).judge(outcomes)
    assert len(asked(httpserver)) == 4


def test_a_judge_that_prefers_what_is_shown_first_is_found_out(services, httpserver):
    def first(body):
        letters = "ABCDEF"[: len(pictures(body)) - 1]
        return json.dumps({"seen": "Greys.", "ranking": [[x] for x in letters]})

    serve(httpserver, first)
    found = RankingJudge(EvaluateConfig(model="m", rounds=20), services).judge(
        [outcome(b) for b in (40, 200, 120, 80)]
    )
    bias = found.facts["position_bias"]
    assert bias["spearman"] == pytest.approx(1)
    assert (bias["mean_place_shown_first"], bias["mean_place_shown_last"]) == (0, 1)
    assert all(0.2 < j.score < 0.8 for j in found.each)


def test_only_what_belongs_together_is_ranked(services, httpserver):
    serve(httpserver, by_brightness)
    other = load_task("lift_mochi")
    outcomes = [
        outcome(40),
        outcome(90),
        outcome(40, seed=1),
        outcome(200, seed=1),
        outcome(9, task=other),
    ]
    config = EvaluateConfig(model="m", rounds=1, against="seed")
    found = RankingJudge(config, services).judge(outcomes)
    assert [j.score for j in found.each[:4]] == [0, 1, 0, 1]
    assert math.isnan(found.each[4].score) and "no other run" in found.each[4].error


def test_a_large_group_is_dealt_into_equal_heats():
    dealt = heats(range(10), rounds=3, most=4, seed=0)
    assert sorted(len(h.members) for h in dealt if h.round == 0) == [3, 3, 4]
    for r in range(3):
        assert sorted(i for h in dealt if h.round == r for i in h.members) == list(range(10))
    assert dealt == heats(range(10), rounds=3, most=4, seed=0)
    assert ranks([["B"], ["A", "C"], ["D"]]) == {"B": 1, "A": 2.5, "C": 2.5, "D": 4}


@pytest.mark.parametrize("ranking", [[["A"], ["A"]], [["A"]], [["A"], ["B"], ["Z"]]])
def test_a_ranking_that_is_none_is_one_line_and_the_others_are_kept(services, httpserver, ranking):
    def answer(body):
        bad = max(pictures(body)) > 150
        return json.dumps({"seen": "Greys.", "ranking": ranking}) if bad else by_brightness(body)

    serve(httpserver, answer)
    config = EvaluateConfig(model="m", rounds=1, against="seed")
    found = RankingJudge(config, services).judge(
        [outcome(40), outcome(90), outcome(40, seed=1), outcome(200, seed=1)]
    )
    assert [j.score for j in found.each[:2]] == [0, 1] and found.facts["unanswered"] == 1
    for j in found.each[2:]:
        assert re.match(r"rank \(m\): twice no valid answer: ", j.error) and "\n" not in j.error


def tokens(**chances: float) -> dict:
    listed = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in chances.items()]
    best = max(chances, key=chances.get)
    return {
        "message": {"role": "assistant", "content": best}, "finish_reason": "length",
        "logprobs": {"content": [{**listed[0], "top_logprobs": listed}]},
    }  # fmt: skip


def test_the_chance_of_yes_is_read_from_the_first_token(services, httpserver):
    def answer(body):
        assert body["logprobs"] is True and body["top_logprobs"] == 20
        yes = pictures(body)[0] / 255
        return tokens(**{"Yes": 0.6 * yes, " yes": 0.3 * yes, "No": 0.9 * (1 - yes), "I": 0.01})

    serve(httpserver, answer)
    found = VqaJudge(EvaluateConfig(model="m"), services).judge([outcome(51), outcome(204)])
    assert [j.score for j in found.each] == pytest.approx([0.9 * 0.2, 0.9 * 0.8], abs=0.01)
    assert [j.success for j in found.each] == [False, True]
    assert found.facts["by"] == "probabilities"
    VqaJudge(EvaluateConfig(model="m"), services).judge([outcome(51), outcome(204)])
    assert len(asked(httpserver)) == 2


@pytest.mark.parametrize("refused", [True, False])
def test_a_server_without_probabilities_is_asked_to_vote(services, httpserver, refused):
    from werkzeug import Response

    votes = []

    def answer(body):
        if "logprobs" in body and refused:
            error = {
                "error": {"message": "logprobs are not supported with this model", "code": None}
            }
            return Response(json.dumps(error), status=403, content_type="application/json")
        if "response_format" not in body:
            return "yes"
        votes.append(body)
        return json.dumps({"answer": "yes" if len(votes) <= 3 else "no"})

    serve(httpserver, answer)
    found = VqaJudge(EvaluateConfig(model="m", votes=4), services).judge([outcome(51)])
    assert found.each[0].score == 0.75 and found.each[0].success and len(votes) == 4
    assert found.facts["by"] == "votes"
    again = VqaJudge(EvaluateConfig(model="m", votes=4), services).judge([outcome(51)])
    assert again.each[0].score == 0.75 and len(votes) == 4


def test_a_model_that_says_something_else_is_one_line_and_the_others_are_kept(services, httpserver):
    def answer(body):
        return tokens(Yes=0.9, No=0.1) if pictures(body)[0] > 100 else tokens(Maybe=0.9, Yes=0.1)

    serve(httpserver, answer)
    found = VqaJudge(EvaluateConfig(model="m"), services).judge([outcome(51), outcome(204)])
    assert math.isnan(found.each[0].score) and found.each[1].score == pytest.approx(0.9)
    assert found.each[0].error.startswith(
        "vqa (m): it begins to answer 'Maybe', neither yes nor no"
    )


def test_what_a_judge_says_of_tokens_can_be_replayed(services, httpserver, tmp_path):
    serve(httpserver, lambda body: tokens(Yes=0.7, No=0.2))
    first = VqaJudge(EvaluateConfig(model="m"), services).judge([outcome(51)])
    config = ServicesConfig(vlm=VlmConfig(replay=tmp_path))
    replayed = Services(tmp_path / "other", config)
    again = VqaJudge(EvaluateConfig(model="m"), replayed).judge([outcome(51)])
    assert again.each == first.each and len(asked(httpserver)) == 1
    with pytest.raises(UserError, match="not among the answers"):
        VqaJudge(EvaluateConfig(model="m"), replayed).judge([outcome(99)])


def test_a_cap_ends_it_and_keeps_what_was_answered(tmp_path, httpserver):
    serve(httpserver, lambda body: tokens(Yes=0.7, No=0.2))
    told = {"base_url": httpserver.url_for("/v1"), "usd_per_million_in": 1000.0,
            "usd_per_million_out": 0.0, "at_once": 1}  # fmt: skip
    services = Services(tmp_path / "s", ServicesConfig(max_usd=0.6, vlm=VlmConfig(**told)))
    found = VqaJudge(EvaluateConfig(model="m"), services).judge([outcome(b) for b in (10, 90, 170)])
    assert [bool(j.error) for j in found.each] == [False, True, True]
    assert "raise --max-usd" in found.each[1].error


def test_correlations_are_scipys_and_know_when_there_is_none():
    a, b = [1, 2, 3, 4, math.nan], [1, 3, 2, 4, 9]
    found = correlation(a, b)
    assert found.count == 4 and found.spearman == pytest.approx(0.8)
    assert found.kendall == pytest.approx(2 / 3)
    low, high = found.spearman_interval
    assert low < 0.8 <= high == 1
    assert correlation([1, 1, 1], [1, 2, 3]).why_none == "all alike"
    assert correlation([1, 2], [1, 2]).why_none == "too few"
    low, high = mean_interval([0, 1, 0, 1])
    assert 0 <= low < 0.5 < high <= 1


def test_what_a_judge_decides_is_held_against_the_state():
    state = [Judged(score=1.0, success=True), Judged(score=0.4, success=False),
             Judged(score=0.2, success=False)]  # fmt: skip
    vqa = [Judged(score=0.99, success=True), Judged(score=0.8, success=True),
           Judged(error="no answer")]  # fmt: skip
    found = decides(state, vqa)
    assert found == {"mean_where_done": 0.99, "mean_where_not": 0.8, "decides_alike": 0.5}
    assert agrees(state, vqa).count == 2


def test_the_last_frame_is_measured_by_the_goal_relation(small_task, tmp_path):
    """A dark block on grey that ends in two pieces, and one that stays whole."""
    from lucibot.core.scene_view import SceneView
    from lucibot.core.video import Video

    task = small_task("cut_dough", tmp_path / "cut_dough", width=320, height=240, fps=15)
    rng = np.random.default_rng(0)
    ground = np.clip(rng.normal(150, 4, (240, 320, 1)), 0, 255).repeat(3, 2).astype(np.uint8)

    def frame(gap: int) -> np.ndarray:
        picture = ground.copy()
        picture[80:160, 80 - gap : 160 - gap] = (190, 120, 40)
        picture[80:160, 160 + gap : 240 + gap] = (190, 120, 40)
        picture[10:40, 20:120] = (40, 40, 160)
        return picture

    labels = np.zeros((240, 320), np.uint8)
    labels[80:160, 80:240], labels[10:40, 20:120] = 2, 1
    one = np.ones((240, 320), np.float32)
    view = SceneView(
        camera=task.camera, names=("knife", "dough"), first_frame=frame(0), background_frame=None,
        labels=labels, depth_m=one, background_depth_m=one,
    )  # fmt: skip

    def left(gap: int):
        film = Video(frames=np.stack([frame(round(gap * t / 9)) for t in range(10)]), fps=20.0)
        return SimpleNamespace(
            name="r", task=task, seed=0, film=film, last_frame=frame(gap), view=view
        )

    found = PictureJudge().judge([left(12), left(0)])
    assert [(j.score, j.success) for j in found.each] == [(1.0, True), (0.0, False)]


def test_of_two_relations_of_one_kind_and_object_the_weaker_one_counts(monkeypatch):
    task = load_task("cut_dough")
    goal = [{**task.spec.goal[0], "count": 3}, *task.spec.goal]
    task = Task(task.folder, task.spec.model_copy(update={"goal": goal}), task.instruction)
    monkeypatch.setattr("lucibot.evaluate.picture.as_filmed", lambda outcome: (None, None))
    monkeypatch.setattr("lucibot.evaluate.picture.classify_task", lambda *_, **__: None)
    monkeypatch.setattr(
        "lucibot.providers.verifier.goals.measure", lambda *told: [float(told[-1].count == 2)]
    )
    (found,) = PictureJudge().judge([SimpleNamespace(task=task)]).each
    assert (found.score, found.success) == (0.0, False)
    assert found.told == {"pieces dough": 0.0, "pieces dough (2)": 1.0}


def test_two_that_judge_in_one_folder_do_so_one_after_the_other(tmp_path, monkeypatch, capsys):
    """Else both would ask, and pay for, what neither has an answer to yet."""
    at_work, most, inside = [0], [0], threading.Event()

    def judged(outcomes, names, config, out):
        at_work[0] += 1
        most[0] = max(most[0], at_work[0])
        inside.set()
        time.sleep(0.3)
        at_work[0] -= 1
        return {}

    monkeypatch.setattr("lucibot.evaluate.command._evaluate", judged)
    told = ([], ["state"], EvaluateConfig(), tmp_path / "judges")
    first = threading.Thread(target=evaluate, args=told)
    first.start()
    inside.wait(10)
    assert evaluate(*told) == {} and most == [1]
    first.join(10)
    assert "is in use by process" in capsys.readouterr().err


def test_bad_input_is_one_line(tmp_path, capsys):
    def said(*argv: str) -> tuple[int, str]:
        status = main(["evaluate", *argv])
        return status, capsys.readouterr().err.strip()

    assert said(str(tmp_path), "--judge", "state")[0] == 2
    for argv, match in (
        ((str(tmp_path / "none"),), "none"),
        ((str(tmp_path), "--task", str(tmp_path)), "holds no task.toml"),
        ((str(tmp_path), "--rounds", "0"), "--rounds 0"),
        ((str(tmp_path), "--against", "all"), "task, seed|seed, task"),
    ):
        status, line = said(*argv)
        assert status == 2 and "\n" not in line and re.search(match, line), (argv, line)


def test_a_judge_lacks_its_name_or_its_model(services, tmp_path):
    with pytest.raises(UserError, match="Did you mean 'vqa'"):
        evaluate([], ["vqq"], EvaluateConfig(), tmp_path)
    for judge in (RankingJudge, VqaJudge):
        with pytest.raises(UserError, match="name it with --model"):
            judge(EvaluateConfig(), services)
