"""Settings of `lucibot evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.schema import Count, Index
from lucibot.services import ServicesConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Config):
    model: str | None = None
    """The model's name at its server, for judges that ask one."""
    against: Literal["task", "seed"] = "task"
    """Runs that "vlm-rank" ranks against each other: all of a task, or those of one seed of it."""
    rounds: Annotated[Count, Field(le=1000)] = 5
    """Rounds of "vlm-rank", each over another order of the pictures."""
    votes: Annotated[Count, Field(le=1000)] = 5
    """Votes of "vqa" for each picture, where the server does not say how probable tokens are."""
    probabilities: bool = True
    """Ask the server for them; no: always votes, for models that think before they answer."""
    seed: Index = 0
    """Of the orders in which pictures are shown."""
    services: ServicesConfig = ServicesConfig()
