"""One server that speaks OpenAI's protocol, and in what such servers differ: the one door to openai.

Hosted ones, vLLM, Ollama and llama.cpp take the same request with different words: how an answer's
form is asked for, what its length is called, whether there is a role for instructions. What a server
refuses of these is asked otherwise, from then on always.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from pydantic import BaseModel

from lucibot.core.errors import RunFailed, UserError
from lucibot.services.config import OPENAI, VlmConfig
from lucibot.services.keys import hidden, quoted, server_key
from lucibot.services.ledger import Call
from lucibot.services.retry import Again, retry_after
from lucibot.services.services import NO_CLIENT

BUSY = (408, 409, 425, 429)
"""Status codes, beside 500 and above, after which the same call may succeed."""
REFUSED = (400, 415, 422, 500, 501)
"""Status codes with which servers refuse a parameter that they do not know."""
OUT_OF_MONEY = ("insufficient_quota", "billing_hard_limit_reached")
"""Codes of a 429 after which waiting does not help."""

FORMS = ("schema", "object", "text")
OF_FORM = re.compile(r"response_?format|json[_ ]?schema|json_object|structured|guided|grammar|schema",
                     re.IGNORECASE)  # fmt: skip
NEVER = re.compile(r"not supported|unsupported", re.IGNORECASE)
"""What some say with a 500 to what they will never do, such as to pictures without the model's eyes."""
OF_LENGTH = re.compile(r"max_completion_tokens", re.IGNORECASE)
OF_SYSTEM = re.compile(r"system (role|message|prompt)|only user and assistant", re.IGNORECASE)
OF_LOGPROBS = re.compile(r"log_?probs", re.IGNORECASE)
MOST_TOKENS = 20
"""Of which probabilities are asked; more than hosted servers give are refused."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a server is asked."""

    form: str
    """One of `FORMS`: by a JSON schema, as any JSON object, or in words alone."""
    length: str
    """What the longest answer is called."""
    system: bool = True
    """Whether instructions have a role of their own."""
    told: bool = False
    """Whether the schema is told in words as well."""
    logprobs: bool = True
    """Whether it says how probable tokens are, where that is asked."""


@dataclass(frozen=True, kw_only=True)
class Said:
    text: str
    cut: bool
    """It ended at the longest answer that is allowed."""


