"""Videos by the models that fal hosts, through its client and its queue."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lucibot.core.errors import UserError
from lucibot.core.needs import Needs, ensure_packages
from lucibot.core.progress import Progress
from lucibot.providers.video.base import Job, JobState, JobStatus, VideoRequest
from lucibot.providers.video.service import (
    ServiceModel,
    ServiceVideo,
    data_uri,
    named_values,
    picture,
)
from lucibot.providers.video.wire import (
    Answer,
    Silence,
    entry,
    json_object,
    refusal,
    retry_after,
    told,
)
from lucibot.services import Services
from lucibot.store.configs import NO_EFFECT

KEY = "FAL_KEY"

FIELDS: dict[str, dict[str, str]] = {
    "": {"image": "image_url", "prompt": "prompt", "negative": "negative_prompt", "seed": "seed",
         "duration": "duration", "duration_as": "{}"},
    "fal-ai/kling-video/": {"seed": ""},
    "fal-ai/kling-video/v3/": {"seed": "", "image": "start_image_url"},
    "fal-ai/kling-video/v3/turbo/": {"seed": "", "image": "image_url"},
    "fal-ai/wan": {"duration": ""},
    "fal-ai/ltx": {"duration": ""},
    "fal-ai/hunyuan": {"duration": ""},
    "fal-ai/cogvideox": {"duration": ""},
    "fal-ai/veo": {"duration_as": "{}s"},
}  # fmt: skip
"""What models call their arguments, by how their names begin; of several that fit, the longer ones
come last. An empty name: the model has no such argument. `duration_as` is how seconds are written;
empty, as a number. A model that is missing here is told by `--video.fields`."""


@dataclass(frozen=True, kw_only=True)
class FalVideo(ServiceVideo):
    """Asks fal for videos; the key is in FAL_KEY."""

    NEEDS = Needs(packages=("fal-client",), extra="fal", keys=(KEY,))

    kind: Literal["fal"] = "fal"
    model: str = "fal-ai/kling-video/v2.5-turbo/pro/image-to-video"
    """The model's name at the service."""
    fields: str = ""
    """What the model calls its arguments, where that is not known here: image=..., prompt=...,
    negative=..., seed=..., duration=... and duration_as=... ("{}s" for 5s; empty for a number), with
    commas between; an empty name leaves one out."""
    extra: str = ""
    """More arguments of the model, NAME=VALUE with commas between, such as resolution=720p."""
    upload: bool = field(default=False, metadata=NO_EFFECT)
    """Upload the first frame to fal's storage; else it is sent within the request."""
    queue_url: str | None = field(default=None, metadata=NO_EFFECT)
    """Where the queue is, if not at fal, such as http://localhost:8000."""

    def check(self) -> None:
        if self.model.count("/") < 1:
            self.refuse("model", "expected owner/name, as fal writes it")
        named_values(self.extra, "--video.extra")
        self.names()

    def names(self) -> dict[str, str]:
        """Argument -> what the model calls it.

        Raises:
            UserError: `fields` is not written as it should be.
        """
        found: dict[str, str] = {}
        for start in sorted(FIELDS, key=len):
            if self.model.startswith(start):
                found |= FIELDS[start]
        for part in filter(None, (p.strip() for p in self.fields.split(","))):
            name, equals, value = (p.strip() for p in part.partition("="))
            if not equals or name not in FIELDS[""]:
                raise UserError(
                    f"--video.fields {part!r}: expected {'=..., '.join(FIELDS[''])}=..."
                )
            found[name] = value
        return found

    def create(self, services: Services) -> FalModel:
        ensure_packages(FalVideo, "--video fal")
        return FalModel(self, services)


