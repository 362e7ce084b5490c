"""What servers of one protocol do differently, and what they do wrong: each ends in an answer or one
clear error, and what was paid is in the ledger. The real client speaks to a server on this machine."""

from __future__ import annotations

import json
import socket
import threading
from typing import Literal

import numpy as np
import pytest
from pydantic import BaseModel, Field

from lucibot.core.errors import RunFailed, UserError
from lucibot.services import Services, ServicesConfig, VlmConfig
from lucibot.services.pictures import sizes
from lucibot.services.reading import objects, read_answer

pytest.importorskip("openai", reason="openai is not installed: pip install 'lucibot[vlm]'")

CHAT = "/v1/chat/completions"
PAID = 1000 * 2e-6 + 100 * 8e-6


class Seen(BaseModel):
    thing: Literal["knife", "dough"]
    count: int = Field(ge=0, le=9)


KNIFE = '{"thing": "knife", "count": 2}'


def reply(content, *, finish: str = "stop", usage: dict | None = None, **message) -> dict:
    counted = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    return {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": finish,
                     "message": {"role": "assistant", "content": content, **message}}],
        "usage": counted if usage is None else usage,
    }  # fmt: skip


@pytest.fixture(scope="session")
def make_httpserver():
    from pytest_httpserver import HTTPServer

    with HTTPServer(threaded=True) as server:
        yield server


@pytest.fixture
def services(tmp_path, httpserver, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789")

    def make(max_usd: float | None = None, folder: str = "services", **changes) -> Services:
        told = {"usd_per_million_in": 2.0, "usd_per_million_out": 8.0, "first_wait_s": 0.0,
                "longest_answer": 1000, "tries": 3, "base_url": httpserver.url_for("/v1")}  # fmt: skip
        vlm = VlmConfig(**{**told, **changes})
        return Services(tmp_path / folder, ServicesConfig(max_usd=max_usd, vlm=vlm))

    return make


def ask(services: Services, question: str = "What is it?", **more) -> Seen:
    told = {"model": "m", "call_site": "look", "instructions": "You look."}
    return services.vlm.ask(Seen, question=question, **{**told, **more})


def sent(httpserver) -> list[dict]:
    return [r.get_json() for r, _ in httpserver.log if r.path == CHAT]


def serve(httpserver, wrong) -> None:
    """A server that refuses with a message what `wrong(request)` finds."""
    from werkzeug import Response

    def handle(request):
        told = wrong(request.get_json())
        body = reply(KNIFE) if told is None else {"error": {"message": told}}
        return Response(json.dumps(body), 200 if told is None else 400,
                        content_type="application/json")  # fmt: skip

    httpserver.expect_request(CHAT).respond_with_handler(handle)


def no_schema(body: dict) -> str | None:
    kind = body.get("response_format", {}).get("type")
    return "response_format of type json_schema is not supported" if kind == "json_schema" else None


def no_form(body: dict) -> str | None:
    return "unknown field: response_format" if "response_format" in body else None


def old_length(body: dict) -> str | None:
    known = "max_completion_tokens" not in body
    return None if known else "Unrecognized request argument: max_completion_tokens"


def no_system(body: dict) -> str | None:
    roles = [m["role"] for m in body["messages"]]
    return "System role not supported" if "system" in roles else None


def all_of_them(body: dict) -> str | None:
    return old_length(body) or no_form(body) or no_system(body)


@pytest.mark.parametrize(
    ("wrong", "refusals"),
    [(no_schema, 1), (no_form, 2), (old_length, 1), (no_system, 1), (all_of_them, 4)],
)
def test_a_server_that_refuses_a_parameter_is_asked_otherwise(
    services, httpserver, wrong, refusals
):
    serve(httpserver, wrong)
    s = services()
    assert ask(s).count == 2 and len(sent(httpserver)) == 1 + refusals
    body = sent(httpserver)[-1]
    assert wrong(body) is None
    words = json.dumps(body["messages"])
    # Who is sent no schema is told it in words, and nothing is lost with the role.
    if body.get("response_format", {}).get("type") != "json_schema":
        assert "dough" in words and "schema" in words
    assert "You look." in words and "What is it?" in words
    assert 1000 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    # It is learned once, and what was refused is not charged.
    ask(s, "And now?")
    assert len(sent(httpserver)) == 2 + refusals
    assert s.ledger.spent_usd() == pytest.approx(2 * PAID)


def test_a_server_that_does_not_heed_the_schema_is_told_it_in_words(services, httpserver):
    httpserver.expect_ordered_request(CHAT).respond_with_json(reply("I see a knife."))
    httpserver.expect_request(CHAT).respond_with_json(reply(KNIFE))
    s = services()
    ask(s)
    ask(s, "And now?")
    first, repair, later = sent(httpserver)
    assert "dough" not in json.dumps(first["messages"]) and len(repair["messages"]) == 4
    assert "dough" in later["messages"][0]["content"]
    assert later["response_format"]["type"] == "json_schema"


def test_how_a_server_is_asked_can_be_set(services, httpserver):
    serve(httpserver, all_of_them)
    ask(services(answer_as="text", length_as="max_tokens"), "Once?")
    assert len(sent(httpserver)) == 2  # The role of instructions is found out.
    httpserver.clear()
    serve(httpserver, no_form)
    with pytest.raises(UserError, match="answers 400: unknown field: response_format"):
        ask(services(answer_as="object"))
    assert len(sent(httpserver)) == 1


@pytest.mark.parametrize(
    "said",
    [
        f"<think>It could be {{a spoon}}, or {KNIFE[:-2]}7}}.</think>\n{KNIFE}",
        f"```json\n{KNIFE}\n```",
        f"```\n{KNIFE}\n``` That is what I see.",
        f'The schema was {{"thing": "string"}}. My answer: {KNIFE}',
        [{"type": "text", "text": KNIFE[:9]}, {"type": "text", "text": KNIFE[9:]}],
        f'{KNIFE[:-1]}, "certainty": "high"}}',
    ],
)  # fmt: skip
def test_an_answer_with_words_around_it_is_read(services, httpserver, said):
    httpserver.expect_request(CHAT).respond_with_json(reply(said))
    assert ask(services()) == Seen(thing="knife", count=2)
    assert len(sent(httpserver)) == 1
    assert ask(services()).count == 2 and len(sent(httpserver)) == 1  # And kept.


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, "many"])
def test_a_server_that_does_not_count_is_charged_with_what_it_could_cost(
    services, httpserver, usage
):
    httpserver.expect_request(CHAT).respond_with_json({**reply(KNIFE), "usage": usage})
    s = services()
    assert ask(s).count == 2
    assert s.ledger.spent_usd() > 1000 * 8e-6


