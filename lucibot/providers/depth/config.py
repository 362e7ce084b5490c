"""The depth family's members as configs; light to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.needs import Needs
from lucibot.core.schema import Count, Fraction, Index, Positive
from lucibot.providers.checkpoints import Device, DType
from lucibot.store.configs import CHECKPOINT, NO_EFFECT

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
    model: str = field(default="depth-anything/Depth-Anything-V2-Small-hf", metadata=CHECKPOINT)
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


@dataclass(frozen=True, kw_only=True)
class MarigoldDepth(Config):
    """Depth by a diffusion model (Marigold) that the known background steers while it denoises."""

    NEEDS = Needs(
        packages=("diffusers", "transformers", "accelerate"), extra="models",
        weights=("prs-eth/marigold-depth-v1-1",), gpu_gib=16,
        note="its checkpoints' licences differ by version",
    )  # fmt: skip

    kind: Literal["marigold"] = "marigold"
    model: str = field(default="prs-eth/marigold-depth-v1-1", metadata=CHECKPOINT)
    """A folder that diffusers has written, or a name on the hub that has been fetched (`hf download
    NAME`)."""
    steps: Annotated[Count, Field(le=1000)] = 50
    """Of denoising, in the first frame."""
    renewed: Annotated[Fraction, Field(gt=0)] = 0.2
    """The share of these steps that each further frame is denoised anew, from where the one before
    ended; 1: all of them, each by itself."""
    resolution: Annotated[Index, Field(le=4096)] = 0
    """At which it works, longer side [pixels]; 0: the checkpoint's own."""
    low_memory: bool = False
    """Compute again what would have to be kept for gradients: slower."""
    device: Device = "auto"
    """Where it runs; "auto": on the GPU where there is one."""
    dtype: DType = "float32"
    """What it computes with: gradients want more digits than a half has."""

    def create(self) -> DepthModel:
        from lucibot.providers.depth.marigold import DepthByDiffusion

        return DepthByDiffusion(self)


@dataclass(frozen=True, kw_only=True)
class DepthLabDepth(Config):
    """Depth by a user's checkout of DepthLab, which fills in what is not known of a depth map."""

    NEEDS = Needs(
        settings=("checkout",), gpu_gib=16,
        note="github.com/ant-research/DepthLab and its weights, in an environment of their own",
        licence="DepthLab is Apache-2.0; the weights in its checkpoints folder have licences of their own",
    )  # fmt: skip

    kind: Literal["depthlab"] = "depthlab"
    checkout: str = ""
    """Its folder, with the weights in `checkpoints` as its README says."""
    python: str = field(default="", metadata=NO_EFFECT)
    """The Python of its environment; if not given, that of a `.venv` in the checkout."""
    steps: Annotated[Count, Field(le=1000)] = 50
    """Of denoising."""
    resolution: Annotated[Index, Field(le=4096)] = 640
    """At which it works, longer side [pixels]; 0: the picture's own."""
    normalize_scale: Annotated[Fraction, Field(gt=0)] = 1.0
    """Below 1 it can see depths beyond the known ones: objects are nearer than the background."""
    strength: Fraction = 0.8
    """1: the model alone; less: it begins from what is known, interpolated."""
    timeout_s: Positive = field(default=24 * 3600.0, metadata=NO_EFFECT)

    def create(self) -> DepthModel:
        from lucibot.providers.depth.depthlab import DepthByDepthLab

        return DepthByDepthLab(self)


@dataclass(frozen=True, kw_only=True)
class ReplayDepth(Config):
    """Depth that an earlier run has estimated of the same video."""

    NEEDS = Needs(settings=("file",))

    kind: Literal["replay"] = "replay"
    file: Path
    """The earlier run's 40_perceive/*/depth.npz; runs whose depth is measured leave one."""

    def create(self) -> DepthModel:
        from lucibot.providers.depth.replay import DepthByReplay

        return DepthByReplay(self)


DepthConfig = FillDepth | MonocularDepth | MarigoldDepth | DepthLabDepth | ReplayDepth
