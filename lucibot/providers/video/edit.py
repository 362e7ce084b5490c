"""A goal picture by an image-editing model, in place of a video (paper, appendix B).

The clip is the first frame, a short dissolve, and the edited picture. It shows no motion and no hand:
it is for the objective `goal-image`, which reads the goal frame alone.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.errors import RunFailed
from lucibot.core.needs import Needs
from lucibot.core.progress import Progress
from lucibot.core.schema import Count, Positive
from lucibot.core.video import Video, write_video
from lucibot.providers.programs import ensure_place_holders, run_program
from lucibot.providers.video.base import Immediate, Job, VideoRequest, chosen_settings
from lucibot.services import ASKS_A_VLM, Services
from lucibot.services.estimate import Outlook, Planned
from lucibot.services.retry import GaveUp
from lucibot.store.configs import NO_EFFECT

FLAG = "--video.editor.command"
STILL_S, DISSOLVE_S = 1.0, 0.5
"""How long each of the two pictures is seen, and how long one turns into the other [s]."""


@dataclass(frozen=True, kw_only=True)
class HostedEditor(Config):
    """A model behind OpenAI's images API, or a server that speaks it (`--services.vlm.base-url`)."""

    NEEDS = ASKS_A_VLM

    kind: Literal["openai"] = "openai"
    model: str = "gpt-image-1"
    usd: float | None = field(default=None, metadata=NO_EFFECT)
    """Price of one picture [USD]; needed where there is a cap."""


@dataclass(frozen=True, kw_only=True)
class CommandEditor(Config):
    """Any program."""

    NEEDS = Needs(settings=("command",))

    kind: Literal["command"] = "command"
    command: str = ""
    """What is run for each picture, with the place holders {image} (a PNG, the first frame), {prompt},
    {seed} and {goal} (the PNG to write)."""
    timeout_s: Positive = field(default=3600.0, metadata=NO_EFFECT)
    """Seconds that it may take."""


@dataclass(frozen=True, kw_only=True)
class EditVideo(Config):
    """A goal picture by an image-editing model, as a clip that jumps to it."""

    kind: Literal["edit"] = "edit"
    editor: HostedEditor | CommandEditor = HostedEditor()
    """What edits the first frame."""
    candidates: Annotated[Count, Field(le=64)] = 4
    """Pictures to make."""

    def create(self, services: Services | None = None) -> EditModel:
        return EditModel(self, services)

    def planned(self, outlook: Outlook) -> list[Planned]:
        """See `lucibot.services.estimate`."""
        if not isinstance(self.editor, HostedEditor):
            return []
        return [
            Planned(
                stage="imagine", what="goal pictures", by=f"openai {self.editor.model}",
                calls=outlook.videos, usd_each=self.editor.usd,
            )
        ]  # fmt: skip


class EditModel(Immediate):
    kind = "edit"
    fitted = False
    given = False

    def __init__(self, config: EditVideo, services: Services | None):
        """
        Raises:
            UserError: the command lacks a place holder.
        """
        self.config, self._services = config, services
        self.again = "bought" if isinstance(config.editor, HostedEditor) else "made"
        self._closed = threading.Event()
        if isinstance(config.editor, CommandEditor):
            ensure_place_holders(
                FLAG, config.editor.command, ("image", "prompt", "goal"),
                "it is given a first frame {image} and a {prompt}, and writes a picture {goal}",
                more=("seed",),
            )  # fmt: skip

    def identity(self, request: VideoRequest) -> dict[str, Any]:
        return {**chosen_settings(self.config, but=("candidates",)), **request.told()}

    def fetch(self, job: Job, folder: Path, progress: Progress) -> Path:
        """See `VideoModel`; the edited picture is kept beside the clip."""
        request, first = job.request, job.request.view.first_frame
        progress("editing the first frame", 0.0)
        goal = self._edited(request, folder)
        cv2.imwrite(str(folder / "goal.png"), goal[..., ::-1])
        path = folder / "video.mp4"
        write_video(path, clip(first, goal, fps=request.task.spec.camera.fps))
        return path

    def close(self) -> None:
        """Whoever waits to try again stops waiting."""
        self._closed.set()

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise GaveUp("the image editor: stopped while waiting to try again")

    def _edited(self, request: VideoRequest, folder: Path) -> np.ndarray:
        editor, first = self.config.editor, request.view.first_frame
        if isinstance(editor, HostedEditor):
            from lucibot.services.images import ImageEditor

            server = ImageEditor(
                self._services.config.vlm, self._services.ledger, sleep=self._sleep
            )
            return server.edited(first, words_of(request), model=editor.model, usd=editor.usd)
        path = folder / "edited.png"
        at = {"image": request.first_frame.resolve(), "prompt": words_of(request),
              "seed": request.own_seed, "goal": path.resolve()}  # fmt: skip
        run_program(FLAG, "the image editor", editor.command, at, editor.timeout_s)
        found = cv2.imread(str(path))
        if found is None:
            raise RunFailed("the image editor ended without an error but wrote no picture")
        path.unlink()
        size = (first.shape[1], first.shape[0])
        return cv2.resize(found, size, interpolation=cv2.INTER_AREA)[..., ::-1].copy()


def words_of(request: VideoRequest) -> str:
    """What the editor is told: the end of what a video model would be told."""
    return (
        "Edit this picture of a scene so that it shows the same scene, from the same camera and in the "
        "same light, at the end of what is described here, when hands are gone. What the description does "
        f"not say is changed stays exactly where it is. {request.prompt.text}"
    )


def clip(first: np.ndarray, goal: np.ndarray, fps: float) -> Video:
    """The first picture (H, W, 3), then the other."""
    still, dissolve = max(2, round(STILL_S * fps)), max(2, round(DISSOLVE_S * fps))
    shares = np.concatenate(
        [np.zeros(still), np.linspace(0, 1, dissolve + 2)[1:-1], np.ones(still)]
    )
    frames = [cv2.addWeighted(first, 1 - s, goal, s, 0) for s in shares]
    return Video(frames=np.stack(frames), fps=fps)
