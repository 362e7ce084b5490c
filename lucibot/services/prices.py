"""Prices of services: a table that the user can edit, in place of the one that is shipped.

`prices.toml` holds examples that were looked up once; whoever pays checks them. A user's own file
(`--services.prices`) is laid over it, entry by entry, and a price among a member's own settings
comes before both.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lucibot.core.errors import UserError
from lucibot.core.schema import Finite, Spec, parse
from lucibot.services.config import ServicesConfig

SHIPPED = Path(__file__).with_name("prices.toml")

Usd = Annotated[Finite, Field(ge=0, le=1e6)]


class VideoPrice(Spec):
    """Of one model's videos [USD]; both together are added."""

    usd_per_second: Usd = 0.0
    usd_per_clip: Usd = 0.0


class VlmPrice(Spec):
    """Of a million tokens [USD]."""

    usd_per_million_in: Usd
    usd_per_million_out: Usd
    px_per_token: Annotated[Finite, Field(gt=0)] | None = None
    """Pixels of a picture that are billed as a token, where they are fewer than of other models."""


class Table(Spec):
    checked: str = ""
    """When these prices were looked up, by whoever wrote the table."""
    video: dict[str, dict[str, VideoPrice]] = Field(default_factory=dict)
    """Member -> model -> price."""
    vlm: dict[str, VlmPrice] = Field(default_factory=dict)
    """Model -> price."""


@dataclass(frozen=True)
class Prices:
    services: ServicesConfig
    table: Table

    @property
    def source(self) -> str:
        """Where they are from and when they were looked up, in words."""
        if self.services.prices is None:
            return f"examples looked up on {self.table.checked}, to be checked ({SHIPPED})"
        when = f", of {self.table.checked}" if self.table.checked else ""
        return f"{self.services.prices}{when}"

    @classmethod
    def of(cls, services: ServicesConfig) -> Prices:
        """
        Raises:
            UserError: the user's price table cannot be read.
        """
        table = read_table(SHIPPED)
        if services.prices is not None:
            own = read_table(services.prices)
            video = {m: table.video.get(m, {}) | own.video.get(m, {})
                     for m in {*table.video, *own.video}}  # fmt: skip
            table = Table(checked=own.checked, video=video, vlm=table.vlm | own.vlm)
        return cls(services, table)

    def video_usd(self, member: str, model: str, seconds: float) -> float | None:
        """What one clip costs; None where the table does not say."""
        price = self.table.video.get(member, {}).get(model)
        return None if price is None else price.usd_per_clip + seconds * price.usd_per_second

    def vlm_usd(self, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """What one call costs; None where neither the settings nor the table says."""
        v = self.services.vlm
        if v.usd_per_million_in is not None and v.usd_per_million_out is not None:
            per = (v.usd_per_million_in, v.usd_per_million_out)
        elif model in self.table.vlm:
            price = self.table.vlm[model]
            per = (price.usd_per_million_in, price.usd_per_million_out)
        else:
            return None
        return (tokens_in * per[0] + tokens_out * per[1]) / 1e6

    def px_per_token(self, model: str) -> float:
        """Pixels that make a token, for what a call could cost: by the settings, or fewer by the table."""
        price, told = self.table.vlm.get(model), self.services.vlm.px_per_token
        return min(price.px_per_token, told) if price and price.px_per_token else told


@functools.cache
def read_table(path: Path) -> Table:
    """
    Raises:
        UserError: there is no such file, it is no TOML, or a price is none.
    """
    try:
        told: dict[str, Any] = tomllib.loads(Path(path).read_text())
    except OSError as e:
        raise UserError(f"--services.prices {path}: it cannot be read ({e.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UserError(f"--services.prices {path}: it is no TOML ({e})") from None
    return parse(Table, told, str(path))
