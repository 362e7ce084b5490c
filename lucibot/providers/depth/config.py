"""The depth family's members as configs; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lucibot.core.config import Config

if TYPE_CHECKING:
    from lucibot.providers.depth.base import DepthModel


@dataclass(frozen=True, kw_only=True)
class FillDepth(Config):
    """Depth from the scene, the meshes' poses and the first moment; needs no weights."""

    carry_within_m: float = 0.02
    """A deformable's first depth is kept where it differs from that of a block of its height
    standing there by less than this; else the surface has moved on."""

    def create(self) -> DepthModel:
        from lucibot.providers.depth.fill import DepthByFilling

        return DepthByFilling(self)


DepthConfig = FillDepth
