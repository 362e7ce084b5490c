"""The verifier family: which imagined video can be trusted (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.task import Task

USABLE_ABOVE = 12.0
"""The paper's threshold on the total of 15 points."""
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
class Verdict:
    """The paper's rubric for one video."""

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
    doubt: float = 0.0
    """How near what was measured came to a deduction that was not made: breaks ties. 1: just below."""
    evidence: dict[str, float | str] = field(default_factory=dict)
    """What is behind the points, by name: measurements, or a judge's own words."""
    shown: tuple[Shown, ...] = ()

    @property
    def total(self) -> float:
        return LOWEST if self.new_object else self.match + self.motion + self.goal

    @property
    def usable(self) -> bool:
        return self.total > USABLE_ABOVE


def rejected(reason: str) -> Verdict:
    """Of a candidate that there is nothing to look at of."""
    return Verdict(match=2.0, motion=1.0, goal=2.0, new_object=False, reasons=(reason,))


class Verifier(Protocol):
    """Sees pixels, the known scene, the roles and the goal; never what a video model planned."""

    def judge(self, task: Task, view: SceneView, video: Video) -> Verdict: ...
