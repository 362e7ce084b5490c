"""Key points that were read before, kept with the run that did it: each picture's by its contents."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from lucibot.core.arrays import read_npz
from lucibot.core.errors import UserError
from lucibot.providers.hand.base import KEYPOINTS, Hand
from lucibot.providers.hand.command import hands_of
from lucibot.providers.hand.config import ReplayHand

FLAG = "--perceive.hand.file"


def write_hands(path: Path, frames: np.ndarray, hands: list[list[Hand]]) -> None:
    """Keep the hands of pictures (T, H, W, 3) uint8."""
    most = max((len(h) for h in hands), default=0)
    shape = (len(hands), most)
    told = {
        "picture": np.array([_digest(f) for f in frames], dtype="U64"),
        "keypoints_px": np.full((*shape, KEYPOINTS, 2), np.nan, np.float32),
        "keypoints_m": np.full((*shape, KEYPOINTS, 3), np.nan, np.float32),
        "box_px": np.full((*shape, 4), np.nan, np.float32),
        "score": np.zeros(shape, np.float32), "side": np.full(shape, "unknown"),
    }  # fmt: skip
    for t, found in enumerate(hands):
        for m, hand in enumerate(found):
            for name in ("keypoints_px", "keypoints_m", "box_px", "score", "side"):
                told[name][t, m] = getattr(hand, name)
    np.savez_compressed(path, **told)


class HandsByReplay:
    def __init__(self, config: ReplayHand):
        """
        Raises:
            UserError: the file is missing, or is none.
        """
        self.config = config

        def none(why: str) -> UserError:
            return UserError(f"{FLAG} {config.file}: no hands that a run has kept ({why})")

        try:
            with read_npz(config.file, none) as told:
                hands = [
                    [replace(h, box_px=box) for h, box in zip(found, boxes, strict=False)]
                    for found, boxes in zip(hands_of(told), told["box_px"], strict=True)
                ]
                self._kept = dict(zip(told["picture"].tolist(), hands, strict=True))
        except FileNotFoundError:
            raise UserError(
                f"{FLAG} {config.file}: no such file; runs leave one in 40_perceive"
            ) from None

    def detect(
        self,
        frames: np.ndarray,
        *,
        hand_layer: np.ndarray | None = None,
        contact_masks: np.ndarray | None = None,
    ) -> list[list[Hand]]:
        """See `HandDetector`; the masks are not needed.

        Raises:
            UserError: a picture is not among those that were kept.
        """
        digests = [_digest(f) for f in frames]
        unknown = [t for t, d in enumerate(digests) if d not in self._kept]
        if unknown:
            raise UserError(
                f"{FLAG} {self.config.file}: {len(unknown)} of the {len(frames)} pictures that are asked for "
                "were not read then: the video, the tracker or the keyframes are others now"
            )
        return [self._kept[d] for d in digests]


def _digest(frame: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(frame)).hexdigest()
