"""The depth family."""

from lucibot.providers.depth.fill import FillDepth

DepthConfig = FillDepth

__all__ = ["DepthConfig", "FillDepth"]
