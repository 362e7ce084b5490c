"""The embedder family's members as configs; light to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.needs import Needs
from lucibot.core.schema import Count
from lucibot.providers.checkpoints import Device, DType
from lucibot.store.configs import CHECKPOINT

if TYPE_CHECKING:
    from lucibot.providers.embedder.base import Embedder


@dataclass(frozen=True, kw_only=True)
class ColourEmbedder(Config):
    """Where which colours and edges are; needs no weights, and knows no things."""

    kind: Literal["colours"] = "colours"
    cells: Annotated[Count, Field(le=16)] = 4
    """Rows and columns of cells."""

    def create(self) -> Embedder:
        from lucibot.providers.embedder.colours import EmbedByColours

        return EmbedByColours(self)


@dataclass(frozen=True, kw_only=True)
class ClipEmbedder(Config):
    """The image side of CLIP."""

    NEEDS = Needs(
        packages=("transformers",), extra="models", weights=("openai/clip-vit-base-patch32",)
    )

    kind: Literal["clip"] = "clip"
    model: str = field(default="openai/clip-vit-base-patch32", metadata=CHECKPOINT)
    """A folder that transformers has written, or a name on the hub that has been fetched (`hf download
    NAME`)."""
    batch: Annotated[Count, Field(le=1024)] = 32
    """Images at a time."""
    device: Device = "auto"
    """Where it runs; "auto": on the GPU where there is one."""
    dtype: DType = "auto"
    """What it computes with; "auto": bfloat16 on a GPU, float32 on a CPU."""

    def create(self) -> Embedder:
        from lucibot.providers.embedder.clip import EmbedByClip

        return EmbedByClip(self)


EmbedderConfig = ColourEmbedder | ClipEmbedder
