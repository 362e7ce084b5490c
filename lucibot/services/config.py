"""Settings of services. None of them changes what a finished stage is worth, so no fingerprint holds
them; what does (a model's name) is a setting of the provider that asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.schema import Count, Positive
from lucibot.store.configs import NO_EFFECT

OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True, kw_only=True)
class VlmConfig(Config):
    """The server of vision-language models: OpenAI's, or any that speaks its protocol."""

    base_url: str | None = None
    """Such as http://localhost:8000/v1 for vLLM, Ollama or llama.cpp; OpenAI's own if not given."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key. A server given by `base_url` may need none."""
    usd_per_million_in: float | None = None
    """Price of a million tokens sent [USD]; with that of answers it comes before the price table's.
    Where there is a cap, one of them is needed."""
    usd_per_million_out: float | None = None
    """Price of a million tokens answered [USD]."""
    longest_answer: Count = 8192
    """Tokens that an answer may have, thinking included."""
    image_px: Annotated[Count, Field(ge=32, le=16_384)] = 1024
    """Pictures are sent with at most so many pixels a side."""
    most_pictures: Annotated[Count, Field(le=1000)] = 16
    """Pictures of one call; members that would show more show fewer."""
    most_megapixels: Positive = 8.0
    """Of all pictures of one call together; where there would be more, they are shrunk."""
    px_per_token: Positive = 500.0
    """Pixels that make a token, for what a call could cost; the price table may say that a model's are
    fewer."""
    answer_as: Literal["schema", "object", "text"] | None = None
    """How an answer's form is asked for: by a JSON schema, as any JSON object, or in words alone; if not
    given, by a schema until the server refuses one."""
    length_as: Literal["max_completion_tokens", "max_tokens"] | None = None
    """What the server calls the longest answer; if not given, the first until it refuses that."""
    replay: Path | None = field(default=None, metadata=NO_EFFECT)
    """A run directory whose recorded answers stand for the server: no key, no network, nothing paid."""
    at_once: Annotated[Count, Field(le=256)] = 4
    """Calls under way at the same time."""
    timeout_s: Positive = 300.0
    """Seconds after which a call that is not answered is tried again."""
    tries: Annotated[Count, Field(le=100)] = 5
    """Tries of one call, where the server is busy, broken or out of reach."""
    first_wait_s: float = 1.0
    """Seconds before the second try; each further one waits twice as long."""


@dataclass(frozen=True, kw_only=True)
class ServicesConfig(Config):
    max_usd: float | None = None
    """What this run may spend in all [USD]: a call that could pass it is not made (also --max-usd)."""
    prices: Path | None = None
    """A price table of your own (TOML), laid over the one that is shipped with examples
    (lucibot/services/prices.toml)."""
    vlm: VlmConfig = VlmConfig()
