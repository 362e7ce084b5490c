"""The hand family."""

from lucibot.providers.hand.config import (
    CommandHand,
    HandConfig,
    MediapipeHand,
    OutlineHand,
    default_hand,
)

__all__ = ["CommandHand", "HandConfig", "MediapipeHand", "OutlineHand", "default_hand"]
