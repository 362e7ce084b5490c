"""What services say over HTTP: answers that are errors, no answers, and JSON that is none.

A member of a service that videos are bought from lets `Answer` and `Silence` go through to
`lucibot.providers.video.service`, which knows what follows from them.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
from typing import Any

from lucibot.services.keys import quoted
from lucibot.services.retry import retry_after

REFUSALS = ("moderation", "content policy", "content_policy", "risk control", "safety", "sensitive",
            "nsfw", "prohibited", "violat")  # fmt: skip
"""Words in a service's reason that tell a refusal from a failure."""


class Answer(Exception):
    """A service's answer that is an error.

    Args:
        words: what it says of it.
        after_s: what it asks to be waited (Retry-After).
        verdict: what is known beside the status: "busy" (not taken, for now), "refused" (moderation),
            "user" (an account, a key or a request that will not do), "gone" (no such job).
        code: the service's own number of it.
    """

    def __init__(
        self, status: int, words: str, *, after_s: float | None = None, verdict: str = "",
        code: int | None = None,
    ):  # fmt: skip
        super().__init__(f"{status}: {words}")
        self.status, self.words, self.after_s, self.code = status, words, after_s, code
        self.verdict = verdict or _verdict(status, words)


class Silence(Exception):
    """No answer, or one that cannot be read.

    Args:
        reached: whether the service may have got what it was sent.
    """

    def __init__(self, why: str, *, reached: bool = True):
        super().__init__(why)
        self.why, self.reached = why, reached


def _verdict(status: int, words: str) -> str:
    if status == 429:
        return "busy"
    if status in (404, 410):
        return "gone"
    if status in (400, 403, 422, 451) and refusal(words):
        return "refused"
    return "user" if 400 <= status < 500 and status not in (408, 409) else ""


def refusal(words: str) -> bool:
    """Whether a service's reason speaks of its rules for content."""
    return any(w in words.lower() for w in REFUSALS)


def opened(request: urllib.request.Request, timeout_s: float) -> Any:
    """The answer to an HTTP request.

    Raises:
        Answer: it is an error. Silence: there is none.
    """
    try:
        return urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as e:
        with e:
            words = read(e, 4000).decode("utf-8", "replace")
        raise Answer(
            e.code, told(words), after_s=retry_after(e.headers), code=_own_code(words)
        ) from None
    except urllib.error.URLError as e:
        never = isinstance(
            e.reason, ConnectionRefusedError | socket.gaierror | ssl.SSLCertVerificationError
        )
        raise Silence(_why(e.reason, timeout_s), reached=not never) from None
    except (OSError, ValueError) as e:
        raise Silence(_why(e, timeout_s)) from None


def read(answer: Any, size: int | None = None) -> bytes:
    """
    Raises:
        Silence: the connection broke.
    """
    try:
        return answer.read() if size is None else answer.read(size)
    except (OSError, http.client.HTTPException) as e:
        raise Silence(f"broke off its answer ({type(e).__name__})") from None


def _why(reason: Any, timeout_s: float) -> str:
    if isinstance(reason, TimeoutError):
        return f"did not answer in {timeout_s:g} s"
    return f"cannot be reached ({reason})"


def _own_code(words: str) -> int | None:
    try:
        code = json.loads(words).get("code")
    except (ValueError, AttributeError):
        return None
    return code if isinstance(code, int) else None


def told(body: Any) -> str:
    """The words of a service's error, from its body as text or as JSON."""
    if isinstance(body, str):
        try:
            return told(json.loads(body))
        except ValueError:
            return body.strip()
    if isinstance(body, dict):
        for name in ("error", "message", "detail", "msg", "failure"):
            if body.get(name):
                more = f": {json.dumps(body['issues'])}" if body.get("issues") else ""
                return told(body[name]) + more
    return body if isinstance(body, str) else json.dumps(body)


def _text(body: str | bytes) -> str:
    return body if isinstance(body, str) else body.decode("utf-8", "replace")


def json_object(body: Any) -> dict[str, Any]:
    """
    Args:
        body: text, bytes, or what was read from them.

    Raises:
        Silence: it is no JSON object.
    """
    if isinstance(body, str | bytes):
        try:
            body = json.loads(body)
        except ValueError:
            raise Silence(f"sent what is no JSON ({quoted(_text(body), 60)!r})") from None
    if not isinstance(body, dict):
        raise Silence(f"sent JSON that is no object ({quoted(json.dumps(body), 60)})")
    return body


def entry(body: Any, *path: str | int, of: type = str) -> Any:
    """What lies at a path in an answer.

    Raises:
        Silence: nothing does, or another type.
    """
    found = body
    for part in path:
        try:
            found = found[part]
        except (KeyError, IndexError, TypeError):
            found = None
    if not isinstance(found, of) or found == "":
        where = ".".join(map(str, path))
        raise Silence(f"sent an answer without {where} ({quoted(json.dumps(body), 120)})")
    return found