FINAL = [
    (401, {"message": "wrong key"}, r"look \(m\): .* answers 401: wrong key"),
    (402, {"message": "Insufficient credits"}, "answers 402: Insufficient credits"),
    (403, {"message": "not in your country"}, "answers 403"),
    (413, {"message": "too large"}, "answers 413"),
    (
        500,
        {"message": "image input is not supported - hint: provide the mmproj"},
        "answers 500: image input is not supported",
    ),
    (429, {"message": "no quota", "code": "insufficient_quota"}, "answers 429: no quota"),
]


@pytest.mark.parametrize(("status", "error", "match"), FINAL)
def test_what_waiting_does_not_mend_is_asked_once(services, httpserver, status, error, match):
    httpserver.expect_request(CHAT).respond_with_json({"error": error}, status=status)
    s = services()
    with pytest.raises(UserError, match=match):
        ask(s)
    assert len(sent(httpserver)) == 1 and s.ledger.spent_usd() == 0


def test_a_wrong_model_name_says_what_there_is(services, httpserver):
    httpserver.expect_request(CHAT).respond_with_json(
        {"error": {"message": "model 'm' not found"}}, status=404
    )
    httpserver.expect_request("/v1/models").respond_with_json(
        {
            "object": "list",
            "data": [{"id": "llava", "object": "model", "created": 1, "owned_by": "x"}],
        }
    )
    with pytest.raises(UserError, match=r"answers 404: model 'm' not found; it serves llava"):
        ask(services())


