"""The depth family."""

from lucibot.providers.depth.config import DepthConfig, FillDepth

__all__ = ["DepthConfig", "FillDepth"]
