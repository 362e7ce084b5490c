"""Key points by WiLoR, in a user's checkout and its own environment.

A small script of ours (`wilor_driver.py`) runs there; it writes what any other hand program writes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from lucibot.core.video import Video, write_video
from lucibot.providers.hand.base import Hand
from lucibot.providers.hand.command import CRF, RATE, read_hands
from lucibot.providers.hand.config import WilorHand
from lucibot.providers.programs import checkout_folder, python_of, run_words

FLAG = "--perceive.hand"
DRIVER = Path(__file__).with_name("wilor_driver.py")
FILES = (
    "wilor/models", "wilor/datasets/vitdet_dataset.py", "pretrained_models/wilor_final.ckpt",
    "pretrained_models/detector.pt", "pretrained_models/model_config.yaml",
    "mano_data/MANO_RIGHT.pkl",
)  # fmt: skip


class HandsByWilor:
    def __init__(self, config: WilorHand):
        """
        Raises:
            UserError: the checkout is not there or not whole, or it has no Python.
        """
        self.config = config
        self.checkout = checkout_folder(
            config.checkout, f"{FLAG}.checkout", FILES,
            "git clone --recursive https://github.com/rolpotamias/WiLoR, and fetch its weights and MANO as "
            "its README says",
        )  # fmt: skip
        self.python = python_of(self.checkout, config.python, f"{FLAG}.python")

    def detect(
        self,
        frames: np.ndarray,
        *,
        hand_layer: np.ndarray | None = None,
        contact_masks: np.ndarray | None = None,
    ) -> list[list[Hand]]:
        """See `HandDetector`; the masks are not needed.

        Raises:
            UserError: its Python cannot be started.
            RunFailed: it failed, or took too long.
        """
        if len(frames) == 0:
            return []
        c = self.config
        with tempfile.TemporaryDirectory(prefix="lucibot_wilor_") as scratch:
            video, out = Path(scratch) / "video.mp4", Path(scratch) / "keypoints.npz"
            write_video(video, Video(frames=frames, fps=RATE), crf=CRF)
            words = [
                self.python,
                str(DRIVER),
                str(video),
                str(out),
                str(c.hands),
                str(c.least_score),
            ]
            run_words(f"{FLAG}.python", "WiLoR", words, c.timeout_s, self.checkout)
            return read_hands(out, len(frames))
