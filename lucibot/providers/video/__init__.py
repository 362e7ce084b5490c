"""The video family. `VideoConfig` is the closed union of its members: adding one is a line here."""

from __future__ import annotations

from lucibot.providers.video.file import FileVideo
from lucibot.providers.video.storyboard import StoryboardVideo

VideoConfig = StoryboardVideo | FileVideo

__all__ = ["FileVideo", "StoryboardVideo", "VideoConfig"]