class ChatServer:
    """
    Raises:
        UserError: the package openai is missing, or the key.
    """

    def __init__(self, config: VlmConfig):
        try:
            import openai
        except ImportError:
            raise UserError(NO_CLIENT) from None
        self.config, self._openai = config, openai
        self.url = config.base_url or OPENAI
        self._manner = Manner(
            form=config.answer_as or FORMS[0], length=config.length_as or "max_completion_tokens"
        )
        self._client = openai.OpenAI(
            api_key=server_key(config), base_url=self.url, timeout=config.timeout_s, max_retries=0
        )

    def send(
        self, model: str, messages: list[dict], answer: type[BaseModel], schema: str, call: Call,
        price: Callable[[int, int], float | None],
    ) -> Said:  # fmt: skip
        """What the model says.

        Args:
            messages: the first of them instructions, the second a question in parts.
            schema: that of `answer`, as text, for servers that take none.
            call: is told what is charged.
            price: of tokens sent and answered [USD].

        Raises:
            Again: the same may succeed later.
            UserError: the server refuses the key, the model or the question.
            RunFailed: the model does, or it says nothing.
        """
        body = self._body(
            model, lambda manner: self._post(model, messages, answer, schema, manner), call
        )
        return self._read(body, call, price)

    def first_token(
        self, model: str, messages: list[dict], call: Call,
        price: Callable[[int, int], float | None],
    ) -> dict[str, float] | None:  # fmt: skip
        """How probable tokens are as the first of the answer, as far as the server says: its most
        probable ones; None where it says nothing of them.

        Raises:
            as `send`.
        """
        body = self._body(model, lambda manner: self._post_one(model, messages, manner), call)
        self._read(body, call, price)
        try:
            listed = body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            return {
                str(t["token"]): math.exp(min(float(t["logprob"]), 0.0)) for t in listed
            } or None
        except (KeyError, IndexError, TypeError, ValueError):
            return None

    def tell_schema(self) -> None:
        """From now on in words as well: some servers take a schema and do not heed it."""
        self._manner = replace(self._manner, told=True)

    def _body(self, model: str, post: Callable[[Manner], Any], call: Call) -> Any:
        """What the server sends, asked in the manner that it takes."""
        openai = self._openai
        while True:
            manner = self._manner
            try:
                return post(manner)
            except openai.APIStatusError as e:
                # Another thread may have learned it meanwhile.
                other = self._manner if self._manner != manner else self._otherwise(manner, e)
                if other is None:
                    call.void()  # An error is not charged.
                    self._refused(model, e)
                self._manner = other
            except openai.APITimeoutError:
                raise Again(f"{self.url} did not answer in {self.config.timeout_s:g} s") from None
            except openai.APIConnectionError as e:
                raise Again(hidden(f"{self.url} cannot be reached ({_cause(e)})")) from None
            except (ValueError, openai.APIResponseValidationError) as e:
                raise Again(hidden(f"{self.url} sent what is no JSON ({e})")) from None

    def _post_one(self, model, messages, manner: Manner) -> Any:
        """The body of an answer of one token."""
        if not manner.system:
            messages = _without_system(messages)
        told: dict[str, Any] = {"model": model, manner.length: 1}
        if manner.logprobs:
            told |= {"logprobs": True, "top_logprobs": MOST_TOKENS}
        raw = self._client.chat.completions.with_raw_response.create(messages=messages, **told)
        return raw.http_response.json()

    def _post(self, model, messages, answer, schema: str, manner: Manner) -> Any:
        """The body of the answer."""
        completions = self._client.chat.completions.with_raw_response
        told: dict[str, Any] = {"model": model, manner.length: self.config.longest_answer}
        if manner.form != "schema" or manner.told:
            messages = _with_schema(messages, schema)
        if not manner.system:
            messages = _without_system(messages)
        if manner.form == "schema":
            raw = completions.parse(messages=messages, response_format=answer, **told)
        elif manner.form == "object":
            raw = completions.create(
                messages=messages, response_format={"type": "json_object"}, **told
            )
        else:
            raw = completions.create(messages=messages, **told)
        return raw.http_response.json()

    def _otherwise(self, manner: Manner, e: Any) -> Manner | None:
        """How else to ask a server that refused this; None where it speaks of something else."""
        said = _words(e)
        if e.status_code in (*REFUSED, 403) and manner.logprobs and OF_LOGPROBS.search(said):
            return replace(manner, logprobs=False)
        if e.status_code not in REFUSED:
            return None
        settable = manner.length == "max_completion_tokens" and self.config.length_as is None
        if settable and OF_LENGTH.search(said):
            return replace(manner, length="max_tokens")
        settable = manner.form != FORMS[-1] and self.config.answer_as is None
        if settable and OF_FORM.search(said):
            return replace(manner, form=FORMS[FORMS.index(manner.form) + 1])
        if manner.system and OF_SYSTEM.search(said):
            return replace(manner, system=False)
        return None

    def _refused(self, model: str, e: Any) -> NoReturn:
        said = hidden(f"{self.url} answers {e.status_code}: {_words(e)}")
        if e.status_code == 429 and getattr(e, "code", None) in OUT_OF_MONEY:
            raise UserError(said) from None
        never = e.status_code in REFUSED and NEVER.search(said)
        if e.status_code in BUSY or (e.status_code >= 500 and not never):
            raise Again(said, after_s=retry_after(e.response.headers)) from None
        if e.status_code == 404 and (served := self._models()) and model not in served:
            said += f"; it serves {', '.join(served[:8])}"
        raise UserError(said) from None

    def _models(self) -> list[str]:
        try:
            found = self._client.with_options(timeout=5.0).models.list()
            return [str(m.id) for m in found.data]
        except Exception:  # It was asked for a hint alone.
            return []

    def _read(self, body: Any, call: Call, price: Callable) -> Said:
        if not isinstance(body, dict):
            raise Again(f"{self.url} sent what is no answer")
        if isinstance(body.get("error"), dict):  # Some say so with a status of 200.
            call.void()
            code, text = body["error"].get("code"), quoted(str(body["error"].get("message")))
            said = f"{self.url} answers {code}: {text}"
            if isinstance(code, int) and (code in BUSY or code >= 500):
                raise Again(said)
            raise UserError(said)
        usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
        tokens = [usage.get(n) for n in ("prompt_tokens", "completion_tokens")]
        tokens = [n if isinstance(n, int) and n >= 0 else None for n in tokens]
        try:
            choice = body["choices"][0]
            message, why = choice["message"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise Again(f"{self.url} sent an answer without a message") from None
        # Where the server does not count, it is what it could have cost.
        call.paid(call.usd if None in tokens else price(*tokens))
        if why == "content_filter":
            raise RunFailed("the model server's content filter stopped the answer")
        refusal = message.get("refusal") if isinstance(message, dict) else None
        text = _content(message)
        if text is None and refusal:
            raise RunFailed(f"the model refuses: {quoted(str(refusal))}")
        if text is None and why == "length":
            raise RunFailed(
                f"its {self.config.longest_answer} tokens were used up before it answered; thinking "
                "counts: raise --services.vlm.longest-answer"
            )
        if text is None:
            raise RunFailed("an answer without content")
        return Said(text=hidden(text), cut=why == "length")


def _with_schema(messages: list[dict], schema: str) -> list[dict]:
    """With the answer's form told in words."""
    first = messages[0]
    told = f"{first['content']}\n\nAnswer with one JSON object of this schema and nothing else:\n"
    return [{**first, "content": told + schema}, *messages[1:]]


def _without_system(messages: list[dict]) -> list[dict]:
    """With the instructions before the question, in one message."""
    system, user, *rest = messages
    said = [{"type": "text", "text": system["content"]}, *user["content"]]
    return [{**user, "content": said}, *rest]


def _content(message: Any) -> str | None:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):  # In parts, as some servers send it.
        parts = [p.get("text") for p in content if isinstance(p, dict)]
        content = "".join(p for p in parts if isinstance(p, str))
    return content if isinstance(content, str) and content.strip() else None


def _words(e: Any) -> str:
    body = e.body if isinstance(e.body, dict) else {}
    said = body.get("message") or body.get("detail") or e.body or e.message
    return quoted(str(said))


def _cause(e: BaseException) -> str:
    return quoted(f"{e.__cause__ or e}", 200)
