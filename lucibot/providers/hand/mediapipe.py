"""Key points of hands by MediaPipe's hand model (Apache-2.0), whose weights come with the package.

It looks for palms first, in a small picture of the whole, then for 21 key points in each; every frame
by itself, so that any of them can be asked for and none depends on the others. The one probability
that the package tells of a hand, that of its side, stands for the score.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from lucibot.core.errors import UserError
from lucibot.providers.hand.base import KEYPOINTS, Hand
from lucibot.providers.hand.config import MediapipeHand, mediapipe_is_installed

INSTALL = "pip install 'lucibot[hand]'"
SIDES = {"Left": "right", "Right": "left"}
"""The model is made for mirrors: it takes a left hand in a picture that is none for a right one."""
_ONE_AT_A_TIME = threading.Lock()


class HandsByMediapipe:
    def __init__(self, config: MediapipeHand):
        """
        Raises:
            UserError: the package is not installed.
        """
        if not mediapipe_is_installed():
            raise UserError(
                f"mediapipe, which is to find hands, is not installed: {INSTALL}, or find finger "
                "tips without it: --perceive.hand outline"
            )
        self.config = config
        self._outline = config.outline.create()

    def detect(
        self,
        frames: np.ndarray,
        *,
        hand_layer: np.ndarray | None = None,
        contact_masks: np.ndarray | None = None,
    ) -> list[list[Hand]]:
        """See `HandDetector`. The model needs no masks; with both of them, a frame in which it sees
        no hand is read from the hand layer's outline."""
        if len(frames) == 0:
            return []
        with _native_silenced():
            from mediapipe.python.solutions.hands import Hands

            c = self.config
            with Hands(
                static_image_mode=True, max_num_hands=c.hands, min_detection_confidence=c.least_score
            ) as model:  # fmt: skip
                found = [_hands(model.process(np.ascontiguousarray(f)), f.shape) for f in frames]
        missed = [t for t, hands in enumerate(found) if not hands]
        if hand_layer is not None and contact_masks is not None and missed:
            told = self._outline.detect(
                frames[missed], hand_layer=hand_layer[missed], contact_masks=contact_masks[missed]
            )
            for t, hands in zip(missed, told, strict=True):
                found[t] = hands
        return found


@contextmanager
def _native_silenced() -> Iterator[None]:
    """Without what native code writes to the terminal; what Python writes comes through."""
    with _ONE_AT_A_TIME:
        sys.stderr.flush()
        kept, nothing, ours = os.dup(2), os.open(os.devnull, os.O_WRONLY), sys.stderr
        try:
            if _is_terminal(ours):
                sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1)
            os.dup2(nothing, 2)
            yield
        finally:
            os.dup2(kept, 2)
            if sys.stderr is not ours:
                sys.stderr.close()
                sys.stderr = ours
            os.close(kept)
            os.close(nothing)


def _is_terminal(stream) -> bool:
    try:
        return stream.fileno() == 2
    except (OSError, ValueError, AttributeError):
        return False


def _hands(result, shape: tuple[int, ...]) -> list[Hand]:
    """The hands of one picture of `shape` (H, W, 3), the surest first."""
    if not result.multi_hand_landmarks:
        return []
    H, W = shape[:2]
    out = []
    for marks, world, side in zip(
        result.multi_hand_landmarks, result.multi_hand_world_landmarks, result.multi_handedness,
        strict=True,
    ):  # fmt: skip
        pixels = np.array([(p.x * W, p.y * H) for p in marks.landmark], np.float32)
        metres = np.array([(p.x, p.y, p.z) for p in world.landmark], np.float32)
        assert pixels.shape == (KEYPOINTS, 2), pixels.shape
        which = side.classification[0]
        out.append(
            Hand(
                keypoints_px=pixels, keypoints_m=metres - metres[:1],
                side=SIDES.get(which.label, "unknown"),
                box_px=np.concatenate([pixels.min(0), pixels.max(0)]), score=float(which.score),
            )
        )  # fmt: skip
    return sorted(out, key=lambda h: -h.score)
