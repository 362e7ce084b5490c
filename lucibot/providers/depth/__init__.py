"""The depth family."""

from lucibot.providers.depth.config import (
    DepthConfig,
    FillDepth,
    MarigoldDepth,
    MonocularDepth,
)

__all__ = ["DepthConfig", "FillDepth", "MarigoldDepth", "MonocularDepth"]
