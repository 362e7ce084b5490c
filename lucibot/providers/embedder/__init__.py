"""The embedder family."""

from lucibot.providers.embedder.config import ClipEmbedder, ColourEmbedder, EmbedderConfig

__all__ = ["ClipEmbedder", "ColourEmbedder", "EmbedderConfig"]