def test_how_long_to_wait_is_taken_from_the_server(services, httpserver, monkeypatch):
    waits = []
    monkeypatch.setattr("lucibot.services.vlm.with_retries", _recording(waits))
    for headers in ({"retry-after": "7"}, {}):
        httpserver.expect_ordered_request(CHAT).respond_with_json(
            {"error": {"message": "slowly"}}, status=429, headers=headers
        )
    httpserver.expect_ordered_request(CHAT).respond_with_json(reply(KNIFE))
    assert ask(services(first_wait_s=2.0)).count == 2
    assert waits == [7.0, 4.0]  # As asked for; else doubled with each try.


def _recording(waits: list[float]):
    from lucibot.services.retry import with_retries

    return lambda call, **told: with_retries(call, sleep=waits.append, **told)


def test_errors_within_a_good_status_are_errors(services, httpserver):
    busy = {"error": {"code": 502, "message": "the provider is down"}}
    httpserver.expect_ordered_request(CHAT).respond_with_json(busy)
    httpserver.expect_ordered_request(CHAT).respond_with_json(reply(KNIFE))
    s = services()
    assert ask(s).count == 2 and s.ledger.spent_usd() == pytest.approx(PAID)
    httpserver.expect_ordered_request(CHAT).respond_with_json(
        {"error": {"code": 402, "message": "no credit"}}
    )
    with pytest.raises(UserError, match="answers 402: no credit"):
        ask(s, "And now?")


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (reply(None, refusal="no knives"), "the model refuses: no knives"),
        (reply("", finish="content_filter"), "content filter stopped the answer"),
        (reply(None, finish="length"), "used up before it answered.*--services.vlm.longest-answer"),
        (reply("   "), "an answer without content"),
    ],
)
def test_an_answer_that_is_none_is_paid_and_said(services, httpserver, body, match):
    httpserver.expect_request(CHAT).respond_with_json(body)
    s = services()
    with pytest.raises(RunFailed, match=rf"look \(m\): .*{match}"):
        ask(s)
    assert len(sent(httpserver)) == 1 and s.ledger.spent_usd() == pytest.approx(PAID)


def test_an_answer_that_was_cut_is_asked_for_once_more(services, httpserver):
    httpserver.expect_ordered_request(CHAT).respond_with_json(reply(KNIFE[:-4], finish="length"))
    httpserver.expect_ordered_request(CHAT).respond_with_json(reply(KNIFE))
    s = services()
    assert ask(s).count == 2 and "cut off" in json.dumps(sent(httpserver)[1])
    assert s.ledger.spent_usd() == pytest.approx(2 * PAID)
    httpserver.expect_request(CHAT).respond_with_json(reply(KNIFE[:-4], finish="length"))
    with pytest.raises(RunFailed, match=r"twice no valid answer: it was cut off .*longest-answer"):
        ask(s, "And now?")
    assert s.ledger.spent_usd() == pytest.approx(4 * PAID)


