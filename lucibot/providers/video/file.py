"""Videos from files: whatever an external video model made (paper, section 3.2)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lucibot.core.config import Config
from lucibot.core.errors import UserError
from lucibot.core.progress import Progress
from lucibot.core.video import sha256_file
from lucibot.providers.video.base import Immediate, Job, VideoRequest
from lucibot.services import Services


@dataclass(frozen=True, kw_only=True)
class FileVideo(Config):
    """Takes video files as the candidates."""

    kind: Literal["file"] = "file"
    paths: tuple[Path, ...]
    """Anything that PyAV decodes; each must start with the task's scene."""

    @property
    def candidates(self) -> int:
        return len(self.paths)

    def create(self, services: Services | None = None) -> FileVideoModel:
        return FileVideoModel(self)


class FileVideoModel(Immediate):
    """A candidate is the content of its file: one that changed under the same name is another."""

    kind = "file"
    fitted = False
    given = True

    def __init__(self, config: FileVideo):
        self.config = config

    def identity(self, request: VideoRequest) -> dict[str, Any]:
        """
        Raises:
            UserError: there is no such file.
        """
        path = self._path(request)
        if path.is_dir():
            raise UserError(f"{path} is a folder; give a video file")
        if not path.is_file():
            raise UserError(f"no such video: {path}")
        return {"sha256": sha256_file(path)}

    def fetch(self, job: Job, folder: Path, progress: Progress) -> Path:
        path = self._path(job.request)
        progress(f"reading {path.name}", 0.0)
        return Path(shutil.copyfile(path, folder / path.name))

    def _path(self, request: VideoRequest) -> Path:
        return Path(self.config.paths[request.index])
