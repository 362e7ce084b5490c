"""Key points from any program: how a lab plugs in a hand model of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from lucibot.core.arrays import read_npz
from lucibot.core.errors import RunFailed
from lucibot.core.video import Video, write_video
from lucibot.providers.hand.base import KEYPOINTS, Hand
from lucibot.providers.hand.config import CommandHand
from lucibot.providers.programs import ensure_place_holders, run_program

FLAG = "--perceive.hand.command"
CRF = 8
"""Quality of the video that the program is given: no loss that one sees."""
RATE = 24.0
"""Its pictures a second; they need not follow one another in the clip."""
ARRAYS = ("keypoints_px", "keypoints_m", "score", "side")
"""What is read of a hand model's file."""
SIDES = ("left", "right")


class HandsByCommand:
    def __init__(self, config: CommandHand):
        """
        Raises:
            UserError: the command lacks a place holder.
        """
        ensure_place_holders(
            FLAG, config.command, ("video", "keypoints"),
            "it is given a video {video}, and writes {keypoints}",
        )  # fmt: skip
        self.config = config

    def detect(
        self,
        frames: np.ndarray,
        *,
        hand_layer: np.ndarray | None = None,
        contact_masks: np.ndarray | None = None,
    ) -> list[list[Hand]]:
        """See `HandDetector`; the masks are not needed.

        Raises:
            UserError: the program cannot be started.
            RunFailed: it failed, took too long, or what it wrote is not what is asked for.
        """
        if len(frames) == 0:
            return []
        with tempfile.TemporaryDirectory(prefix="lucibot_hand_") as scratch:
            at = {
                "video": Path(scratch) / "video.mp4",
                "keypoints": Path(scratch) / "keypoints.npz",
            }
            write_video(at["video"], Video(frames=frames, fps=RATE), crf=CRF)
            run_program(FLAG, "the hand model", self.config.command, at, self.config.timeout_s)
            return read_hands(at["keypoints"], len(frames))


def read_hands(path: Path, frames: int) -> list[list[Hand]]:
    """The hands that a program has written.

    Args:
        path: an npz with `keypoints_px` (T, M, 21, 2), up to M hands a picture, NaN where there is
            none; and, if the program knows them, `keypoints_m` (T, M, 21, 3) in the camera's axes,
            `score` (T, M) in [0, 1] and `side` (T, M), "left" or "right".

    Raises:
        RunFailed: it is missing, no npz, lacks the key points, or an array has another shape.
    """

    def unreadable(why: str) -> RunFailed:
        return RunFailed(f"the hand model's file cannot be read as npz ({why})")

    try:
        with read_npz(path, unreadable, ARRAYS) as told:
            if "keypoints_px" not in told:
                raise RunFailed("the hand model's file has no array 'keypoints_px'")
    except FileNotFoundError:
        raise RunFailed("the hand model ended without an error but wrote no key points") from None
    most = told["keypoints_px"].shape[1] if told["keypoints_px"].ndim > 1 else 0
    shapes = {
        "keypoints_px": (frames, most, KEYPOINTS, 2), "keypoints_m": (frames, most, KEYPOINTS, 3),
        "score": (frames, most), "side": (frames, most),
    }  # fmt: skip
    for name, wanted in shapes.items():
        if name in told and told[name].shape != wanted:
            raise RunFailed(
                f"the hand model's {name!r} have shape {told[name].shape}, not {wanted}"
            )
    return hands_of(told)


def hands_of(told: dict[str, np.ndarray]) -> list[list[Hand]]:
    """The hands of T pictures in arrays as `read_hands` takes them, the surest first."""
    frames, most = told["keypoints_px"].shape[:2]
    pixels = _numbers(told["keypoints_px"])
    metres = _numbers(told.get("keypoints_m", np.full((frames, most, KEYPOINTS, 3), np.nan)))
    score = np.clip(_numbers(told.get("score", np.ones((frames, most)))), 0, 1)
    side = told.get("side", np.full((frames, most), "unknown")).astype(str)
    return [
        sorted(
            (
                _hand(pixels[t, m], metres[t, m], float(np.nan_to_num(score[t, m])), side[t, m])
                for m in range(most) if np.isfinite(pixels[t, m]).any()
            ),
            key=lambda h: -h.score,
        )
        for t in range(frames)
    ]  # fmt: skip


def _numbers(values: np.ndarray) -> np.ndarray:
    try:
        return values.astype(np.float32)
    except ValueError:
        raise RunFailed(
            f"the hand model wrote {values.dtype} where numbers are asked for"
        ) from None


def _hand(pixels: np.ndarray, metres: np.ndarray, score: float, side: str) -> Hand:
    low, high = np.nanmin(pixels, axis=0), np.nanmax(pixels, axis=0)
    return Hand(
        keypoints_px=pixels, keypoints_m=metres - metres[:1], score=score,
        side=side if side in SIDES else "unknown",
        box_px=np.concatenate([low, high]).astype(np.float32),
    )  # fmt: skip
