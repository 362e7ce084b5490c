"""The tracker family's members as configs; light to import."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.needs import Needs
from lucibot.core.schema import Count, Fraction, Index, Positive
from lucibot.providers.checkpoints import Device, DType
from lucibot.store.configs import CHECKPOINT

if TYPE_CHECKING:
    from lucibot.providers.hand.config import HandConfig
    from lucibot.providers.tracker.base import Segmenter, Tracker, TrackerAndHandLayer


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Config):
    rounds: Annotated[Count, Field(le=1000)] = 7
    samples: Annotated[Count, Field(le=10_000)] = 40
    elite: Count = 8
    spread_px: float = 1.5
    """Standard deviation of the first round's shifts, beyond what flow says [work pixels]."""
    spread_depth: float = 0.02
    """Of the logarithm of depth."""
    spread_rad: float = 0.07
    spread_size: float = 0.006
    """Of the logarithm of size: objects in generated videos slowly change theirs."""
    prior_weight: float = 6.0
    """Weight of the quadratic pull towards the prediction, in units of summed log-likelihood."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedTracker(Config):
    """Tracks with classical means only; needs no weights and no GPU."""

    kind: Literal["embedded"] = "embedded"
    work_width: Annotated[Count, Field(ge=32, le=4096)] = 408
    """Width at which the work is done [pixels]; masks come out at the video's size."""
    regions_width: Annotated[Count, Field(ge=32, le=4096)] = 320
    """Pixels across at which the whole video is classified beforehand, to learn its hands."""
    samples_per_s: Positive = 8.0
    """Frames a second that are looked at for that."""
    search: SearchSettings = field(default_factory=SearchSettings)
    edge_weight: float = 3.0
    """What an outline gains on a pixel with an edge that the background lacks [log-likelihood]."""
    lost_below: Fraction = 0.4
    """Confidence under which a frame counts as lost."""
    seed: int = 0
    """Seed of the pose search."""

    def create(self, hand: HandConfig | None = None) -> TrackerAndHandLayer:
        """`hand`: what sees hands in whole pictures, beside what comes in over the border."""
        from lucibot.providers.tracker.embedded import TrackByColour

        return TrackByColour(self, hand)


@dataclass(frozen=True, kw_only=True)
class CommandSegmenter(Config):
    """Masks from any program that follows objects from their first masks."""

    NEEDS = Needs(settings=("command",))

    kind: Literal["command"] = "command"
    command: str = ""
    """What is run, with the place holders {video} (an mp4), {first} (an npz with a mask (H, W) for each
    object by name) and {masks} (the npz to write, with masks (T, H, W) by name: bool,
    or in [0, 1] how sure each pixel is)."""
    timeout_s: Positive = 3600.0

    def create(self) -> Segmenter:
        from lucibot.providers.tracker.command import SegmentByCommand

        return SegmentByCommand(self)


@dataclass(frozen=True, kw_only=True)
class Sam2Segmenter(Config):
    """Masks by SAM 2, from points on the objects' true first masks or from these masks."""

    NEEDS = Needs(
        packages=("transformers",), extra="models", weights=("facebook/sam2.1-hiera-large",),
        note="the authors' package sam2 does as well; a GPU makes it fast",
    )  # fmt: skip

    kind: Literal["sam2"] = "sam2"
    model: str = field(default="facebook/sam2.1-hiera-large", metadata=CHECKPOINT)
    """A folder that transformers has written, a name on the hub that has been fetched (`hf download
    NAME`), or, for the package sam2, a .pt file."""
    library: Literal["sam2", "transformers"] | None = None
    """Who runs it; if not given, settled when the run begins: the authors' package "sam2" where it is
    installed, else "transformers"."""
    architecture: str = ""
    """The package's config of a .pt file that is not named as it was published, such as
    configs/sam2.1/sam2.1_hiera_l.yaml."""
    prompt: Literal["points", "masks"] = "points"
    """What it is told of the first frame: points on the objects, or their true masks."""
    points: Annotated[Count, Field(le=64)] = 8
    """Points on each object, spread over it."""
    points_off: Annotated[Index, Field(le=64)] = 2
    """Points on each of the other objects, which are said to be none of it."""
    device: Device = "auto"
    """Where it runs; "auto": on the GPU where there is one."""
    dtype: DType = "auto"
    """What it computes with; "auto": bfloat16 on a GPU, float32 on a CPU."""

    def create(self) -> Segmenter:
        from lucibot.providers.tracker.sam2 import SegmentBySam2

        return SegmentBySam2(self)


SegmenterConfig = CommandSegmenter | Sam2Segmenter
HandLayerConfig = EmbeddedTracker


@dataclass(frozen=True, kw_only=True)
class ComposedTracker(Config):
    """Masks by a segmenter, hands by a hand layer; poses start from the masks."""

    kind: Literal["composed"] = "composed"
    segmenter: SegmenterConfig = field(default_factory=CommandSegmenter)
    hand_layer: HandLayerConfig = field(default_factory=EmbeddedTracker)

    def create(self, hand: HandConfig | None = None) -> Tracker:
        """`hand`: see `EmbeddedTracker.create`."""
        from lucibot.providers.tracker.composed import TrackBySegments

        return TrackBySegments(self, hand)


@dataclass(frozen=True, kw_only=True)
class ReplayTracker(Config):
    """Masks, hands and poses that an earlier run has read from the same video."""

    NEEDS = Needs(settings=("file",))

    kind: Literal["replay"] = "replay"
    file: Path
    """The earlier run's 40_perceive/*/tracks.npz."""

    def create(self, hand: HandConfig | None = None) -> Tracker:
        """`hand` is not asked."""
        from lucibot.providers.tracker.replay import TrackByReplay

        return TrackByReplay(self)


TrackerConfig = EmbeddedTracker | ComposedTracker | ReplayTracker


def default_library() -> Literal["sam2", "transformers"]:
    """What runs SAM 2 where nobody has said: the authors' package where it is installed."""
    return "sam2" if find_spec("sam2") is not None else "transformers"


def settled_tracker(config: TrackerConfig) -> TrackerConfig:
    """`config` with what is left to the run settled: who runs SAM 2."""
    segmenter = getattr(config, "segmenter", None)
    if not isinstance(segmenter, Sam2Segmenter) or segmenter.library is not None:
        return config
    return replace(config, segmenter=replace(segmenter, library=default_library()))
