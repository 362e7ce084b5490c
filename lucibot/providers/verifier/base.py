"""The verifier family: which imagined video can be trusted (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.task import Task

USABLE_ABOVE = 12.0
"""The paper's threshold on the total of 15 points."""
MOST = {"match": 6.0, "motion": 3.0, "goal": 6.0}
"""The rubric's criteria, and the points that each can bring."""
NO_GOAL = (
    "the task names no goal relation ([[goal]] in task.toml), so none could be checked; a model "
    "proposes one: lucibot tasks goals {folder} --model NAME"
)
LOWEST = 5.0
"""The lowest total of the rubric (2 + 1 + 2)."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture of the video that shows what a deduction is for."""

    frame: int
    words: str
    box: tuple[float, float, float, float] | None = None
    """Left, top, right and bottom edge of the place, as shares of the picture's width and height."""
    over: int | None = None
    """Another frame that it is laid over, half and half: what moved is seen twice."""


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """The paper's rubric for one video, as one judge gives it."""

    by: str = "pixels"
    """Who judged."""
    match: float
    """2 to 6 points: does the video match the description?"""
    motion: float
    """1 to 3 points: is the hand's motion reasonable?"""
    goal: float
    """2 to 6 points: is the goal state reached (and held)?"""
    new_object: bool
    """An object appears that was not in the first frame: sends the total to the lowest score."""
    reasons: tuple[str, ...]
    """One sentence per deduction, with the measured value."""

    @property
    def total(self) -> float:
        return LOWEST if self.new_object else self.match + self.motion + self.goal

    @property
    def usable(self) -> bool:
        return self.total > USABLE_ABOVE


@dataclass(frozen=True, kw_only=True)
class Verdict(Opinion):
    """What counts, and what is behind it."""

    doubt: float = 0.0
    """How near what was measured came to a deduction that was not made: breaks ties. 1: just below."""
    evidence: dict[str, float | str] = field(default_factory=dict)
    """What is behind the points, by name: measurements, or a judge's own words."""
    shown: tuple[Shown, ...] = ()
    beside: Opinion | None = None
    """What another judge says of the same video."""

    def opinion(self) -> Opinion:
        """What it says, without what is behind it."""
        return Opinion(**{f.name: getattr(self, f.name) for f in fields(Opinion)})

    @property
    def disputed(self) -> bool:
        """Whether the judge beside would decide otherwise."""
        return self.beside is not None and self.beside.usable != self.usable

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Verdict:
        """From what `dataclasses.asdict` gives, as JSON has kept it."""
        shown = tuple(Shown(**{**s, "box": s["box"] and tuple(s["box"])}) for s in told["shown"])
        beside = told.get("beside")
        if beside is not None:
            beside = Opinion(**{**beside, "reasons": tuple(beside["reasons"])})
        return cls(**{**told, "reasons": tuple(told["reasons"]), "shown": shown, "beside": beside})


def read_opinion(told: dict[str, Any]) -> Opinion:
    """From what `dataclasses.asdict` gives, as JSON has kept it."""
    return Opinion(**{**told, "reasons": tuple(told["reasons"])})


def rejected(reason: str) -> Verdict:
    """Of a candidate that there is nothing to look at of."""
    return Verdict(match=2.0, motion=1.0, goal=2.0, new_object=False, reasons=(reason,))


class Verifier(Protocol):
    """Sees pixels, the known scene, the roles and the goal; never what a video model planned."""

    def judge(self, task: Task, view: SceneView, video: Video) -> Verdict: ...
