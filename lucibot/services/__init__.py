"""What is asked of others over the network, and what it costs.

The only door to openai and to money: a client of vision-language models, answers that are kept,
retries, and a ledger with a cap. Below `providers`, whose members are handed a `Services`.
"""

from __future__ import annotations

from lucibot.services.config import ServicesConfig, VlmConfig
from lucibot.services.services import Services

__all__ = ["Services", "ServicesConfig", "VlmConfig"]
