"""The tracker family."""

from lucibot.providers.tracker.embedded import EmbeddedTracker

TrackerConfig = EmbeddedTracker

__all__ = ["EmbeddedTracker", "TrackerConfig"]
