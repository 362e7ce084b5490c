"""The hand family."""

from lucibot.providers.hand.skin import SkinHand

HandConfig = SkinHand

__all__ = ["HandConfig", "SkinHand"]
