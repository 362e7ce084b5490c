"""What the members that buy videos from a service share: settings, errors, downloads.

Each of them speaks its service's protocol and raises `Answer` for an answer that is an error and
`Silence` where none came; what follows from that for money is decided here, once. A call that buys
is tried again only where the service said that it did not take it, or was never reached.
"""

from __future__ import annotations

import base64
import json
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import cv2
from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.errors import RunFailed, UserError
from lucibot.core.progress import Progress
from lucibot.core.schema import Count, NonNegative, Positive
from lucibot.providers.video.base import NotTaken, Refused, VideoRequest, chosen_settings
from lucibot.providers.video.wire import Answer, Silence, opened, read
from lucibot.services import Services
from lucibot.services.estimate import Outlook, Planned
from lucibot.services.keys import hidden, key, quoted
from lucibot.services.prices import Prices
from lucibot.services.retry import Again, GaveUp, with_retries
from lucibot.store.configs import NO_EFFECT

T = TypeVar("T")

LARGEST_PICTURE = 3_600_000
"""Bytes of a first frame above which it is sent as JPEG: services take some 5 MB, in base64."""


@dataclass(frozen=True, kw_only=True)
class ServiceVideo(Config):
    """Settings of every member that buys its videos."""

    candidates: Annotated[Count, Field(le=64)] = 4
    """Videos to make."""
    seconds: Annotated[Count, Field(le=60)] = 5
    """Length that is asked for [s]; services take a few lengths only."""
    usd: float | None = field(default=None, metadata=NO_EFFECT)
    """Price of one video [USD]; the price table's if not given (--services.prices)."""
    at_once: Annotated[Count, Field(le=64)] = field(default=2, metadata=NO_EFFECT)
    """Jobs under way at the same time."""
    poll_s: Positive = field(default=5.0, metadata=NO_EFFECT)
    """Seconds between two looks at a job."""
    patience_s: NonNegative = field(default=1800.0, metadata=NO_EFFECT)
    """Seconds after which a job that is not over is left alone; a resumed run goes on waiting."""
    timeout_s: Positive = field(default=120.0, metadata=NO_EFFECT)
    """Seconds after which a call counts as not answered."""
    tries: Annotated[Count, Field(le=100)] = field(default=5, metadata=NO_EFFECT)
    """Tries of a call that buys nothing, where the service is busy, broken or out of reach."""
    first_wait_s: float = field(default=2.0, metadata=NO_EFFECT)
    """Seconds before the second try; each further one waits twice as long."""

    @property
    def priced_as(self) -> str:
        """The model's name in the price table."""
        return self.model

    def price(self, prices: Prices) -> float | None:
        """What one video costs [USD]; None where neither the settings nor the table says."""
        if self.usd is not None:
            return self.usd
        return prices.video_usd(self.kind, self.priced_as, self.seconds)

    def planned(self, outlook: Outlook) -> list[Planned]:
        return [
            Planned(
                stage="imagine", what=f"videos of {self.seconds} s",
                by=f"{self.kind} {self.priced_as}", calls=outlook.videos,
                usd_each=self.price(Prices.of(outlook.services)),
            )
        ]  # fmt: skip


