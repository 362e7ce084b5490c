"""Whether a task is sound, before any work is done for it: `run` and `tasks check` ask the same."""

from __future__ import annotations

from lucibot.checks.sound import Check, checks, ensure_sound, try_one

__all__ = ["Check", "checks", "ensure_sound", "try_one"]
