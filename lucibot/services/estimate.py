"""What a run is going to ask for and what that may cost, before anything is asked.

A member's config says so itself, by a method

    def planned(self, outlook: Outlook) -> list[Planned]: ...

and `lucibot.estimate` asks all that a run has chosen. A member without it asks nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from lucibot.services.config import ServicesConfig
from lucibot.services.pictures import tokens_of
from lucibot.services.prices import Prices
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Calls of one kind that a stage is going to make."""

    stage: str
    what: str
    """What is asked for, in a few words: "videos", "the prompt", "verdicts"."""
    by: str
    """Who is asked: "runway gen4.5", "vlm gpt-5"."""
    calls: int
    """At most."""
    usd_each: float | None
    """What one call costs at most; 0 where it is free, None where no price is known."""
    bought: int = 0
    """Of the calls, those that the run has made already."""

    @property
    def left(self) -> int:
        return max(self.calls - self.bought, 0)

    @property
    def usd(self) -> float | None:
        """What is still to be paid, at most."""
        if not self.left:
            return 0.0
        return None if self.usd_each is None else self.left * self.usd_each


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is known of a run before it starts."""

    task: Task
    videos: int
    """Candidates that are made, at most."""
    services: ServicesConfig
    population: int = 0
    """Rollouts in a generation of the search."""
    generations: int = 0
    """At most."""
    keyframes: int = 0
    """Of the chosen video, at most, with a grasp and two releases."""

    def vlm(
        self,
        stage: str,
        what: str,
        model: str,
        *,
        calls: int,
        pictures: int = 0,
        letters: int = 2000,
    ) -> Planned:
        """Calls of a vision-language model, each with at most so many pictures and letters; the
        answers are as long as they may be. An answer that is not valid is asked for once more, which
        is not counted: at the very worst there are twice as many calls."""
        v = self.services.vlm
        pictures = min(pictures, v.most_pictures)
        pixels = min(pictures * v.image_px**2, v.most_megapixels * 1e6)
        prices = Prices.of(self.services)
        tokens_in = letters // 2 + tokens_of(pictures, pixels, prices.px_per_token(model))
        usd = prices.vlm_usd(model, tokens_in, v.longest_answer)
        if v.replay is not None:
            return Planned(stage=stage, what=what, by=f"replayed {model}", calls=0, usd_each=0.0)
        return Planned(stage=stage, what=what, by=f"vlm {model}", calls=calls, usd_each=usd)
