"""The hand family's members as configs; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lucibot.core.config import Config

if TYPE_CHECKING:
    from lucibot.providers.hand.base import HandDetector


@dataclass(frozen=True, kw_only=True)
class OutlineHand(Config):
    """Finds finger tips on the outline of the hand layer; needs no weights."""

    reach: float = 0.035
    """How near to a touched object a tip must be, as a share of the picture's width."""
    finger: float = 0.022
    """Width of a finger, as a share of the picture's width."""

    def create(self) -> HandDetector:
        from lucibot.providers.hand.outline import HandByOutline

        return HandByOutline(self)
