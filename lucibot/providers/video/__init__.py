"""The video family. `VideoConfig` is the closed union of its members: adding one is a line here."""

from __future__ import annotations

from lucibot.providers.video.file import FileVideo

VideoConfig = FileVideo
