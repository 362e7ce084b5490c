"""The answerer family."""

from lucibot.providers.answerer.config import AnswererConfig, PixelAnswerer

__all__ = ["AnswererConfig", "PixelAnswerer"]
