"""The video family: what imagines the task being done (paper, section 3.2).

A candidate video is a job: it is submitted, polled and fetched. `jobs.py` drives the jobs and keeps
on disk what was asked for and what came, so a member says how its service is spoken to and nothing
else. A member that works here and now derives from `Immediate` and does everything in `fetch`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from lucibot.core.errors import LuciBotError, RunFailed
from lucibot.core.progress import Progress
from lucibot.core.prompt import Prompt
from lucibot.core.scene_view import SceneView
from lucibot.core.video import sha256_of
from lucibot.store.configs import settled
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class VideoRequest:
    """One candidate that is asked for."""

    task: Task
    view: SceneView
    scene: str
    """Digest of everything in `view`."""
    first_frame: Path
    """`view.first_frame` as a PNG file."""
    first_frame_sha256: str
    prompt: Prompt
    seed: int
    """Seed of the run's imagination."""
    index: int
    """Which of its candidates; each is another imagination of the same."""
    reference: str = ""
    """A name of this one purchase, for services that find a job by the name that they were given:
    the same when it is looked for again, another when the same is asked for anew."""

    @property
    def own_seed(self) -> int:
        """A seed for models that take one number, below 2^31, of this candidate alone."""
        h = hashlib.sha256(f"{self.seed} {self.index}".encode()).digest()
        return int.from_bytes(h[:4], "big") >> 1

    def told(self) -> dict[str, Any]:
        """What a model sees that is given words, a picture and a seed: for its `identity`."""
        return {
            "prompt": self.prompt.text, "negative": self.prompt.negative,
            "first_frame": self.first_frame_sha256, "seed": self.own_seed,
        }  # fmt: skip


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """Nothing came of it; the same may be asked for again."""
    REFUSED = "refused"
    """The service will not do it (moderation): asking for the same again would be refused again."""


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    state: JobState
    progress: float | None = None
    """In [0, 1] where the service says it."""
    message: str = ""
    """What the service says of it; of a job that failed or was refused, why."""
    usd: float | None = None
    """What a job that is over came to, where the service says it."""

    @property
    def over(self) -> bool:
        return self.state in (JobState.DONE, JobState.FAILED, JobState.REFUSED)


@dataclass(frozen=True, kw_only=True)
class Job:
    id: str
    """What the service calls it."""
    request: VideoRequest


class NotTaken(RunFailed):
    """A service did not take a job, for now: nothing was bought for certain."""


class Refused(LuciBotError):
    """A service will not do what it was asked for (moderation): nothing was bought."""


class VideoModel(Protocol):
    kind: str
    at_once: int
    """Jobs that may be under way at the same time."""
    poll_s: float
    """Seconds between two looks at a job."""
    patience_s: float
    """Seconds after which a job that is not over is left alone; a later run goes on waiting."""
    fitted: bool
    """Its videos are on the task camera's grid, at its rate, and start with the scene, by the way in
    which they are made: they are taken as they come."""
    given: bool
    """Its videos were handed over by the user: one that cannot serve is bad input, and there are no
    more than there are."""

    def identity(self, request: VideoRequest) -> dict[str, Any]:
        """Everything that decides what comes, as json-ready data without a key in it: the settings
        that matter, and what of the request the model sees (`request.told()`). Not how many
        candidates there are: of 8 the first four are the four that were there before."""
        ...

    def price_usd(self, request: VideoRequest) -> float | None:
        """What one job costs: 0 if nothing, None if that is not known."""
        ...

    def submit(self, request: VideoRequest) -> str:
        """Ask for one candidate; returns the job's id at the service.

        Raises:
            UserError: it was not asked for, and nothing was bought (a missing key, a wrong setting).
            NotTaken: the same, and it is nobody's mistake (a busy service, no connection).
            Refused: the service will not do it; the others are gone on with.
            RunFailed: whether it was asked for is not known.
        """
        ...

    def poll(self, job: Job) -> JobStatus:
        """How a job stands; it may have been submitted by an earlier process.

        Raises:
            LuciBotError: the service does not say; the job is kept.
        """
        ...

    def fetch(self, job: Job, folder: Path, progress: Progress) -> Path:
        """Write the video of a job that is done into `folder`, as it comes, and return its path.

        What else is written there is kept beside it: `planted/` for measurement only.

        Raises:
            LuciBotError: it could not be had; the job is kept.
        """
        ...

    def close(self) -> None:
        """Give back what it holds, memory above all: no more is asked for, for now."""
        ...


@runtime_checkable
class FindsJobs(Protocol):
    """A video model whose service finds a job by the reference that it was given: a run that was
    killed while it asked need not ask again."""

    def find(self, request: VideoRequest) -> str | None:
        """The id of the job that was asked for under `request.reference`; None if there is none.

        Raises:
            LuciBotError: the service does not say.
        """
        ...


def chosen_settings(config: Any, *, but: Collection[str] = ()) -> dict[str, Any]:
    """What of a model's settings enters a candidate's identity: what is not the default, so that a
    new setting makes nothing of before another candidate, and files by their content. Who changes a
    default says so in `identity`.

    Args:
        but: settings that decide nothing of one candidate, such as how many there are.
    """
    told = settled(config, sha256_of)
    return {n: v for n, v in told.items() if n not in ("type", "kind", *but)}


class Immediate:
    """A model that works here and now: all its work is in `fetch`, with what that may cost."""

    at_once: int = 1
    again: str = "made"
    """What is said of a damaged video's coming anew."""
    poll_s: ClassVar[float] = 0.0
    patience_s: ClassVar[float] = float("inf")

    def price_usd(self, request: VideoRequest) -> float | None:
        return 0.0

    def submit(self, request: VideoRequest) -> str:
        return "here"

    def poll(self, job: Job) -> JobStatus:
        return JobStatus(state=JobState.DONE)

    def close(self) -> None: ...
