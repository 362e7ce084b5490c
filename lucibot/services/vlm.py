"""The one client of vision-language models, against any server that speaks OpenAI's protocol.

Answers are pydantic objects. What comes is validated here, whatever the server promised; an answer
that is not valid is sent back once with what is wrong with it. What was answered is kept, and can be
replayed without a server.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from lucibot.core.errors import LuciBotError, RunFailed, UserError
from lucibot.services.answers import Answers, Recording
from lucibot.services.chat import ChatServer
from lucibot.services.config import OPENAI, VlmConfig
from lucibot.services.keys import hidden
from lucibot.services.ledger import Call, Ledger
from lucibot.services.pictures import data_url, sizes, tokens_of
from lucibot.services.prices import Prices
from lucibot.services.reading import NO_OBJECT, read_answer, without_thought
from lucibot.services.retry import GaveUp, with_retries

A = TypeVar("A", bound=BaseModel)
T = TypeVar("T")


class Vlm:
    """Asks a model about words and pictures. Threads may share one.

    Raises:
        UserError: the package openai is missing, or the key; or there are no answers to replay.
    """

    def __init__(self, config: VlmConfig, ledger: Ledger, answers: Answers, prices: Prices):
        self.config = config
        self._ledger, self._answers, self._prices = ledger, answers, prices
        self._recording = None if config.replay is None else Recording(config.replay)
        self._server = ChatServer(config) if self._recording is None else None
        self._under_way = threading.BoundedSemaphore(config.at_once)
        self._lock = threading.Lock()
        self._asking: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def ask(
        self,
        answer: type[A],
        *,
        model: str,
        call_site: str,
        instructions: str,
        question: str,
        pictures: Sequence[np.ndarray] = (),
        captions: Sequence[str] = (),
        again: int = 0,
    ) -> A:
        """One answer; the same question is asked once.

        Args:
            answer: what is wanted; its fields' descriptions are sent along.
            call_site: names the call in ledger and errors.
            instructions: what holds for every call of this site.
            pictures: (H, W, 3) uint8 RGB each, at most `config.most_pictures`.
            captions: one for each picture, if any; each stands before its picture.
            again: another number asks the same question anew, for models that do not always answer
                alike.

        Raises:
            UserError: the server refuses the key, the model or the question, or the question is not
                among those that are replayed.
            RunFailed: it does not answer, not with what was asked for, or the cap is reached.
        """
        what, c = f"{call_site} ({model})", self.config
        shown = self._shown(what, pictures)
        messages = _messages(instructions, question, pictures, captions, shown)
        schema = json.dumps(answer.model_json_schema())
        asked = {"model": model, "messages": messages, "answer": answer.model_json_schema()}
        asked |= {"again": again} if again else {}
        sent = self._answers.key({**asked, **self._told()})
        with self._lock:
            turn = self._asking[sent]
        with turn:
            kept = self._answers.get(sent)
            if kept is not None:
                try:
                    return answer.model_validate_json(kept)
                except ValidationError:
                    pass  # Of an older version of `answer`'s own checks: asked again.
            question_key = self._answers.key(asked)
            if self._recording is not None:
                text = self._recording.answer(question_key, what)
            else:
                pixels = sum(w * h for w, h in shown)
                tokens = tokens_of(len(shown), pixels, self._prices.px_per_token(model))
                text = self._valid(what, model, messages, answer, schema, tokens)
            try:
                said = answer.model_validate_json(text)
            except ValidationError:
                raise UserError(
                    f"{what}: the answer in {c.replay} is one of another version of LuciBot; ask a server "
                    "(--services.vlm.replay none)"
                ) from None
            self._answers.put(
                sent, text, call_site=call_site, model=model, question=question_key
            )  # fmt: skip
        return said

    def first_token(
        self, *, model: str, call_site: str, instructions: str, question: str,
        pictures: Sequence[np.ndarray] = (), captions: Sequence[str] = (),
    ) -> dict[str, float] | None:  # fmt: skip
        """How probable each token is as the first of an answer, of the most probable ones; None where
        the server does not say so. The same question is asked once.

        Args and Raises: as `ask`.
        """
        what, c = f"{call_site} ({model})", self.config
        shown = self._shown(what, pictures)
        messages = _messages(instructions, question, pictures, captions, shown)
        asked = {"model": model, "messages": messages, "first_token": True}
        sent, question_key = self._answers.key({**asked, **self._told()}), self._answers.key(asked)
        with self._lock:
            turn = self._asking[sent]
        with turn:
            kept = self._answers.get(sent)
            if kept is None and self._recording is not None:
                kept = self._recording.answer(question_key, what)
            if kept is None:
                pixels = sum(w * h for w, h in shown)
                tokens = tokens_of(len(shown), pixels, self._prices.px_per_token(model))
                tokens += _letters(messages) // 2
                found = self._paid(
                    what, self._prices.vlm_usd(model, tokens, 1),
                    lambda call: self._server.first_token(
                        model, messages, call, lambda i, o: self._prices.vlm_usd(model, i, o)
                    ),
                )  # fmt: skip
                kept = json.dumps(found)
            try:
                read = json.loads(kept)
                read = read and {str(t): float(p) for t, p in read.items()}
            except (ValueError, AttributeError, TypeError):
                raise UserError(
                    f"{what}: the answer in {c.replay} is no list of tokens; ask a server "
                    "(--services.vlm.replay none)"
                ) from None
            self._answers.put(sent, kept, call_site=call_site, model=model, question=question_key)
        return read

    def _shown(self, what: str, pictures: Sequence[np.ndarray]) -> list[tuple[int, int]]:
        """(width, height) with which each picture is sent."""
        c = self.config
        if len(pictures) > c.most_pictures:
            raise UserError(
                f"{what}: it shows {len(pictures)} pictures, and --services.vlm.most-pictures allows "
                f"{c.most_pictures}; show fewer frames, or allow more"
            )
        return sizes(pictures, side_px=c.image_px, megapixels=c.most_megapixels)

    def _told(self) -> dict[str, Any]:
        """Of what is sent, what is set rather than asked."""
        c = self.config
        settled = {"base_url": c.base_url or OPENAI, "longest_answer": c.longest_answer}
        chosen = {"answer_as": c.answer_as, "length_as": c.length_as}
        return settled | {k: v for k, v in chosen.items() if v is not None}

    def _valid(self, what, model, messages, answer, schema: str, picture_tokens: int) -> str:
        """A valid answer's text, with one try at repair."""
        text, wrong = self._call(what, model, messages, answer, schema, picture_tokens)
        if not wrong:
            return text
        if wrong == NO_OBJECT or "Field required" in wrong:
            self._server.tell_schema()
        repair = [
            {"role": "assistant", "content": without_thought(text) or "-"},
            {"role": "user", "content": f"That is not a valid answer: {wrong}. Answer again, with one "
             f"JSON object of this schema and nothing else:\n{schema}"},
        ]  # fmt: skip
        text, wrong = self._call(what, model, messages + repair, answer, schema, picture_tokens)
        if wrong:
            raise RunFailed(f"{what}: twice no valid answer: {hidden(wrong)}")
        return text

    def _call(
        self, what: str, model: str, messages, answer, schema: str, picture_tokens: int
    ) -> tuple[str, str]:
        """The answer's object and "", or all of its text and what is wrong with it."""
        c = self.config
        tokens = picture_tokens + (_letters(messages) + len(schema)) // 2
        usd = self._prices.vlm_usd(model, tokens, c.longest_answer)

        def price(tokens_in: int, tokens_out: int) -> float | None:
            return self._prices.vlm_usd(model, tokens_in, tokens_out)

        def ask(call: Call) -> tuple[str, str]:
            said = self._server.send(model, messages, answer, schema, call, price)
            found, wrong = read_answer(answer, said.text)
            if wrong and said.cut:
                wrong = (
                    f"it was cut off at the longest answer that is allowed ({c.longest_answer} "
                    "tokens, --services.vlm.longest-answer); be brief"
                )
            return found or said.text, wrong

        return self._paid(what, usd, ask)

    def _paid(self, what: str, usd: float | None, ask: Callable[[Call], T]) -> T:
        """`ask()` in its turn, entered in the ledger, and again where the server is busy."""
        c = self.config

        def once() -> T:
            with self._under_way, self._ledger.call(f"vlm {what}", usd=usd) as call:
                try:
                    return ask(call)
                except LuciBotError as e:
                    raise type(e)(f"{what}: {hidden(str(e))}") from None

        try:
            return with_retries(once, tries=c.tries, first_wait_s=c.first_wait_s)
        except GaveUp as e:
            raise RunFailed(
                f"{what}: {e}; `lucibot resume`, or the same command, asks again"
            ) from None


def _messages(instructions, question, pictures, captions, shown) -> list[dict]:
    parts: list[dict] = [{"type": "text", "text": question}]
    for i, (picture, size) in enumerate(zip(pictures, shown, strict=True)):
        if captions:
            parts.append({"type": "text", "text": captions[i]})
        parts.append({"type": "image_url", "image_url": {"url": data_url(picture, size)}})
    return [{"role": "system", "content": instructions}, {"role": "user", "content": parts}]


def _letters(messages: list[dict]) -> int:
    """Of all texts: two make a token at least, on average."""
    count = 0
    for message in messages:
        content = message["content"]
        parts = [{"text": content}] if isinstance(content, str) else content
        count += sum(len(p.get("text", "")) for p in parts)
    return count
