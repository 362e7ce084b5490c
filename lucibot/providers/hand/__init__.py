"""The hand family."""

from lucibot.providers.hand.silhouette import SilhouetteHand

HandConfig = SilhouetteHand

__all__ = ["HandConfig", "SilhouetteHand"]
