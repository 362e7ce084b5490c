"""The answerer family. `AnswererConfig` is the closed union of its members."""

from lucibot.providers.answerer.config import AnswererConfig, PixelAnswerer, VlmAnswerer

__all__ = ["AnswererConfig", "PixelAnswerer", "VlmAnswerer"]
