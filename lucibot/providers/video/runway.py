"""Videos by Runway's service, through its SDK: its own models, and Kling, Veo, Seedance, Wan and
others that it offers."""

from __future__ import annotations

import math
import re
import typing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2

from lucibot.core.errors import UserError, unknown_name
from lucibot.core.needs import Needs, ensure_packages
from lucibot.core.progress import Progress
from lucibot.providers.video.base import Job, JobState, JobStatus, VideoRequest
from lucibot.providers.video.service import ServiceModel, ServiceVideo, data_uri, named_values
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

KEY = "RUNWAYML_API_SECRET"
USD_PER_CREDIT = 0.01
STATES = {
    "PENDING": JobState.QUEUED, "THROTTLED": JobState.QUEUED, "RUNNING": JobState.RUNNING,
    "SUCCEEDED": JobState.DONE, "FAILED": JobState.FAILED, "CANCELLED": JobState.FAILED,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunwayVideo(ServiceVideo):
    """Asks Runway for videos; the key is in RUNWAYML_API_SECRET."""

    NEEDS = Needs(packages=("runwayml",), extra="runway", keys=(KEY,))

    kind: Literal["runway"] = "runway"
    model: str = "gen4.5"
    """The model's name at its service; each has a default of its own (fal: Kling 2.5 turbo pro, kling:
    kling-v2-1)."""
    ratio: str = "auto"
    """Width and height as Runway writes them, such as 960:960; "auto": what the model offers that is
    most like the task's camera."""
    extra: str = ""
    """More arguments of the SDK's image_to_video.create, NAME=VALUE with commas between."""
    base_url: str | None = field(default=None, metadata=NO_EFFECT)
    """Where the service is, if not where the SDK says (RUNWAYML_BASE_URL)."""

    def check(self) -> None:
        named_values(self.extra, "--video.extra")

    def create(self, services: Services) -> RunwayModel:
        ensure_packages(RunwayVideo, "--video runway")
        return RunwayModel(self, services)


class RunwayModel(ServiceModel):
    kind, label = "runway", "Runway"

    def __init__(self, config: RunwayVideo, services: Services):
        super().__init__(config, services)
        self._takes, self._needed = _takes(config)

    @cached_property
    def _client(self) -> Any:
        import runwayml

        # Its own tries are off: they would repeat a call that buys.
        return runwayml.RunwayML(
            api_key=self.key(KEY), base_url=self.config.base_url, timeout=self.config.timeout_s,
            max_retries=0,
        )  # fmt: skip

    def submit(self, request: VideoRequest) -> str:
        asked = self._arguments(request)
        return self.buy(
            lambda: entry(self._sent(self._client.image_to_video, "create", **asked), "id")
        )

    def poll(self, job: Job) -> JobStatus:
        return self.ask(
            lambda: _status(self._task(job)),
            gone=JobStatus(state=JobState.FAILED, message="Runway knows this job no more"),
        )

    def fetch(self, job: Job, folder: Path, progress: Progress) -> Path:
        url = self.ask(lambda: entry(self._task(job), "output", 0))
        return self.download(url, folder / "video.mp4", progress)

    def _task(self, job: Job) -> dict[str, Any]:
        return self._sent(self._client.tasks, "retrieve", id=job.id)

    def _arguments(self, request: VideoRequest) -> dict[str, Any]:
        """What the model takes of what there is to tell."""
        c = self.config
        wanted = {
            "model": c.model, "prompt_image": data_uri(request), "prompt_text": request.prompt.text,
            "negative_prompt": request.prompt.negative, "seed": request.own_seed,
            "duration": c.seconds, "ratio": self._ratio(request), "audio": False,
        }  # fmt: skip
        known = {n: v for n, v in wanted.items() if n in self._takes and v not in (None, "")}
        return known | named_values(c.extra, "--video.extra")

    def _ratio(self, request: VideoRequest) -> str | None:
        if self.config.ratio != "auto":
            return self.config.ratio
        height, width = cv2.imread(str(request.first_frame)).shape[:2]
        found = nearest_ratio(self._takes.get("ratio", ()), width, height)
        # What need not be told follows the picture, which beats a size of other proportions.
        return found if "ratio" in self._needed or _like(found, width, height) else None

    def _sent(self, resource: Any, method: str, **asked: Any) -> dict[str, Any]:
        import httpx
        import runwayml

        try:
            raw = getattr(resource.with_raw_response, method)(**asked)
        except runwayml.APIStatusError as e:
            words = told(e.body if e.body is not None else e.message)
            raise Answer(e.status_code, words, after_s=retry_after(e.response.headers)) from None
        except runwayml.APITimeoutError:
            raise Silence(f"did not answer in {self.config.timeout_s:g} s") from None
        except runwayml.APIConnectionError as e:
            never = isinstance(e.__cause__, httpx.ConnectError)
            raise Silence(f"cannot be reached ({e.__cause__ or e})", reached=not never) from None
        except httpx.HTTPError as e:
            raise Silence(f"broke off its answer ({type(e).__name__})") from None
        return json_object(raw.http_response.content)


def _status(task: dict[str, Any]) -> JobStatus:
    status = entry(task, "status")
    if status not in STATES:
        raise Silence(f"gives a job the status {status!r}")
    state, message = STATES[status], ""
    if state is JobState.FAILED:
        message = str(task.get("failure") or status.lower())
        code = str(task.get("failureCode") or "")
        if "SAFETY" in code or refusal(message):
            state = JobState.REFUSED
        message += f" ({code})" if code else ""
    credits = (task.get("cost") or {}).get("credits") if state not in ACTIVE else None
    progress = task.get("progress")
    return JobStatus(
        state=state, message=message,
        progress=float(progress) if isinstance(progress, int | float) else None,
        usd=credits * USD_PER_CREDIT if isinstance(credits, int | float) else None,
    )  # fmt: skip


ACTIVE = (JobState.QUEUED, JobState.RUNNING)


def _takes(config: RunwayVideo) -> tuple[dict[str, tuple[Any, ...]], set[str]]:
    """Argument -> its choices (none: whatever it is) of a model, and those that it must be given, by
    the SDK's types: what it does not take is said before anything is sent.

    Raises:
        UserError: the SDK knows no such model, or the model not that length or ratio.
    """
    from runwayml.types import image_to_video_create_params as params

    models = {}
    for kind in typing.get_args(params.ImageToVideoCreateParams):
        hints = typing.get_type_hints(kind, include_extras=True)
        needed = {n for n, h in hints.items() if str(typing.get_origin(h)).endswith("Required")}
        fields = {n: _choices(h) for n, h in typing.get_type_hints(kind).items()}
        models |= {name: (fields, needed) for name in fields["model"]}
    if config.model not in models:
        raise UserError(
            f"{unknown_name('--video.model', config.model, models)}; newer ones come with "
            "`pip install -U runwayml`"
        )
    takes, needed = models[config.model]
    for name, flag, value in (
        ("duration", "--video.seconds", config.seconds), ("ratio", "--video.ratio", config.ratio),
    ):  # fmt: skip
        choices = takes.get(name, ())
        if choices and value not in choices and value != "auto":
            raise UserError(
                f"{flag} {value}: {config.model} takes {', '.join(str(c) for c in choices)}"
            )
    return takes, needed


def _choices(hint: Any) -> tuple[Any, ...]:
    """The values of a type that is nothing but literals."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Union and all(_choices(p) for p in parts):
        return tuple(c for p in parts for c in _choices(p))
    return ()


def nearest_ratio(choices: typing.Sequence[str], width: int, height: int) -> str | None:
    """Of sizes or proportions "W:H" the one most like a picture's: by its proportions, then the
    smallest that is no smaller. None where there is none to choose from, or the model looks itself."""
    sizes = [(c, *size) for c in choices if (size := _size(c))]

    def unlike(size: tuple[str, int, int]) -> tuple[float, bool, float]:
        _, w, h = size
        off = abs(math.log(w * height / (h * width)))
        return round(off, 2), w * h < width * height, abs(math.log(w * h / (width * height)))

    return min(sizes, key=unlike)[0] if sizes else next(iter(choices), None)


def _size(ratio: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d+):(\d+)", ratio)
    return (int(found[1]), int(found[2])) if found else None


def _like(ratio: str | None, width: int, height: int) -> bool:
    """Whether a size has a picture's proportions, within a tenth, or leaves them to it."""
    size = None if ratio is None else _size(ratio)
    return size is None or abs(math.log(size[0] * height / (size[1] * width))) < 0.1
