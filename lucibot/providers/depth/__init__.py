"""The depth family."""

from lucibot.providers.depth.config import DepthConfig, FillDepth, MonocularDepth

__all__ = ["DepthConfig", "FillDepth", "MonocularDepth"]
