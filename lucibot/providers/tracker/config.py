"""The tracker family's members as configs; light to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lucibot.providers.tracker.base import Tracker


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    rounds: int = 7
    samples: int = 40
    elite: int = 8
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
class EmbeddedTracker:
    """Tracks with classical means only; needs no weights and no GPU."""

    work_width: int = 408
    """Width at which the work is done [pixels]; masks come out at the video's size."""
    search: SearchSettings = field(default_factory=SearchSettings)
    edge_weight: float = 3.0
    """What an outline gains on a pixel with an edge that the background lacks [log-likelihood]."""
    lost_below: float = 0.4
    """Confidence under which a frame counts as lost."""
    seed: int = 0
    """Seed of the pose search."""

    def create(self) -> Tracker:
        from lucibot.providers.tracker.embedded import TrackByColour

        return TrackByColour(self)


TrackerConfig = EmbeddedTracker
