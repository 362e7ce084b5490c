"""What a run hands to the providers that ask others."""

from __future__ import annotations

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lucibot.core.errors import UserError
from lucibot.services.answers import Answers, Recording
from lucibot.services.config import ServicesConfig, VlmConfig
from lucibot.services.keys import server_key
from lucibot.services.ledger import Ledger
from lucibot.services.prices import Prices

if TYPE_CHECKING:
    from lucibot.services.vlm import Vlm


NO_CLIENT = "a vision-language model needs the package openai: pip install 'lucibot[vlm]'"


class Services:
    """Services of one run. Nothing is written and nothing imported before something is asked.

    Args:
        folder: where answers and ledger are kept: in the run directory, beside the stages.
    """

    def __init__(self, folder: Path, config: ServicesConfig | None = None):
        self.folder, self.config = folder, config or ServicesConfig()
        self.ledger = Ledger(folder / "ledger.jsonl", self.config.max_usd)
        self.answers = Answers(folder / "answers")

    @cached_property
    def prices(self) -> Prices:
        """
        Raises:
            UserError: the user's price table cannot be read.
        """
        return Prices.of(self.config)

    @cached_property
    def vlm(self) -> Vlm:
        """
        Raises:
            UserError: openai is not installed, or a key is missing.
        """
        from lucibot.services.vlm import Vlm

        return Vlm(self.config.vlm, self.ledger, self.answers, self.prices)


def ensure_vlm(config: VlmConfig) -> None:
    """What a vision-language model is asked with is here; nobody is asked.

    Raises:
        UserError: openai is not installed, a key is missing, or there are no answers to replay.
    """
    if config.replay is not None:
        Recording(config.replay)
        return
    if find_spec("openai") is None:
        raise UserError(NO_CLIENT)
    server_key(config)
