"""The one client of vision-language models: OpenAI's, against any server that speaks its protocol.

Answers are pydantic objects. What comes is validated here, whatever the server promised; an answer
that is not valid is sent back once with what is wrong with it.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import cv2
import numpy as np
from pydantic import BaseModel, ValidationError

from lucibot.core.errors import RunFailed, UserError
from lucibot.services.answers import Answers
from lucibot.services.config import VlmConfig
from lucibot.services.keys import hidden, key
from lucibot.services.ledger import Call, Ledger
from lucibot.services.prices import Prices
from lucibot.services.retry import Again, GaveUp, with_retries

A = TypeVar("A", bound=BaseModel)

OPENAI = "https://api.openai.com/v1"
BUSY = (408, 409, 429)
"""Status codes, beside 500 and above, after which the same call may succeed."""


class Vlm:
    """Asks a model about words and pictures.

    Raises:
        UserError: the package openai is missing, or the key.
    """

    def __init__(self, config: VlmConfig, ledger: Ledger, answers: Answers, prices: Prices):
        try:
            import openai
        except ImportError:
            raise UserError(
                "a vision-language model needs the package openai: pip install 'lucibot[vlm]'"
            ) from None
        self.config, self._openai = config, openai
        self._ledger, self._answers, self._prices = ledger, answers, prices
        self._under_way = threading.BoundedSemaphore(config.at_once)
        self._base_url = config.base_url or OPENAI
        self._client = openai.OpenAI(
            api_key=self._key(), base_url=self._base_url, timeout=config.timeout_s, max_retries=0
        )

    def _key(self) -> str:
        if self.config.base_url is not None and not os.environ.get(self.config.key_variable):
            return "none"  # A server of one's own asks for none; the client wants some text.
        return key(self.config.key_variable, wanted_for=f"the model server {self._base_url}")

    def ask(
        self,
        answer: type[A],
        *,
        model: str,
        call_site: str,
        instructions: str,
        question: str,
        pictures: Sequence[np.ndarray] = (),
    ) -> A:
        """One answer; the same question is asked once.

        Args:
            answer: what is wanted; its fields' descriptions are sent along.
            call_site: names the call in ledger and errors.
            instructions: what holds for every call of this site.
            pictures: (H, W, 3) uint8 RGB each.

        Raises:
            UserError: the server refuses the key, the model or the question.
            RunFailed: it does not answer, not with what was asked for, or the cap is reached.
        """
        parts: list[dict] = [{"type": "text", "text": question}]
        parts += [
            {"type": "image_url", "image_url": {"url": self._picture(p)}} for p in pictures
        ]  # fmt: skip
        messages: list[dict] = [
            {"role": "system", "content": instructions},
            {"role": "user", "content": parts},
        ]
        tokens = self._most_tokens_in(messages, pictures)
        sent = self._answers.key(
            {"base_url": self._base_url, "model": model, "messages": messages,
             "answer": answer.model_json_schema(), "longest_answer": self.config.longest_answer}
        )  # fmt: skip
        kept = self._answers.get(sent)
        if kept is not None:
            try:
                return answer.model_validate_json(kept)
            except ValidationError:
                pass  # Of an older version of `answer`'s own checks: asked again.
        what = f"{call_site} ({model})"
        text, wrong = self._call(what, model, messages, answer, tokens)
        if wrong:
            repair = [
                {"role": "assistant", "content": text},
                {"role": "user", "content": f"That is not a valid answer: {wrong}. Answer again, "
                 "with a JSON object of the schema and nothing else."},
            ]  # fmt: skip
            more = tokens + self.config.longest_answer + len(wrong)
            text, wrong = self._call(what, model, messages + repair, answer, more)
        if wrong:
            raise RunFailed(f"{what}: twice no valid answer: {hidden(wrong)}")
        self._answers.put(sent, text, call_site=call_site, model=model)
        return answer.model_validate_json(text)

    def _call(self, what: str, model: str, messages: list[dict], answer, tokens: int):
        """Text of the answer, and what is wrong with it ("" if nothing)."""
        usd = self._prices.vlm_usd(model, tokens, self.config.longest_answer)

        def once() -> tuple[str, str]:
            with self._under_way, self._ledger.call(f"vlm {what}", usd=usd) as call:
                return self._send(what, model, messages, answer, call)

        try:
            return with_retries(
                once, tries=self.config.tries, first_wait_s=self.config.first_wait_s
            )
        except GaveUp as e:
            raise RunFailed(f"{what}: {e}; `lucibot resume` asks again") from None

    def _send(self, what: str, model: str, messages: list[dict], answer, call: Call):
        openai = self._openai
        try:
            raw = self._client.chat.completions.with_raw_response.parse(
                model=model, messages=messages, response_format=answer,
                max_completion_tokens=self.config.longest_answer,
            )  # fmt: skip
            body = raw.http_response.json()
        except openai.APIStatusError as e:
            call.void()  # An error is not charged.
            said = hidden(f"{self._base_url} answers {e.status_code}: {_words(e)}")
            if e.status_code in BUSY or e.status_code >= 500:
                raise Again(said, after_s=_retry_after(e.response.headers)) from None
            raise UserError(f"{what}: {said}") from None
        except openai.APITimeoutError:
            raise Again(f"{self._base_url} did not answer in {self.config.timeout_s:g} s") from None
        except openai.APIConnectionError as e:
            raise Again(hidden(f"{self._base_url} cannot be reached ({e})")) from None
        except ValueError as e:
            raise Again(hidden(f"{self._base_url} sent what is no JSON ({e})")) from None
        usage = body.get("usage") or {}
        if "prompt_tokens" in usage and "completion_tokens" in usage:
            call.paid(
                self._prices.vlm_usd(model, usage["prompt_tokens"], usage["completion_tokens"])
            )
        text = _content(body)
        if text is None:
            refusal = _refusal(body)
            raise RunFailed(hidden(f"{what}: {refusal or 'an answer without content'}"))
        return text, _wrong(raw.parse, text)

    def _most_tokens_in(self, messages: list[dict], pictures: Sequence[np.ndarray]) -> int:
        """More tokens than servers make of it: two characters a token, and 500 pixels."""
        letters = len(messages[0]["content"]) + len(messages[1]["content"][0]["text"])
        sizes = [self._size(p) for p in pictures]
        return letters // 2 + sum(85 + w * h // 500 for w, h in sizes)

    def _size(self, picture: np.ndarray) -> tuple[int, int]:
        h, w = picture.shape[:2]
        scale = min(1.0, self.config.image_px / max(h, w))
        return max(round(w * scale), 1), max(round(h * scale), 1)

    def _picture(self, picture: np.ndarray) -> str:
        size = self._size(picture)
        if size != picture.shape[1::-1]:
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        _, png = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
        return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()


def _content(body: Any) -> str | None:
    try:
        content = body["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return content if isinstance(content, str) and content.strip() else None


def _refusal(body: Any) -> str | None:
    try:
        refusal = body["choices"][0]["message"].get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    return f"the model refuses: {refusal}" if refusal else None


def _wrong(parse: Callable[[], Any], text: str) -> str:
    """What is wrong with an answer, in words that its author understands; "" if nothing is."""
    import openai

    try:
        parsed = parse().choices[0].message.parsed
    except ValidationError as e:
        errors = [f"{'.'.join(map(str, x['loc'])) or 'answer'}: {x['msg']}" for x in e.errors()[:5]]
        return "; ".join(errors)
    except openai.LengthFinishReasonError:
        return "it was cut off at the longest answer that is allowed; be brief"
    except openai.ContentFilterFinishReasonError:
        raise RunFailed("the model server's content filter stopped the answer") from None
    return "" if parsed is not None else "it holds no JSON object"


def _words(e: Any) -> str:
    body = e.body if isinstance(e.body, dict) else {}
    return str(body.get("message") or e.message)[:300]


def _retry_after(headers: Any) -> float | None:
    try:
        return max(float(headers.get("retry-after")), 0.0)
    except (TypeError, ValueError):
        return None
