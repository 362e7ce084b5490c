"""What a run hands to the providers that ask others."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lucibot.services.answers import Answers
from lucibot.services.config import ServicesConfig
from lucibot.services.ledger import Ledger
from lucibot.services.prices import Prices

if TYPE_CHECKING:
    from lucibot.services.vlm import Vlm


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
