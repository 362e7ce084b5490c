"""Services: answers are asked for once, busy servers again, money is counted and capped, and keys
are nowhere. The real client speaks to a server on this machine."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel, Field

from lucibot import cli
from lucibot.core.errors import RunFailed, UserError
from lucibot.estimate import Estimate
from lucibot.services import Services, ServicesConfig, VlmConfig
from lucibot.services.estimate import Planned
from lucibot.services.keys import hidden, keep_out
from lucibot.services.ledger import CapReached, Ledger

pytest.importorskip("openai", reason="openai is not installed: pip install 'lucibot[vlm]'")

KEY = "sk-planted-0123456789abcdef"
CHAT = "/v1/chat/completions"
PICTURE = np.full((48, 64, 3), 120, np.uint8)


class Seen(BaseModel):
    thing: str = Field(min_length=1, description="What is seen.")
    count: int = Field(ge=0, le=9)


def reply(content: str | None, *, finish: str = "stop", refusal: str | None = None) -> dict:
    return {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": finish,
                     "message": {"role": "assistant", "content": content, "refusal": refusal}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }  # fmt: skip


GOOD = reply(json.dumps({"thing": "knife", "count": 2}))


@pytest.fixture(scope="session")
def make_httpserver():
    from pytest_httpserver import HTTPServer

    with HTTPServer(threaded=True) as server:
        yield server


@pytest.fixture
def services(tmp_path, httpserver, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def make(max_usd: float | None = None, **changes) -> Services:
        told = {"usd_per_million_in": 2.0, "usd_per_million_out": 8.0, "first_wait_s": 0.0,
                "longest_answer": 1000, "base_url": httpserver.url_for("/v1")}  # fmt: skip
        vlm = VlmConfig(**{**told, **changes})
        return Services(tmp_path / "services", ServicesConfig(max_usd=max_usd, vlm=vlm))

    return make


def ask(services: Services, question: str = "What is it?", **more) -> Seen:
    told = {"model": "m", "call_site": "look", "instructions": "You look.", "pictures": [PICTURE]}
    return services.vlm.ask(Seen, question=question, **{**told, **more})


def count(httpserver) -> int:
    return sum(request.path == CHAT for request, _ in httpserver.log)


def test_the_same_question_is_asked_once(services, httpserver):
    httpserver.expect_request(CHAT).respond_with_json(GOOD)
    assert ask(services()) == Seen(thing="knife", count=2)
    assert ask(services()) == Seen(thing="knife", count=2) and count(httpserver) == 1
    # Everything that is sent counts.
    ask(services(), "And now?")
    ask(services(), pictures=[PICTURE + 1])
    ask(services(), model="other")
    ask(services(), instructions="You look twice.")
    assert count(httpserver) == 5
    sent = httpserver.log[0][0].get_json()
    assert sent["messages"][0] == {"role": "system", "content": "You look."}
    assert sent["messages"][1]["content"][1]["image_url"]["url"].startswith(
        "data:image/jpeg;base64,"
    )
    assert sent["response_format"]["type"] == "json_schema"
    assert httpserver.log[0][0].headers["Authorization"] == f"Bearer {KEY}"


def test_a_damaged_answer_is_asked_for_again(services, httpserver):
    httpserver.expect_request(CHAT).respond_with_json(GOOD)
    ask(services())
    (kept,) = services().answers.folder.glob("*.json")
    kept.write_text(kept.read_text().replace("knife", "spoon"))
    assert ask(services()).thing == "knife" and count(httpserver) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_or_broken_server_is_asked_again(services, httpserver, status):
    headers = {"retry-after": "0"} if status == 429 else {}
    for _ in range(2):
        httpserver.expect_ordered_request(CHAT).respond_with_json(
            {"error": {"message": "busy"}}, status=status, headers=headers
        )
    httpserver.expect_ordered_request(CHAT).respond_with_json(GOOD)
    s = services()
    assert ask(s).count == 2 and count(httpserver) == 3
    # What ended in an error is not charged.
    assert s.ledger.spent_usd() == pytest.approx(1000 * 2e-6 + 100 * 8e-6)


def test_tries_end_and_say_so(services, httpserver):
    httpserver.expect_request(CHAT).respond_with_json({"error": {"message": "down"}}, status=500)
    with pytest.raises(RunFailed, match=r"look \(m\): .* answers 500: down, 3 times"):
        ask(services(tries=3))
    assert count(httpserver) == 3
    httpserver.clear()
    httpserver.expect_request(CHAT).respond_with_json(
        {"error": {"message": "tomorrow"}}, status=429, headers={"retry-after": "9999"}
    )
    with pytest.raises(RunFailed, match="left alone for 9999 s"):
        ask(services())
    assert count(httpserver) == 1
    with pytest.raises(RunFailed, match="cannot be reached"):
        ask(services(base_url="http://127.0.0.1:9/v1", tries=2))


def test_a_server_that_does_not_answer_in_time_is_asked_again(services, httpserver):
    def slow(request):
        from werkzeug import Response

        answered.wait(20)
        return Response(json.dumps(GOOD), content_type="application/json")

    answered = threading.Event()
    httpserver.expect_ordered_request(CHAT).respond_with_handler(slow)
    httpserver.expect_ordered_request(CHAT).respond_with_json(GOOD)
    s = services(timeout_s=0.5)
    try:
        assert ask(s).count == 2
    finally:
        answered.set()
        while count(httpserver) < 2:  # The next test has the same server.
            time.sleep(0.01)
    # Whether the first was charged is not known: it counts with what it could have cost.
    assert s.ledger.spent_usd() > 1000 * 8e-6


@pytest.mark.parametrize(
    "bad",
    [
        "I see a knife.", '{"thing": "knife"}', '{"thing": "knife", "count": 11}',
        '["knife", 2]', '{"thing": "knife", "count"',
    ],
)  # fmt: skip
def test_an_answer_that_is_not_valid_is_repaired_once(services, httpserver, bad):
    httpserver.expect_ordered_request(CHAT).respond_with_json(reply(bad))
    httpserver.expect_ordered_request(CHAT).respond_with_json(GOOD)
    assert ask(services()).count == 2
    repair = httpserver.log[1][0].get_json()["messages"]
    assert repair[2] == {"role": "assistant", "content": bad}
    assert "not a valid answer" in repair[3]["content"]
    assert ask(services()).count == 2 and count(httpserver) == 2
    httpserver.clear()
    httpserver.expect_request(CHAT).respond_with_json(reply(bad))
    with pytest.raises(RunFailed, match="twice no valid answer"):
        ask(services(), "Another?")
    assert count(httpserver) == 2


def test_what_a_server_will_not_do_is_one_line(services, httpserver):
    for status, message in ((401, "wrong key"), (404, "no such model"), (400, "no pictures")):
        httpserver.clear()
        httpserver.expect_request(CHAT).respond_with_json(
            {"error": {"message": message}}, status=status
        )
        with pytest.raises(UserError, match=f"answers {status}: {message}"):
            ask(services())
        assert count(httpserver) == 1
    httpserver.clear()
    httpserver.expect_request(CHAT).respond_with_json(reply(None, refusal="no knives"))
    with pytest.raises(RunFailed, match="the model refuses: no knives"):
        ask(services())
    httpserver.clear()
    httpserver.expect_request(CHAT).respond_with_data("<html>", content_type="text/html")
    with pytest.raises(RunFailed, match="what is no JSON"):
        ask(services(tries=1))


def test_the_cap_stops_before_the_call_that_could_pass_it(services, httpserver):
    httpserver.expect_request(CHAT).respond_with_json(GOOD)
    # A call comes to 0.0028 USD, and could come to some 0.0085 with 1,000 tokens of answer.
    ask(services(max_usd=0.012))
    with pytest.raises(CapReached, match=r"vlm look \(m\) could cost .* of the 0\.01 USD"):
        ask(services(max_usd=0.01), "And now?")
    assert count(httpserver) == 1
    with pytest.raises(UserError, match="no price is known"):
        ask(services(max_usd=1.0, usd_per_million_in=None), "And now?")
    assert count(httpserver) == 1 and ask(services(max_usd=0.01)).count == 2  # It is kept.
    ask(services(max_usd=0.02), "And now?")
    assert count(httpserver) == 2


@pytest.mark.parametrize(("usd", "calls", "cap"), [(0.28, 5, 1.4), (0.1, 3, 0.3), (0.7, 3, 2.1)])
def test_what_comes_to_the_very_cap_is_bought(tmp_path, usd, calls, cap):
    planned = (Planned(stage="imagine", what="videos", by="m", calls=calls, usd_each=usd),)
    told = Estimate(planned=planned, spent_usd=0.0, max_usd=cap, prices="p").lines()
    assert "stops the run" not in " ".join(told)
    ledger = Ledger(tmp_path / "ledger.jsonl", max_usd=cap)
    for _ in range(calls):
        with ledger.call("video", usd=usd):
            pass
    with pytest.raises(CapReached), ledger.call("video", usd=0.001):
        raise AssertionError("the call was made")


def test_calls_at_the_same_time_are_bounded_and_cannot_pass_the_cap_together(services, httpserver):
    lock, under_way, most = threading.Lock(), [0], [0]

    def handler(request):
        from werkzeug import Response

        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.1)
        with lock:
            under_way[0] -= 1
        return Response(json.dumps(GOOD), content_type="application/json")

    httpserver.expect_request(CHAT).respond_with_handler(handler)
    s, errors = services(max_usd=0.03, at_once=2), []

    def one(i: int) -> None:
        try:
            ask(s, f"Number {i}?")
        except CapReached as e:
            errors.append(e)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert most[0] == 2 and errors and s.ledger.spent_usd() <= 0.03
    assert s.ledger.spent_usd() == pytest.approx(0.0028 * count(httpserver))


def _begin_and_die(path: Path) -> None:
    ledger = Ledger(path)
    with ledger.call("first", usd=1.0) as call:
        call.paid(0.7)
    with ledger.call("second", usd=2.0):
        os._exit(9)


def test_the_ledger_survives_a_kill(tmp_path):
    path = tmp_path / "services" / "ledger.jsonl"
    killed = multiprocessing.get_context("fork").Process(target=_begin_and_die, args=(path,))
    killed.start()
    killed.join(30)
    assert killed.exitcode == 9
    ledger = Ledger(path, max_usd=3.0)
    # What was begun and whose end is not known counts with all that it could have cost.
    assert ledger.spent_usd() == pytest.approx(2.7)
    with pytest.raises(CapReached, match=r"2\.7 of the 3 USD"), ledger.call("third", usd=0.5):
        raise AssertionError("the call was made")
    # A line that was cut off belongs to a call that was not made.
    with open(path, "a") as f:
        f.write('{"call": "x", "ev')
    assert ledger.spent_usd() == pytest.approx(2.7)
    with ledger.call("third", usd=0.2):
        pass
    assert ledger.spent_usd() == pytest.approx(2.9)
    assert all(json.loads(line) for line in path.read_text().splitlines())
    text = path.read_text()
    path.write_text(text.replace('"event": "paid"', '"event', 1))
    with pytest.raises(UserError, match=r"line 2 is damaged"):
        ledger.spent_usd()


def test_a_missing_key_is_named_and_a_server_of_ones_own_needs_none(
    services, httpserver, monkeypatch
):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="set the environment variable OPENAI_API_KEY"):
        ask(services(base_url=None))
    with pytest.raises(UserError, match="OTHER_KEY"):
        ask(services(base_url=None, key_variable="OTHER_KEY"))
    httpserver.expect_request(CHAT).respond_with_json(GOOD)
    assert ask(services()).count == 2


def test_what_is_no_key_is_refused_without_being_told(services, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nsecond")
    with pytest.raises(UserError, match="OPENAI_API_KEY holds a line break") as told:
        ask(services())
    assert KEY not in str(told.value)
    # As libraries write it.
    assert (
        hidden(f"bad header {f'Bearer {KEY}{chr(10)}second'.encode()!r}")
        == "bad header b'Bearer [key]'"
    )


def test_a_fault_of_ours_tells_no_key(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    keep_out(KEY)

    def fault(argv):
        raise ZeroDivisionError(f"header {KEY}")

    monkeypatch.setitem(cli.COMMANDS, "runs", fault)
    assert cli.main(["runs", KEY]) == 1
    (details,) = tmp_path.glob("lucibot_*.log")
    for text in (capsys.readouterr().err, details.read_text()):
        assert "ZeroDivisionError: header [key]" in text and KEY not in text


def test_the_key_is_in_no_file_and_no_message(services, httpserver, tmp_path):
    httpserver.expect_ordered_request(CHAT).respond_with_json(GOOD)
    s = services()
    ask(s)
    # Servers repeat what they were sent.
    httpserver.expect_ordered_request(CHAT).respond_with_json(
        {"error": {"message": f"Incorrect API key provided: {KEY}"}}, status=401
    )
    with pytest.raises(UserError) as told:
        ask(s, "Again?")
    assert "answers 401" in str(told.value) and KEY not in str(told.value)
    assert told.value.__cause__ is None
    httpserver.expect_ordered_request(CHAT).respond_with_json(reply(f"my key is {KEY}"))
    httpserver.expect_ordered_request(CHAT).respond_with_json(reply(f'{{"{KEY}": 1}}'))
    with pytest.raises(RunFailed) as told:
        ask(s, "And again?")
    assert KEY not in str(told.value)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) >= 2 and not [p for p in files if KEY.encode() in p.read_bytes()]
    assert hidden(f"x{KEY}y") == "x[key]y"
