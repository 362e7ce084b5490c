"""The prompt family. `PromptConfig` is the closed union of its members: adding one is a line here."""

from __future__ import annotations

from lucibot.providers.prompt.template import TemplatePrompt
from lucibot.providers.prompt.vlm import VlmPrompt

PromptConfig = TemplatePrompt | VlmPrompt

__all__ = ["PromptConfig", "TemplatePrompt", "VlmPrompt"]
