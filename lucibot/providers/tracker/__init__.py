"""The tracker family."""

from lucibot.providers.tracker.config import (
    CommandSegmenter,
    ComposedTracker,
    EmbeddedTracker,
    TrackerConfig,
)

__all__ = ["CommandSegmenter", "ComposedTracker", "EmbeddedTracker", "TrackerConfig"]