class ServiceModel:
    """What is the same for every service. A member adds `kind`, `label`, `submit`, `poll`, `fetch`.

    No key is read before something is asked: a run that has all its videos needs none.
    """

    kind: str
    label: str
    """The service's name, for messages."""
    fitted = False
    given = False

    def __init__(self, config: Any, services: Services):
        self.config, self._prices = config, services.prices
        self.at_once, self.poll_s = config.at_once, config.poll_s
        self.patience_s = config.patience_s
        self._closed = threading.Event()

    def identity(self, request: VideoRequest) -> dict[str, Any]:
        settings = chosen_settings(self.config, but=("candidates", "model"))
        return {"model": self.config.model, **settings, **request.told()}

    def price_usd(self, request: VideoRequest) -> float | None:
        return self.config.price(self._prices)

    def close(self) -> None:
        """Whoever waits to try again stops waiting."""
        self._closed.set()

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise GaveUp(f"{self.label}: stopped while waiting to try again")

    def ensure_keys(self) -> None:
        """
        Raises:
            UserError: a key is not set.
        """
        for variable in self.config.NEEDS.keys:
            self.key(variable)

    def key(self, variable: str) -> str:
        """
        Raises:
            UserError: it is not set.
        """
        return key(variable, wanted_for=f"--video {self.kind}")

    def buy(self, call: Callable[[], T]) -> T:
        """A call that asks for a video.

        Raises:
            UserError, NotTaken, Refused: nothing was bought. RunFailed: whether it was is not known.
        """

        def once() -> T:
            try:
                return call()
            except Answer as e:
                said = self._said(e)
                if e.verdict == "busy":
                    raise Again(said, after_s=e.after_s) from None
                if e.verdict == "refused":
                    raise Refused(quoted(e.words)) from None
                if e.verdict in ("user", "gone"):
                    raise UserError(f"--video {self.kind}: {said}{self._advice(e)}") from None
                raise RunFailed(f"{said}; {UNKNOWN}") from None
            except Silence as e:
                said = hidden(f"{self.label} {e.why}")
                if not e.reached:
                    raise Again(said) from None
                raise RunFailed(f"{said}; {UNKNOWN}") from None

        try:
            return self._tried(once)
        except GaveUp as e:
            raise _not_taken(e) from None

    def prepare(self, call: Callable[[], T]) -> T:
        """A call that buys nothing, and comes before the one that does.

        Raises:
            UserError, NotTaken: the service does not do it; nothing was bought.
        """
        try:
            return self._asked(call)
        except GaveUp as e:
            raise _not_taken(e) from None

    def ask(self, call: Callable[[], T], *, gone: T | None = None) -> T:
        """A call that buys nothing, about a job.

        Args:
            gone: what it comes to where the service knows no such job; without it, an error.

        Raises:
            LuciBotError: the service does not say; the job is kept.
        """
        try:
            return self._asked(call, gone)
        except GaveUp as e:
            raise RunFailed(f"{e}; the job is kept, and `lucibot resume` goes on with it") from None

    def _asked(self, call: Callable[[], T], gone: T | None = None) -> T:
        def once() -> T:
            try:
                return call()
            except Answer as e:
                said = self._said(e)
                if e.verdict == "gone" and gone is not None:
                    return gone
                if e.verdict in ("user", "refused", "gone"):
                    raise UserError(f"--video {self.kind}: {said}{self._advice(e)}") from None
                raise Again(said, after_s=e.after_s) from None
            except Silence as e:
                raise Again(hidden(f"{self.label} {e.why}")) from None

        return self._tried(once)

    def download(self, url: str, path: Path, progress: Progress) -> Path:
        """Fetch what lies at `url`; cut off, it is fetched again.

        Raises:
            LuciBotError: it could not be had.
        """

        def once() -> Path:
            try:
                answer = opened(urllib.request.Request(url), self.config.timeout_s)
            except Answer as e:
                if not e.verdict or e.verdict == "busy":
                    raise
                raise RunFailed(
                    f"the video cannot be fetched: {self._said(e)}; the job is kept, and `lucibot "
                    "resume` asks for a fresh link"
                ) from None
            with answer:
                wanted = int(answer.headers.get("Content-Length") or 0)
                had = 0
                with open(path, "wb") as f:
                    while chunk := read(answer, 1 << 18):
                        f.write(chunk)
                        had += len(chunk)
                        progress(f"fetched {had / 1e6:.1f} MB", had / wanted if wanted else None)
            if had < wanted:
                raise Silence(f"broke off after {had} of {wanted} bytes of a video")
            return path

        return self.ask(once)

    def _tried(self, once: Callable[[], T]) -> T:
        return with_retries(
            once, tries=self.config.tries, first_wait_s=self.config.first_wait_s, sleep=self._sleep
        )

    def _said(self, e: Answer) -> str:
        return f"{self.label} answers {e.status}: {quoted(e.words)}"

    def _advice(self, e: Answer) -> str:
        if e.status in (401, 403):
            return f"; is {' and '.join(self.config.NEEDS.keys)} the right key?"
        return "; is there credit left?" if e.status == 402 else ""


UNKNOWN = "whether the video was bought is not known, and `lucibot resume` asks for it again"


def _not_taken(e: GaveUp) -> NotTaken:
    return NotTaken(f"{e}; the video was not bought, and `lucibot resume` asks again")


def picture(request: VideoRequest) -> tuple[bytes, str]:
    """The first frame as it is sent, and its media type: the PNG file, or a JPEG if that is large.

    Raises:
        NotTaken: the file cannot be read.
    """
    try:
        data = request.first_frame.read_bytes()
    except OSError as e:
        raise NotTaken(f"{request.first_frame}: {e.strerror}; no video was bought") from None
    if len(data) <= LARGEST_PICTURE:
        return data, "image/png"
    for quality in (97, 92, 85):
        _, jpeg = cv2.imencode(
            ".jpg", cv2.imread(str(request.first_frame)), [cv2.IMWRITE_JPEG_QUALITY, quality]
        )
        if len(jpeg) <= LARGEST_PICTURE:
            break
    return jpeg.tobytes(), "image/jpeg"


def data_uri(request: VideoRequest) -> str:
    data, media_type = picture(request)
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def named_values(text: str, flag: str) -> dict[str, Any]:
    """NAME=VALUE with commas between; a value is JSON, or else a text.

    Raises:
        UserError: it is not written so.
    """
    out: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = (p.strip() for p in part.partition("="))
        if not name or not equals:
            raise UserError(f"{flag} {part!r}: expected NAME=VALUE, with commas between several")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
    return out
