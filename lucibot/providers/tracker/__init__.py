"""The tracker family."""

from lucibot.providers.tracker.config import EmbeddedTracker, TrackerConfig

__all__ = ["EmbeddedTracker", "TrackerConfig"]
