"""The hand family."""

from lucibot.providers.hand.outline import OutlineHand

HandConfig = OutlineHand

__all__ = ["HandConfig", "OutlineHand"]
