"""The answerer family's members as configs; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lucibot.providers.answerer.base import Answerer


@dataclass(frozen=True, kw_only=True)
class PixelAnswerer:
    """First hand contact, holds, goal frame and contacts, measured in the picture."""

    width: int = 400
    """Width [px] of the grid that pixels are counted on."""
    touch_s: float = 0.1
    """A hand touches what it lies on or beside for this long."""
    grip_px: int = 8
    """Pixels of hand on an object's silhouette that make a grip."""
    grip_change: float = 0.25
    """A hand rests on an object when its layer there changes by less than this share in 0.1 s."""
    still_px: float = 1.5
    """What moves less than this in the picture lies still."""
    still_share: float = 0.04
    """A deformable whose mask changes by less than this share of its area lies still."""
    clear_px: int = 4
    """Hand and tool are out of the way when they are farther than this from every target."""
    hand_share: float = 5e-4
    """Share of the picture under which a hand is gone."""

    def create(self) -> Answerer:
        from lucibot.providers.answerer.pixels import AnswerByPixels

        return AnswerByPixels(self)


AnswererConfig = PixelAnswerer
