"""What is asked of others over the network, and what it costs.

The only door to openai and to money: a client of vision-language models, answers that are kept,
retries, and a ledger with a cap. Below `providers`, whose members are handed a `Services`.
"""

from __future__ import annotations

from lucibot.core.needs import Needs
from lucibot.services.config import ServicesConfig, VlmConfig
from lucibot.services.services import Services, ensure_vlm

ASKS_A_VLM = Needs(
    packages=("openai",), extra="vlm", keys=("OPENAI_API_KEY",),
    note="a server of your own, --services.vlm.base-url, needs no key",
)  # fmt: skip
"""What every member needs that asks a vision-language model."""

__all__ = ["ASKS_A_VLM", "Services", "ServicesConfig", "VlmConfig", "ensure_vlm"]
