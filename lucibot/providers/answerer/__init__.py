"""The answerer family."""

from lucibot.providers.answerer.pixels import PixelAnswerer

AnswererConfig = PixelAnswerer

__all__ = ["AnswererConfig", "PixelAnswerer"]
