"""The depth family."""

from lucibot.providers.depth.config import (
    DepthConfig,
    DepthLabDepth,
    FillDepth,
    MarigoldDepth,
    MonocularDepth,
    ReplayDepth,
)

__all__ = [
    "DepthConfig",
    "DepthLabDepth",
    "FillDepth",
    "MarigoldDepth",
    "MonocularDepth",
    "ReplayDepth",
]
