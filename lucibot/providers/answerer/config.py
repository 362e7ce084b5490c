"""The answerer family's members as configs; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.schema import Count, Fraction
from lucibot.services import ASKS_A_VLM, Services
from lucibot.services.estimate import Outlook, Planned

if TYPE_CHECKING:
    from lucibot.providers.answerer.base import Answerer


@dataclass(frozen=True, kw_only=True)
class PixelAnswerer(Config):
    """First hand contact, goal frame and contacts, measured in the picture."""

    kind: Literal["pixels"] = "pixels"
    width: Annotated[Count, Field(ge=32, le=4096)] = 400
    """Width [px] of the grid that pixels are counted on."""
    steady_s: float = 0.1
    """What lasts less long than this does not count."""
    clear_px: int = 4
    """Hand and tool are out of the way when they are farther than this from every target."""
    hand_share: float = 5e-4
    """Share of the picture under which a hand is gone."""
    to_come: Annotated[Fraction, Field(lt=1)] = 0.25
    """Share of the frames in which targets move that may still come when the goal is said to be reached."""

    def create(self, services: Services | None = None) -> Answerer:
        from lucibot.providers.answerer.pixels import AnswerByPixels

        return AnswerByPixels(self)


@dataclass(frozen=True, kw_only=True)
class VlmAnswerer(Config):
    """Asks a vision-language model for first contact, goal frame and contacts; `--services.vlm` says
    where it is. The measured answers are read beside it, and the report shows both."""

    NEEDS = ASKS_A_VLM

    kind: Literal["vlm"] = "vlm"
    model: str
    """The model's name at its server."""
    frames: Annotated[Count, Field(ge=4, le=200)] = 16
    """Frames that are shown at once to find a moment: of the whole video, then around what was found."""
    a_sheet: Annotated[Count, Field(le=64)] = 4
    """Of them, so many go into one picture; more where --services.vlm.most-pictures asks for it."""
    tile_px: Annotated[Count, Field(ge=64, le=4096)] = 480
    """Width of each of them."""
    a_call: Annotated[Count, Field(le=100)] = 4
    """Keyframes whose contacts are asked for in one call."""
    contact_calls: Annotated[Count, Field(le=100)] = 4
    """Calls for contacts, at most: with more keyframes each asks for more, as far as
    --services.vlm.most-pictures allows; beyond that there are more calls."""
    fall_back: bool = False
    """Where the model gives no answer (it refuses, finds no such moment, or twice gives no valid answer),
    the measured one counts, which says so; if not, the run ends there."""
    beside: PixelAnswerer = PixelAnswerer()
    """The embedded answerer."""

    def create(self, services: Services) -> Answerer:
        from lucibot.providers.answerer.vlm import AnswerByVlm

        return AnswerByVlm(self, services)

    def calls_for(self, keyframes: int, most_pictures: int) -> int:
        """Calls in which the contacts at so many keyframes are asked for; each shows the scene as well."""
        room = max(most_pictures - 1, 1)
        wanted = -(-keyframes // min(self.a_call, room))
        return max(-(-keyframes // room), min(self.contact_calls, wanted))

    def planned(self, outlook: Outlook) -> list[Planned]:
        sheets = -(-self.frames // self.a_sheet)
        most = outlook.services.vlm.most_pictures
        return [
            outlook.vlm(
                "perceive", "first contact and goal", self.model, calls=3, pictures=sheets,
                letters=4000,
            ),
            outlook.vlm(
                "perceive", "contacts", self.model, pictures=most, letters=6000,
                calls=max(self.contact_calls, self.calls_for(outlook.keyframes, most)),
            ),
        ]  # fmt: skip


AnswererConfig = PixelAnswerer | VlmAnswerer
