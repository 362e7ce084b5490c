"""The verifier family's members as configs; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.schema import Count, Positive
from lucibot.providers.hand.config import HandConfig
from lucibot.services import ASKS_A_VLM, Services
from lucibot.services.estimate import Outlook, Planned

if TYPE_CHECKING:
    from lucibot.providers.verifier.pixels import Judge
    from lucibot.providers.verifier.vlm import VlmJudge


@dataclass(frozen=True, kw_only=True)
class PixelVerifier(Config):
    """Judges by first-frame match, background drift, unexplained regions, motion and goal."""

    kind: Literal["pixels"] = "pixels"
    width: Annotated[Count, Field(ge=32, le=4096)] = 320
    """Pixels across at which the video is classified."""
    samples_per_s: Positive = 8.0
    """Frames a second that are looked at."""
    hand: HandConfig | None = None
    """What sees hands in whole pictures, beside what comes in over the border; if not given, MediaPipe's
    model where it is installed, else nothing."""
    same_scene: float = 0.75
    """First-frame similarity from which on nothing is deducted."""
    drift_free: Positive = 0.004
    """Mean displacement of the picture's corners over its width that feature tracking may give for
    a camera that stands still: a pixel and a bit at the working size."""
    drift_bad: float = 0.006
    """From here on the camera has moved for certain, by more than was taken out."""
    new_object_area: Positive = 0.0012
    """Least share of the picture that an unexplained thing covers. What stands clear of hands and objects may
    be smaller in proportion as it differs by more than `new_object_contrast`."""
    new_object_least_area: float = 0.0004
    """Least share of the picture that it then covers, however much it differs."""
    new_object_s: float = 0.6
    """How long it must stay at one place."""
    new_object_contrast: Positive = 18.0
    """Least mean colour difference (CIE76) to what was there; reflections and stains stay below."""
    self_motion: Positive = 0.20
    """Share of an object's region that may be exchanged between two moments with no hand near."""
    self_shift: Positive = 0.007
    """How far what is seen on an object may shift meanwhile [picture widths]."""
    held_s: float = 0.5
    """How long before the end the goal must hold."""

    def check(self) -> None:
        if self.drift_bad <= self.drift_free:
            self.refuse("drift_bad", f"must be above drift_free, {self.drift_free:g}")

    def create(self, services: Services | None = None) -> Judge:
        from lucibot.providers.verifier.pixels import Judge

        return Judge(self)


@dataclass(frozen=True, kw_only=True)
class VlmVerifier(Config):
    """Asks a vision-language model for the paper's points; `--services.vlm` says where it is. The
    embedded judge measures the same video beside it, and the report shows both."""

    NEEDS = ASKS_A_VLM

    kind: Literal["vlm"] = "vlm"
    model: str
    """The model's name at its server."""
    frames: Annotated[Count, Field(le=500)] = 12
    """Frames of the video that are shown, evenly spaced, beside the scene; no more than
    --services.vlm.most-pictures allows."""
    both: bool = False
    """A video has to please the embedded judge as well: of each criterion the lower points count."""
    fall_back: bool = False
    """Where the model gives no verdict (it refuses, or twice no valid answer), the embedded one counts,
    which says so; if not, the run ends there."""
    beside: PixelVerifier = PixelVerifier()
    """The embedded judge."""

    def create(self, services: Services) -> VlmJudge:
        from lucibot.providers.verifier.vlm import VlmJudge

        return VlmJudge(self, services)

    def planned(self, outlook: Outlook) -> list[Planned]:
        return [
            outlook.vlm(
                "select", "verdicts", self.model, calls=outlook.videos, pictures=self.frames + 1,
                letters=6000,
            )
        ]  # fmt: skip
