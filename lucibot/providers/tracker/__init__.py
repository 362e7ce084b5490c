"""The tracker family."""

from lucibot.providers.tracker.config import (
    CommandSegmenter,
    ComposedTracker,
    EmbeddedTracker,
    ReplayTracker,
    Sam2Segmenter,
    TrackerConfig,
    settled_tracker,
)

__all__ = [
    "CommandSegmenter",
    "ComposedTracker",
    "EmbeddedTracker",
    "ReplayTracker",
    "Sam2Segmenter",
    "TrackerConfig",
    "settled_tracker",
]
