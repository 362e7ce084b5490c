"""What the report shows, as plain data. Every section is optional: what is empty is left out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lucibot.core.answers import Beside
from lucibot.core.camera import Camera
from lucibot.core.prompt import Prompt
from lucibot.providers.verifier.base import Opinion
from lucibot.services.ledger import Paid


@dataclass(frozen=True, kw_only=True)
class CandidateRow:
    """A candidate video and what the verifier said of it, if it has."""

    name: str
    video: Path | None = None
    """mp4, embedded if given."""
    match: float = 0.0
    motion: float = 0.0
    goal: float = 0.0
    total: float | None = None
    """Points; None before it is judged."""
    usable: bool = False
    new_object: bool = False
    chosen: bool = False
    by: str = ""
    """Who judged it."""
    seen: str = ""
    """What the judge says that happens in it."""
    beside: Opinion | None = None
    """What another judge says of it."""
    reasons: tuple[str, ...] = ()
    pictures: tuple[tuple[np.ndarray, str], ...] = ()
    """(H, W, 3) uint8 RGB that show what the reasons speak of, each with a line of its own."""


@dataclass(frozen=True, kw_only=True)
class MaskFrame:
    """One frame of the chosen video with what perception found in it."""

    index: int
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    masks: np.ndarray
    """(N, H, W) bool, in the order of `ReportData.objects`."""
    hand: np.ndarray | None = None
    """(H, W) bool."""
    lost: tuple[str, ...] = ()
    """Objects whose track must not be used here."""


@dataclass(frozen=True, kw_only=True)
class PoseFrame:
    """One frame with estimated poses to draw as axes."""

    index: int
    image: np.ndarray
    poses: dict[str, np.ndarray]
    """Object name -> (4, 4) T_world_object."""
    confidence: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Video and simulation at one keyframe."""

    keyframe: int
    frame: int
    video: np.ndarray
    """(H, W, 3) uint8 RGB."""
    simulation: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Every rollout of the search, in the order in which they were run."""

    generation: np.ndarray
    """(R,) int."""
    loss: np.ndarray
    """(R,)"""
    terms: dict[str, np.ndarray]
    """Unweighted, (R,) each."""
    failed: np.ndarray
    """(R,) bool"""
    weights: dict[str, float] = field(default_factory=dict)

    @property
    def any_finished(self) -> bool:
        return bool((~self.failed & np.isfinite(self.loss)).any())

    @classmethod
    def load(cls, optimize: Path) -> Rollouts:
        """From the folder of the stage "optimize"."""
        weights = json.loads((optimize / "search.json").read_text())["weights"]
        with np.load(optimize / "history.npz") as z:
            generations, population = z["loss"].shape
            return cls(
                generation=np.repeat(np.arange(generations), population),
                loss=z["loss"].reshape(-1), terms={n: z[n].reshape(-1) for n in weights},
                failed=z["failed"].reshape(-1), weights=weights,
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One success predicate."""

    name: str
    value: str
    wanted: str = ""
    passed: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ArmSection:
    """What an arm did."""

    arm: str
    success: bool
    why: str = ""
    """Why it could not be done; empty where it could."""
    film: Path | None = None
    metrics: tuple[Metric, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Timing:
    stage: str
    seconds: float
    taken_over: bool = False
    """Made by an earlier run beside this one."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    title: str
    instruction: str = ""
    success: bool | None = None
    stopped_at: str = ""
    """The stage at which a run ended before its report."""
    stopped_why: str = ""
    missing: tuple[str, ...] = ()
    """Stages that have not finished."""
    headline: dict[str, str] = field(default_factory=dict)
    """Short facts shown large at the top, such as {"loss": "0.041", "rollouts": "160"}."""
    objects: tuple[str, ...] = ()
    camera: Camera | None = None
    """The camera of all images; needed to draw pose axes."""
    first_frame: np.ndarray | None = None
    prompt: Prompt | None = None
    """What the video model was told."""
    candidates: tuple[CandidateRow, ...] = ()
    usable_above: float = 12.0
    masks: tuple[MaskFrame, ...] = ()
    poses: tuple[PoseFrame, ...] = ()
    keyframes: tuple[int, ...] = ()
    """Frame indices; the last is the goal frame."""
    fps: float = 0.0
    keyframe_images: tuple[np.ndarray, ...] = ()
    answers: dict[str, str] = field(default_factory=dict)
    """Question -> what the answer rests on."""
    held: np.ndarray | None = None
    """(K, A) bool"""
    actuators: tuple[str, ...] = ()
    contact_pairs: tuple[tuple[str, str], ...] = ()
    contact: np.ndarray | None = None
    """(K, pairs) bool"""
    first_contact: int = 0
    """Frame before the first keyframe."""
    answered_by: str = ""
    beside: Beside | None = None
    """What another answerer says of the same."""
    disputes: tuple[str, ...] = ()
    """Where the two differ, a sentence each."""
    rollouts: Rollouts | None = None
    comparisons: tuple[Comparison, ...] = ()
    film: Path | None = None
    """mp4 of the replay."""
    chosen_video: Path | None = None
    robot: ArmSection | None = None
    failed_at: str | None = None
    """What a failure is put down to."""
    metrics: tuple[Metric, ...] = ()
    timings: tuple[Timing, ...] = ()
    search_seconds: dict[str, float] = field(default_factory=dict)
    """Part of the search -> seconds of all workers together."""
    paid: tuple[Paid, ...] = ()
    """What was asked of others for money."""
    max_usd: float | None = None
    """The cap on that."""
    notes: tuple[str, ...] = ()
    """Fallbacks that were taken."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Run id, versions, machine, seed, video digest."""
