"""The answerer family's members as configs; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.schema import Count

if TYPE_CHECKING:
    from lucibot.providers.answerer.base import Answerer


@dataclass(frozen=True, kw_only=True)
class PixelAnswerer(Config):
    """First hand contact, goal frame and contacts, measured in the picture."""

    width: Annotated[Count, Field(ge=32, le=4096)] = 400
    """Width [px] of the grid that pixels are counted on."""
    steady_s: float = 0.1
    """What lasts less long than this does not count."""
    clear_px: int = 4
    """Hand and tool are out of the way when they are farther than this from every target."""
    hand_share: float = 5e-4
    """Share of the picture under which a hand is gone."""

    def create(self) -> Answerer:
        from lucibot.providers.answerer.pixels import AnswerByPixels

        return AnswerByPixels(self)


AnswererConfig = PixelAnswerer
