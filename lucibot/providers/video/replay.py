"""The candidates of an earlier run once more: what was bought there costs nothing here."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lucibot.core.config import Config
from lucibot.core.errors import UserError
from lucibot.core.needs import Needs
from lucibot.core.progress import Progress
from lucibot.core.video import sha256_file
from lucibot.providers.video.base import Immediate, Job, JobState, JobStatus, VideoRequest
from lucibot.services import Services

RECORD = "job.json"
FETCHED = "fetched"
OVER = (FETCHED, JobState.FAILED, JobState.REFUSED)


@dataclass(frozen=True, kw_only=True)
class ReplayVideo(Config):
    """Takes the candidates of an earlier run, the failed and refused ones too, whatever model made
    them."""

    NEEDS = Needs(settings=("folder",))

    kind: Literal["replay"] = "replay"
    folder: Path
    """The earlier run's 20_imagine/candidates."""

    @property
    def candidates(self) -> int:
        return len(self.recorded)

    @cached_property
    def recorded(self) -> list[tuple[Path, dict[str, Any]]]:
        """Folder and record of every candidate that had come to an end, by their numbers.

        Raises:
            UserError: there is none.
        """
        found = []
        for path in sorted(Path(self.folder).glob(f"*/{RECORD}")):
            try:
                record = json.loads(path.read_text())
                if record["state"] in OVER:
                    found.append((record["index"], record["time"], path.parent, record))
            except (ValueError, KeyError, TypeError):
                raise UserError(f"--video.folder: {path} is damaged; remove its folder") from None
        if not found:
            raise UserError(
                f"--video.folder {self.folder}: no candidates of a run; give RUN/20_imagine/candidates"
            )
        return [(folder, record) for *_, folder, record in sorted(found, key=lambda f: f[:2])]

    def create(self, services: Services | None = None) -> ReplayModel:
        return ReplayModel(self)


class ReplayModel(Immediate):
    kind = "replay"
    fitted = False
    given = True

    def __init__(self, config: ReplayVideo):
        self._recorded = config.recorded

    def identity(self, request: VideoRequest) -> dict[str, Any]:
        folder, record = self._recorded[request.index]
        if record["state"] != FETCHED:
            return {"recorded": folder.name, "state": record["state"]}
        return {"sha256": sha256_file(self._file(request))}

    def poll(self, job: Job) -> JobStatus:
        _, record = self._recorded[job.request.index]
        if record["state"] == FETCHED:
            return JobStatus(state=JobState.DONE)
        return JobStatus(state=JobState(record["state"]), message=record.get("message", ""))

    def fetch(self, job: Job, folder: Path, progress: Progress) -> Path:
        path = self._file(job.request)
        progress(f"reading {path.name}", 0.0)
        return Path(shutil.copyfile(path, folder / path.name))

    def _file(self, request: VideoRequest) -> Path:
        folder, record = self._recorded[request.index]
        path = folder / record["file"]
        if not path.is_file():
            raise UserError(f"--video.folder: the recorded video {path} is gone")
        return path
