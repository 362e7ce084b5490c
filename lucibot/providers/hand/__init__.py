"""The hand family."""

from lucibot.providers.hand.config import (
    CommandHand,
    HandConfig,
    MediapipeHand,
    OutlineHand,
    ReplayHand,
    WilorHand,
    default_hand,
    key_points_by,
)

__all__ = [
    "CommandHand",
    "HandConfig",
    "MediapipeHand",
    "OutlineHand",
    "ReplayHand",
    "WilorHand",
    "default_hand",
    "key_points_by",
]
