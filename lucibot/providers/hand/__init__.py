"""The hand family."""

from lucibot.providers.hand.config import OutlineHand

HandConfig = OutlineHand

__all__ = ["HandConfig", "OutlineHand"]
