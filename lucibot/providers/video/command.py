"""Videos from any program: how a lab plugs in a video model of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.errors import RunFailed
from lucibot.core.needs import Needs
from lucibot.core.progress import Progress
from lucibot.core.schema import Count, Positive
from lucibot.providers.programs import ensure_place_holders, run_program
from lucibot.providers.video.base import Immediate, Job, VideoRequest, chosen_settings
from lucibot.services import Services
from lucibot.store.configs import NO_EFFECT

FLAG = "--video.command"


@dataclass(frozen=True, kw_only=True)
class CommandVideo(Config):
    """Videos by any program."""

    NEEDS = Needs(settings=("command",))

    kind: Literal["command"] = "command"
    command: str = ""
    """What is run for each video, with the place holders {image} (a PNG, the first frame), {prompt},
    {seed} (of this candidate, below 2^31) and {video} (the mp4 to write); if it takes them, {negative}
    (what must not be seen), {width}, {height} and {fps} (of the task's camera)."""
    candidates: Annotated[Count, Field(le=64)] = 4
    """Videos to make."""
    at_once: Annotated[Count, Field(le=64)] = field(default=1, metadata=NO_EFFECT)
    """Programs that run at the same time."""
    timeout_s: Positive = field(default=7200.0, metadata=NO_EFFECT)
    """Seconds that one may take."""

    def create(self, services: Services | None = None) -> CommandModel:
        return CommandModel(self)


class CommandModel(Immediate):
    """A candidate is what the command said, not what the program was then: who changes the program
    changes the command, too, or begins another run."""

    kind = "command"
    fitted = False
    given = False

    def __init__(self, config: CommandVideo):
        """
        Raises:
            UserError: the command lacks a place holder.
        """
        ensure_place_holders(
            FLAG, config.command, ("image", "prompt", "seed", "video"),
            "it is given a first frame {image}, a {prompt} and a {seed}, and writes {video}",
            more=("negative", "width", "height", "fps"),
        )  # fmt: skip
        self.config, self.at_once = config, config.at_once

    def identity(self, request: VideoRequest) -> dict[str, Any]:
        return {**chosen_settings(self.config, but=("candidates",)), **request.told()}

    def fetch(self, job: Job, folder: Path, progress: Progress) -> Path:
        request, path = job.request, folder / "video.mp4"
        height, width = cv2.imread(str(request.first_frame)).shape[:2]
        at = {
            "image": request.first_frame.resolve(), "prompt": request.prompt.text,
            "negative": request.prompt.negative, "seed": request.own_seed, "video": path.resolve(),
            "width": width, "height": height, "fps": f"{request.task.spec.camera.fps:g}",
        }  # fmt: skip
        progress("the video model's program is at work", 0.0)
        run_program(FLAG, "the video model", self.config.command, at, self.config.timeout_s)
        if not path.is_file():
            raise RunFailed("the video model ended without an error but wrote no video")
        return path
