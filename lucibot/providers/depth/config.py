"""The depth family's members as configs; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lucibot.core.config import Config
from lucibot.core.needs import Needs
from lucibot.providers.checkpoints import Device, DType

if TYPE_CHECKING:
    from lucibot.providers.depth.base import DepthModel


@dataclass(frozen=True, kw_only=True)
class FillDepth(Config):
    """Depth from the scene, the meshes' poses and the first moment; needs no weights."""

    kind: Literal["fill"] = "fill"
    carry_within_m: float = 0.02
    """A deformable's first depth is kept where it differs from that of a block of its height
    standing there by less than this; else the surface has moved on."""

    def create(self) -> DepthModel:
        from lucibot.providers.depth.fill import DepthByFilling

        return DepthByFilling(self)


@dataclass(frozen=True, kw_only=True)
class MonocularDepth(Config):
    """Depth by a network that sees one picture at a time (Depth Anything, DPT, ZoeDepth, GLPN), put in
    metres by the known background."""

    NEEDS = Needs(
        packages=("transformers",), extra="models",
        weights=("depth-anything/Depth-Anything-V2-Small-hf",),
        note="Depth Anything V2: Small is Apache-2.0, the larger ones CC-BY-NC-4.0",
    )  # fmt: skip

    kind: Literal["monocular"] = "monocular"
    model: str = "depth-anything/Depth-Anything-V2-Small-hf"
    """A folder that transformers has written, or a name on the hub that has been fetched (`hf download
    NAME`)."""
    gives: Literal["depth", "disparity"] | None = None
    """What it estimates up to scale and shift; if not given, the checkpoint says."""
    device: Device = "auto"
    """Where it runs; "auto": on the GPU where there is one."""
    dtype: DType = "auto"
    """What it computes with; "auto": bfloat16 on a GPU, float32 on a CPU."""

    def create(self) -> DepthModel:
        from lucibot.providers.depth.monocular import DepthByNetwork

        return DepthByNetwork(self)


DepthConfig = FillDepth | MonocularDepth
