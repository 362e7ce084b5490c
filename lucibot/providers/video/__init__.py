"""The video family. `VideoConfig` is the closed union of its members: adding one is a line here."""

from __future__ import annotations

from lucibot.providers.video.command import CommandVideo
from lucibot.providers.video.diffusers import DiffusersVideo
from lucibot.providers.video.edit import EditVideo
from lucibot.providers.video.fal import FalVideo
from lucibot.providers.video.file import FileVideo
from lucibot.providers.video.kling import KlingVideo
from lucibot.providers.video.replay import ReplayVideo
from lucibot.providers.video.runway import RunwayVideo
from lucibot.providers.video.storyboard import StoryboardVideo

VideoConfig = (
    StoryboardVideo
    | FileVideo
    | RunwayVideo
    | FalVideo
    | KlingVideo
    | DiffusersVideo
    | CommandVideo
    | EditVideo
    | ReplayVideo
)

__all__ = [
    "CommandVideo",
    "DiffusersVideo",
    "EditVideo",
    "FalVideo",
    "FileVideo",
    "KlingVideo",
    "ReplayVideo",
    "RunwayVideo",
    "StoryboardVideo",
    "VideoConfig",
]
