"""A photo of the real scene as its first frame (paper, section 4.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

from lucibot.core.config import Config
from lucibot.core.errors import UserError
from lucibot.core.progress import Progress, silent
from lucibot.task import Task

ASPECT_TOLERANCE = 0.01
"""Relative difference of the aspect ratios up to which a photo is resized to the camera's picture."""


@dataclass(frozen=True, kw_only=True)
class PhotoRenderer(Config):
    """The task's own photo, and its photo of the empty scene if it has one."""

    kind: Literal["photo"] = "photo"

    def create(self) -> Photo:
        return Photo()


@dataclass
class Photo:
    notes: list[str] = field(default_factory=list)

    def render(
        self, task: Task, *, foreground: bool, progress: Progress = silent
    ) -> np.ndarray | None:
        """See `Renderer`.

        Raises:
            UserError: the task has no photo, or it is no picture or of another shape than the
                camera's.
        """
        camera = task.spec.camera
        name = camera.photo if foreground else camera.photo_background
        if name is None:
            if foreground:
                raise UserError(
                    f"task {task.name!r} has no photo: name one in its [camera], or take another "
                    "--scene.renderer"
                )
            self.notes.append("there is no photo of the scene without its objects")
            return None
        progress(f"reading {name}")
        picture = cv2.imread(str(task.path(name)), cv2.IMREAD_COLOR)
        if picture is None:
            raise UserError(f"task {task.name!r}: {name} is no picture that can be read")
        height, width = picture.shape[:2]
        if abs(width / height / (camera.width / camera.height) - 1) > ASPECT_TOLERANCE:
            raise UserError(
                f"task {task.name!r}: {name} has {width}x{height} pixels, another shape than the "
                f"camera's {camera.width}x{camera.height}; give [camera] the photo's"
            )
        how = cv2.INTER_AREA if width > camera.width else cv2.INTER_CUBIC
        small = cv2.resize(picture, (camera.width, camera.height), interpolation=how)
        return small[..., ::-1].copy()