class Cutting:
    """A server that sends the beginning of an answer and hangs up, until `good` answers are due."""

    def __init__(self, cut: int):
        self.asked, self._cut = 0, cut
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                received = b""
                while b"\r\n\r\n" not in received:
                    received += connection.recv(65536)
                head, _, body = received.partition(b"\r\n\r\n")
                lines = head.decode().lower().splitlines()
                length = next(int(x.split(":")[1]) for x in lines if x.startswith("content-length"))
                while len(body) < length:
                    body += connection.recv(65536)
                self.asked += 1
                said = json.dumps(reply(KNIFE)).encode()
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                    + f"Content-Length: {len(said)}\r\n\r\n".encode()
                    + (said[: len(said) // 2] if self.asked <= self._cut else said)
                )

    def close(self):
        self._socket.close()


def test_a_stream_that_is_cut_is_asked_for_again(services):
    server = Cutting(cut=1)
    try:
        s = services(base_url=server.url)
        assert ask(s).count == 2 and server.asked == 2
        # What was cut may have been charged.
        assert s.ledger.spent_usd() > PAID + 1000 * 8e-6
    finally:
        server.close()
    server = Cutting(cut=99)
    try:
        with pytest.raises(RunFailed, match=r"cannot be reached .*3 times; `lucibot resume`"):
            ask(services(base_url=server.url), "And now?")
        assert server.asked == 3
    finally:
        server.close()


def test_the_same_question_at_the_same_time_is_asked_once(services, httpserver):
    httpserver.expect_request(CHAT).respond_with_json(reply(KNIFE))
    s = services()
    threads = [threading.Thread(target=ask, args=(s,)) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(sent(httpserver)) == 1


def test_pictures_stay_within_their_budget(services, httpserver):
    picture = np.zeros((600, 800, 3), np.uint8)
    assert sizes([picture], side_px=400, megapixels=9) == [(400, 300)]
    assert sizes([picture[:40, :30]], side_px=400, megapixels=9) == [(30, 40)]
    small = sizes([picture] * 10, side_px=800, megapixels=1.0)
    assert sum(w * h for w, h in small) <= 1e6 and len(set(small)) == 1
    assert sum(w * h for w, h in small) > 0.98e6
    httpserver.expect_request(CHAT).respond_with_json(reply(KNIFE))
    s = services(most_pictures=3, most_megapixels=0.03)
    with pytest.raises(
        UserError, match=r"shows 4 pictures, and --services.vlm.most-pictures allows 3"
    ):
        ask(s, pictures=[picture] * 4)
    ask(s, pictures=[picture] * 3, captions=["First", "Second", "Third"])
    content = sent(httpserver)[0]["messages"][1]["content"]
    assert [p.get("text") for p in content if p["type"] == "text"] == [
        "What is it?", "First", "Second", "Third",
    ]  # fmt: skip
    assert [p["type"] for p in content[1:]] == ["text", "image_url"] * 3
    import base64

    import cv2

    url = content[2]["image_url"]["url"]
    jpeg = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
    assert cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape == (86, 115, 3)


def test_a_model_that_bills_more_for_pictures_is_reckoned_with(services, httpserver):
    httpserver.expect_request(CHAT).respond_with_json(reply(KNIFE))
    told = {"usd_per_million_in": None, "usd_per_million_out": None}
    picture = np.zeros((480, 640, 3), np.uint8)

    def could_cost(model: str, **changes) -> float:
        s = services(folder=model, **told, **changes)
        ask(s, model=model, pictures=[picture])
        return json.loads(s.ledger.path.read_text().splitlines()[0])["usd"]

    # It bills 14,167 tokens for such a picture, the others fewer than 800.
    assert could_cost("gpt-4o-mini") > 14_167 * 0.15e-6 + 1000 * 0.6e-6
    assert could_cost("gpt-4o") < 1200 * 2.5e-6 + 1000 * 10e-6


def test_what_was_answered_can_be_replayed_without_a_server(
    services, httpserver, tmp_path, monkeypatch
):
    httpserver.expect_request(CHAT).respond_with_json(reply(KNIFE))
    picture = np.full((20, 30, 3), 7, np.uint8)
    ask(services(), pictures=[picture])
    monkeypatch.delenv("OPENAI_API_KEY")
    # Of another server, without a key, in another run: the question is what counts.
    told = {"base_url": None, "replay": tmp_path, "longest_answer": 7}
    again = services(max_usd=0.0, folder="other", **told)
    assert ask(again, pictures=[picture]).count == 2
    assert len(sent(httpserver)) == 1 and again.ledger.spent_usd() == 0
    # And the run that replayed it can be replayed.
    (tmp_path / "services").rename(tmp_path / "gone")
    told["replay"] = tmp_path / "other" / "answers"
    assert ask(services(folder="third", **told), pictures=[picture]).count == 2
    with pytest.raises(UserError, match=r"look \(m\): this question is not among the answers"):
        ask(services(folder="third", **told), "Another?", pictures=[picture])
    with pytest.raises(UserError, match=r"--services.vlm.replay .*: no recorded answers there"):
        ask(services(folder="fourth", **{**told, "replay": tmp_path / "gone" / "ledger"}))


def test_objects_in_a_text():
    assert objects('a {"b": {"c": 1}} {x} {"d": 2}') == ['{"b": {"c": 1}}', '{"d": 2}']
    assert objects("") == objects("{{{") == objects('["a"]') == []
    assert read_answer(Seen, KNIFE) == (KNIFE, "")
    found, wrong = read_answer(Seen, '{"thing": "spoon", "count": "many"}')
    assert found == "" and "thing: " in wrong and "count: " in wrong
    # Nothing valid after the thought: what was only thought is no answer.
    assert read_answer(Seen, f"<think>{KNIFE}</think> A knife.") == ("", "it holds no JSON object")
