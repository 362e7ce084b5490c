"""Tracks that an earlier run has read from the same video."""

from __future__ import annotations

import numpy as np

from lucibot.core.arrays import read_npz
from lucibot.core.errors import UserError
from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.tracker.config import ReplayTracker
from lucibot.task import Task

FLAG = "--perceive.tracker.file"
TOLD = ("confidence", "lost", "poses")
"""What is refined after the tracker; masks and hands stay as they are."""


class TrackByReplay:
    def __init__(self, config: ReplayTracker):
        """
        Raises:
            UserError: the file is missing, or is none.
        """
        self.config = config

        def none(why: str) -> UserError:
            return UserError(f"{FLAG} {config.file}: no tracks that a run has kept ({why})")

        try:
            with read_npz(config.file, none) as data:
                # What the tracker said; what became of it, from runs that kept no more.
                said = {n: data.get(f"told_{n}", data[n]) for n in TOLD}
                self._tracks = unpacked(data | said)
                self._video = str(data["video"]) if "video" in data else None
        except FileNotFoundError:
            raise UserError(
                f"{FLAG} {config.file}: no such file; runs leave one in 40_perceive"
            ) from None

    def track(
        self, task: Task, view: SceneView, video: Video, *, progress: Progress = silent
    ) -> Tracks:
        """What the tracker said then: all that follows from it comes out the same.

        Raises:
            UserError: they are of another video or task.
        """
        T, H, W = video.frames.shape[:3]
        wanted = (T, len(view.names), H, W)
        if self._tracks.masks.shape != wanted:
            raise UserError(
                f"{FLAG} {self.config.file}: it is of another video or task, {self._tracks.masks.shape} in "
                f"place of {wanted} (frames, objects, height, width)"
            )
        if self._video not in (None, video.sha256()):
            raise UserError(f"{FLAG} {self.config.file}: it is of another video of the same size")
        return self._tracks


def as_told(tracks: Tracks) -> dict[str, np.ndarray]:
    """What of a tracker's answer its `tracks.npz` keeps beside what became of it."""
    return {f"told_{n}": getattr(tracks, n) for n in TOLD}


def packed(tracks: Tracks) -> dict[str, np.ndarray]:
    """The arrays of a `tracks.npz` that `unpacked` reads."""
    return {
        "shape": np.array(tracks.masks.shape), "masks": np.packbits(tracks.masks),
        "hand": np.packbits(tracks.hand), "confidence": tracks.confidence, "lost": tracks.lost,
        "poses": tracks.poses,
    }  # fmt: skip


def unpacked(data: dict[str, np.ndarray]) -> Tracks:
    """Tracks of the arrays of a `tracks.npz`."""
    t, n, h, w = data["shape"]
    masks = np.unpackbits(data["masks"], count=t * n * h * w).astype(bool).reshape(t, n, h, w)
    hand = np.unpackbits(data["hand"], count=t * h * w).astype(bool).reshape(t, h, w)
    return Tracks(
        masks=masks, hand=hand, confidence=data["confidence"], lost=data["lost"],
        poses=data["poses"],
    )  # fmt: skip
