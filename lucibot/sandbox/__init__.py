"""Code of a stranger, run where it can do no harm."""

from lucibot.sandbox.sandbox import CodeFailed, Limits, ensure_walls, scored, walls

__all__ = ["CodeFailed", "Limits", "ensure_walls", "scored", "walls"]
