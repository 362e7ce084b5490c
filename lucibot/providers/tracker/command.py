"""Masks from any program: how a lab plugs in a segmenter of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from lucibot.core.arrays import read_npz
from lucibot.core.errors import RunFailed
from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video, write_video
from lucibot.providers.programs import ensure_place_holders, run_program
from lucibot.providers.tracker.base import Segments
from lucibot.providers.tracker.config import CommandSegmenter
from lucibot.task import Task

FLAG = "--perceive.tracker.segmenter.command"
CRF = 8
"""Quality of the video that the program is given: no loss that one sees."""


class SegmentByCommand:
    def __init__(self, config: CommandSegmenter):
        """
        Raises:
            UserError: the command lacks a place holder, or is none.
        """
        ensure_place_holders(
            FLAG, config.command, ("video", "first", "masks"),
            "it is given a video {video} and the masks of its first frame {first}, and writes {masks}",
        )  # fmt: skip
        self.config = config

    def segment(
        self, task: Task, view: SceneView, video: Video, *, progress: Progress = silent
    ) -> Segments:
        """See `Segmenter`.

        Raises:
            UserError: the program cannot be started.
            RunFailed: it failed, took too long, or what it wrote is not what is asked for.
        """
        with tempfile.TemporaryDirectory(prefix="lucibot_segment_") as scratch:
            at = {n: Path(scratch) / f for n, f in
                  (("video", "video.mp4"), ("first", "first.npz"), ("masks", "masks.npz"))}  # fmt: skip
            write_video(at["video"], video, crf=CRF)
            np.savez_compressed(
                at["first"],
                **{name: view.labels == i + 1 for i, name in enumerate(view.names)},
            )
            progress("segmenting with a command", 0.0)
            run_program(FLAG, "the segmenter", self.config.command, at, self.config.timeout_s)
            return read_masks(at["masks"], view.names, video)


def read_masks(path: Path, names: tuple[str, ...], video: Video) -> Segments:
    """The masks that a program has written.

    Args:
        path: an npz with an array (T, H, W) for each object, by its name: bool, or in [0, 1] how sure
            it is. An object is lost in frames in which nothing of it is seen.

    Raises:
        RunFailed: it is missing, no npz, lacks an object, or an array has another shape or other values.
    """

    def unreadable(why: str) -> RunFailed:
        return RunFailed(f"the segmenter's file cannot be read as npz ({why})")

    wanted = video.frames.shape[:3]
    try:
        with read_npz(path, unreadable, names) as told:
            missing = [n for n in names if n not in told]
            if missing:
                raise RunFailed(f"the segmenter's file has no masks of {missing[0]!r}")
            found = [np.asarray(told[n], np.float32) for n in names]
    except FileNotFoundError:
        raise RunFailed("the segmenter ended without an error but wrote no masks") from None
    for name, values in zip(names, found, strict=True):
        if values.shape != wanted:
            raise RunFailed(
                f"the segmenter's masks of {name!r} have shape {values.shape}, the video has {wanted}"
            )
        if not ((values >= 0) & (values <= 1)).all():
            raise RunFailed(
                f"the segmenter's masks of {name!r} hold {values.min():g} to {values.max():g}; each pixel says "
                "in [0, 1] how sure it is"
            )
    sure = np.stack(found, 1)
    masks = sure > 0.5
    area = masks.sum((2, 3))
    confidence = np.where(masks, sure, 0).sum((2, 3)) / np.maximum(area, 1)
    return Segments(masks=masks, confidence=confidence.astype(np.float32), lost=area == 0)