class FalModel(ServiceModel):
    kind, label = "fal", "fal"

    @cached_property
    def _client(self) -> Any:
        import fal_client

        c = self.config
        client = fal_client.SyncClient(key=self.key(KEY), default_timeout=c.timeout_s)
        # The client tries what fails again on its own, the call that buys too: here nothing is.
        client.__dict__["_client"] = _once(client, c.queue_url, c.timeout_s)
        return client

    def submit(self, request: VideoRequest) -> str:
        asked = self._arguments(request)
        return self.buy(
            lambda: self._sent(lambda: self._client.submit(self.config.model, asked)).request_id
        )

    def poll(self, job: Job) -> JobStatus:
        return self.ask(
            lambda: self._status(job),
            gone=JobStatus(state=JobState.FAILED, message="fal knows this job no more"),
        )

    def fetch(self, job: Job, folder: Path, progress: Progress) -> Path:
        url = self.ask(lambda: video_url(self._result(job)))
        return self.download(url, folder / "video.mp4", progress)

    def _arguments(self, request: VideoRequest) -> dict[str, Any]:
        names, seconds = self.config.names(), self.config.seconds
        written = names["duration_as"]
        values = {
            "prompt": request.prompt.text, "negative": request.prompt.negative,
            "seed": request.own_seed, "duration": written.format(seconds) if written else seconds,
        }  # fmt: skip
        if names["image"]:
            values["image"] = self._uploaded(request) if self.config.upload else data_uri(request)
        asked = {names[n]: v for n, v in values.items() if names[n] and v != ""}
        return asked | named_values(self.config.extra, "--video.extra")

    def _uploaded(self, request: VideoRequest) -> str:
        data, media_type = picture(request)
        return self.prepare(
            lambda: self._sent(
                lambda: self._client.upload(data, media_type, request.first_frame.name)
            )
        )

    def _status(self, job: Job) -> JobStatus:
        import fal_client

        said = self._sent(lambda: self._client.status(self.config.model, job.id))
        if isinstance(said, fal_client.Queued):
            return JobStatus(state=JobState.QUEUED, message=f"in line, place {said.position}")
        if isinstance(said, fal_client.InProgress):
            return JobStatus(state=JobState.RUNNING)
        if said.error:
            return _failed(f"{said.error} ({said.error_type})" if said.error_type else said.error)
        try:  # Only its result says whether a job that is over came to something.
            video_url(self._result(job))
        except Answer as e:
            if e.status not in (400, 422):
                raise
            return _failed(e.words, refused=e.verdict == "refused")
        return JobStatus(state=JobState.DONE)

    def _result(self, job: Job) -> dict[str, Any]:
        handle = self._client.get_handle(self.config.model, job.id)
        return json_object(
            self._sent(lambda: self._client._client.get(handle.response_url).content)
        )

    def _sent(self, call: Any) -> Any:
        import fal_client
        import httpx

        try:
            return call()
        except (Answer, Silence):
            raise
        except fal_client.FalClientHTTPError as e:
            raise _answer(e.response) from None
        except httpx.HTTPStatusError as e:
            raise _answer(e.response) from None
        except httpx.HTTPError as e:
            raise _silence(e, self.config.timeout_s) from None
        except (KeyError, TypeError, ValueError) as e:
            raise Silence(f"sent what its client cannot read ({type(e).__name__}: {e})") from None


def _failed(words: str, *, refused: bool = False) -> JobStatus:
    refused = refused or refusal(words)
    return JobStatus(state=JobState.REFUSED if refused else JobState.FAILED, message=words)


def video_url(result: dict[str, Any]) -> str:
    """Where a result's video lies: models give `video` or `videos`, as an object or an address.

    Raises:
        Silence: it names none.
    """
    found = result.get("video") or result.get("videos") or result.get("output")
    if isinstance(found, list) and found:
        found = found[0]
    if isinstance(found, str) and found.startswith("http"):
        return found
    return entry(found or result, "url")


def _answer(response: Any) -> Answer:
    return Answer(
        response.status_code, _words(response.text), after_s=retry_after(response.headers)
    )


def _words(body: str) -> str:
    """fal lists what is wrong as objects with a type, a place and a message."""
    try:
        detail = json.loads(body)["detail"]
        parts = [f"{d.get('type', '')} {'.'.join(map(str, d.get('loc', ())))}: {d['msg']}".strip()
                 for d in detail]  # fmt: skip
        return "; ".join(parts) or told(body)
    except (ValueError, KeyError, TypeError, AttributeError):
        return told(body)


def _silence(e: Any, timeout_s: float) -> Silence:
    import httpx

    if isinstance(e, httpx.ConnectError | httpx.ConnectTimeout):
        return Silence(f"cannot be reached ({e})", reached=False)
    if isinstance(e, httpx.TimeoutException):
        return Silence(f"did not answer in {timeout_s:g} s")
    return Silence(f"broke off its answer ({type(e).__name__})")


def _once(client: Any, queue_url: str | None, timeout_s: float) -> Any:
    """The HTTP client of a fal client whose failures are none that fal's code tries again, and whose
    queue may lie elsewhere."""
    import httpx

    class Once(httpx.BaseTransport):
        def __init__(self) -> None:
            self._inner = httpx.Client(follow_redirects=False)

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if queue_url and request.url.host.startswith("queue."):
                own = httpx.URL(queue_url)
                url = request.url.copy_with(scheme=own.scheme, host=own.host, port=own.port)
                headers = {**request.headers, "host": own.netloc.decode()}
                request = httpx.Request(
                    request.method, url, headers=headers, stream=request.stream,
                    extensions=request.extensions,
                )  # fmt: skip
            try:
                answer = self._inner.send(request)
            except httpx.HTTPError as e:
                raise _silence(e, timeout_s) from None
            if answer.status_code >= 400:
                raise _answer(answer)
            return answer

    headers = {"Authorization": client._auth.header_value}
    return httpx.Client(transport=Once(), headers=headers, timeout=timeout_s, follow_redirects=True)
