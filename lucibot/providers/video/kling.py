"""Videos by Kling's own service, by its HTTP interface and its signed token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from lucibot.core.needs import Needs
from lucibot.core.progress import Progress
from lucibot.providers.video.base import Job, JobState, JobStatus, VideoRequest
from lucibot.providers.video.service import ServiceModel, ServiceVideo, named_values, picture
from lucibot.providers.video.wire import (
    Answer,
    Silence,
    entry,
    json_object,
    opened,
    read,
    refusal,
)
from lucibot.services import Services
from lucibot.services.keys import keep_out
from lucibot.store.configs import NO_EFFECT

ACCESS, SECRET = "KLING_ACCESS_KEY", "KLING_SECRET_KEY"
LIVES_S = 1800
"""Seconds that a token is good for."""
STATES = {
    "submitted": JobState.QUEUED, "processing": JobState.RUNNING, "succeed": JobState.DONE,
    "failed": JobState.FAILED,
}  # fmt: skip
VERDICTS = {
    1100: "user", 1101: "user", 1102: "user", 1103: "user", 1304: "user",  # account, address
    1300: "refused", 1301: "refused",  # its rules for content
    1302: "busy", 1303: "busy",  # too fast, too many at once
    1201: "user", 1202: "gone", 1203: "gone",
}  # fmt: skip
"""Kling's own codes say more than the status of its answer: an empty account is a 429, too."""
GAVE = ("data", "task_result", "videos", 0, "url")


@dataclass(frozen=True, kw_only=True)
class KlingVideo(ServiceVideo):
    """Asks Kling for videos; the keys are in KLING_ACCESS_KEY and KLING_SECRET_KEY. It takes no seed:
    the same asked again is another video."""

    NEEDS = Needs(keys=(ACCESS, SECRET))

    kind: Literal["kling"] = "kling"
    model: str = "kling-v2-1"
    """The model's name at the service."""
    mode: Literal["std", "pro"] = "std"
    """Quality, and price."""
    extra: str = ""
    """More fields of the request, NAME=VALUE with commas between, such as cfg_scale=0.5."""
    base_url: str = field(default="https://api-singapore.klingai.com", metadata=NO_EFFECT)
    """Where the service is; accounts belong to a region."""
    path: str = field(default="/v1/videos/image2video", metadata=NO_EFFECT)
    """Where it takes jobs."""
    auth: Literal["jwt", "bearer"] = field(default="jwt", metadata=NO_EFFECT)
    """"jwt": a token signed with the secret key, as Kling wants; "bearer": the access key as it is, as
    some servers in front of it want."""

    @property
    def priced_as(self) -> str:
        return f"{self.model} {self.mode}"

    def check(self) -> None:
        named_values(self.extra, "--video.extra")

    def create(self, services: Services) -> KlingModel:
        return KlingModel(self, services)


class KlingModel(ServiceModel):
    kind, label = "kling", "Kling"

    def __init__(self, config: KlingVideo, services: Services):
        super().__init__(config, services)
        self._lock, self._signed, self._renew = threading.Lock(), "", 0.0

    def ensure_keys(self) -> None:
        self._token()

    def submit(self, request: VideoRequest) -> str:
        c = self.config
        asked = {
            "model_name": c.model, "mode": c.mode, "duration": str(c.seconds),
            "image": base64.b64encode(picture(request)[0]).decode(),
            "prompt": request.prompt.text, "negative_prompt": request.prompt.negative,
            "external_task_id": request.reference, **named_values(c.extra, "--video.extra"),
        }  # fmt: skip
        asked = {n: v for n, v in asked.items() if v != ""}
        return self.buy(lambda: entry(self._sent("", asked), "data", "task_id"))

    def find(self, request: VideoRequest) -> str | None:
        """See `FindsJobs`: Kling finds a job by the name that it was given, too."""

        def look() -> str:
            try:
                return entry(self._sent(request.reference), "data", "task_id")
            except Answer as e:
                if e.code in (1201, 1202, 1203):  # It is no name of a job.
                    raise Answer(e.status, e.words, verdict="gone") from None
                raise

        return self.ask(look, gone="") or None

    def poll(self, job: Job) -> JobStatus:
        return self.ask(
            lambda: _status(self._sent(job.id)),
            gone=JobStatus(state=JobState.FAILED, message="Kling knows this job no more"),
        )

    def fetch(self, job: Job, folder: Path, progress: Progress) -> Path:
        url = self.ask(lambda: entry(self._sent(job.id), *GAVE))
        return self.download(url, folder / "video.mp4", progress)

    def _sent(self, job: str, asked: dict[str, Any] | None = None) -> dict[str, Any]:
        c = self.config
        url = f"{c.base_url.rstrip('/')}{c.path}" + (f"/{quote(job)}" if job else "")
        headers = {"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"}
        body = None if asked is None else json.dumps(asked).encode()
        try:
            with opened(urllib.request.Request(url, body, headers), c.timeout_s) as answer:
                said = json_object(read(answer))
        except Answer as e:
            raise _answer(e) from None
        if said.get("code"):
            raise _answer(Answer(200, str(said.get("message") or "no reason"), code=said["code"]))
        return said

    def _token(self) -> str:
        access = self.key(ACCESS)
        if self.config.auth == "bearer":
            return access
        with self._lock:
            if time.time() > self._renew:
                self._signed = signed(access, self.key(SECRET), time.time())
                self._renew = time.time() + LIVES_S / 3
                keep_out(self._signed)
            return self._signed


def signed(access: str, secret: str, now_s: float) -> str:
    """A token (JWT, HS256) that says who asks, good from now for half an hour."""

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    def told(values: dict[str, Any]) -> bytes:
        return part(json.dumps(values, separators=(",", ":")).encode())

    claims = {"iss": access, "exp": int(now_s) + LIVES_S, "nbf": int(now_s) - 5}
    what = told({"alg": "HS256", "typ": "JWT"}) + b"." + told(claims)
    return (what + b"." + part(hmac.digest(secret.encode(), what, hashlib.sha256))).decode()


def _answer(e: Answer) -> Answer:
    """With what Kling's own code says of it."""
    verdict = VERDICTS.get(e.code or 0, "")
    if 1000 <= (e.code or 0) < 1100:
        verdict = "user"
    words = f"{e.words} (code {e.code})" if e.code else e.words
    return Answer(e.status, words, after_s=e.after_s, verdict=verdict or e.verdict, code=e.code)


def _status(said: dict[str, Any]) -> JobStatus:
    status = entry(said, "data", "task_status")
    if status not in STATES:
        raise Silence(f"gives a job the status {status!r}")
    state, message = STATES[status], str(said["data"].get("task_status_msg") or "")
    if state is JobState.DONE:
        entry(said, *GAVE)
    if state is JobState.FAILED and refusal(message):
        state = JobState.REFUSED
    return JobStatus(state=state, message=message)
