"""Configs of the search; light to import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.errors import UserError
from lucibot.core.needs import Needs
from lucibot.core.plugins import find_plugin
from lucibot.core.schema import Count, Fraction, Index, Positive

if TYPE_CHECKING:
    from lucibot.optimize.optimizer import Optimizer

GROUP = "lucibot.optimizers"
"""Entry points of this group are optimizers, by name."""


@dataclass(frozen=True, kw_only=True)
class Evosax(Config):
    """An evolution strategy of evosax."""

    kind: Literal["evosax"] = "evosax"
    strategy: Literal["CMA_ES", "Sep_CMA_ES", "CR_FM_NES", "SNES"] = "CMA_ES"
    """CMA_ES: covariance matrix adaptation, the paper's optimizer. The others learn less of a
    covariance, which takes fewer samples."""

    def create(self, dimension: int, population: int, seed: int) -> Optimizer:
        """An `Optimizer` over R^dimension."""
        from lucibot.optimize.strategies import EvosaxStrategy

        return EvosaxStrategy(dimension, population, seed, name=self.strategy)


@dataclass(frozen=True, kw_only=True)
class Pycma(Config):
    """CMA-ES as its author keeps it (package cma), for reference: with active covariance updates
    and step-size damping of its own."""

    NEEDS = Needs(packages=("cma",), extra="pycma")

    kind: Literal["pycma"] = "pycma"

    def create(self, dimension: int, population: int, seed: int) -> Optimizer:
        """An `Optimizer` over R^dimension.

        Raises:
            UserError: cma is not installed.
        """
        from lucibot.optimize.strategies import PycmaStrategy

        return PycmaStrategy(dimension, population, seed)


@dataclass(frozen=True, kw_only=True)
class CEM(Config):
    """The cross-entropy method: a mean and a spread for each coordinate, drawn to the best samples;
    some of these are evaluated again with the next generation."""

    kind: Literal["cem"] = "cem"
    elite_share: Annotated[Fraction, Field(gt=0)] = 0.25
    """Share of a generation that mean and spread follow."""
    kept: int = 2
    """Elites that take part in the next generation."""
    inertia: Annotated[Fraction, Field(lt=1)] = 0.3
    """Share of the former mean and spread that remains."""
    least_spread: Positive = 0.1
    """The spread never falls below this [first spreads]."""

    def create(self, dimension: int, population: int, seed: int) -> Optimizer:
        """An `Optimizer` over R^dimension."""
        from lucibot.optimize.strategies import CrossEntropy

        return CrossEntropy(dimension, population, seed, self)


@dataclass(frozen=True, kw_only=True)
class OwnOptimizer(Config):
    """An optimizer of one's own: an entry point of `lucibot.optimizers`, or module:Class."""

    kind: Literal["own"] = "own"
    name: str
    """Called as `(dimension, population, seed)`; gives what `lucibot.optimize.optimizer.Optimizer`
    asks for."""

    def find(self) -> Callable[[int, int, int], Optimizer]:
        """
        Raises:
            UserError: there is none of that name.
        """
        return find_plugin(GROUP, self.name)

    def create(self, dimension: int, population: int, seed: int) -> Optimizer:
        """An `Optimizer` over R^dimension.

        Raises:
            UserError: there is none of that name, or it lacks one of the methods.
        """
        found = self.find()(dimension, population, seed)
        for method in ("ask", "tell", "state", "restore"):
            if not callable(getattr(found, method, None)):
                raise UserError(f"optimizer {self.name!r} has no method {method!r}")
        return found


@dataclass(frozen=True, kw_only=True)
class VideoStart(Config):
    """Start from the poses that were read from the video (paper, section 3.4)."""

    kind: Literal["video"] = "video"


@dataclass(frozen=True, kw_only=True)
class RandomStart(Config):
    """Start from waypoints at random within the scene's bounds (paper, section 4.2, "w/o Init")."""

    kind: Literal["random"] = "random"
    room_m: float = 0.10
    """The box around all objects as the scene begins is grown by so much [m], but not downwards."""
    step_m: Positive = 0.06
    """A waypoint lies within so much of the one before, along each axis [m]: farther apart in the time
    between two of them, a tool bursts what it hits, and every rollout diverges."""
    turn_deg: Annotated[float, Field(ge=0, le=180)] = 45.0
    """It is turned by at most so much from the actuator's first pose [deg]."""
    step_deg: Annotated[float, Field(ge=0, le=180)] = 10.0
    """And by at most so much from the waypoint before [deg]."""
    sigma_position_m: Positive = 0.03
    """First step size of positions [m], in place of the search's: a start that knows nothing needs a
    wider one."""
    sigma_rotation_deg: Positive = 15.0
    """First step size of rotations [deg], likewise."""


@dataclass(frozen=True, kw_only=True)
class DescentStart(Config):
    """Start from the poses that were read from the video, brought down the slope of the loss by gradients
    through physics: for tasks in which one rigid tool meets what the material point method moves, on a CPU."""

    kind: Literal["descent"] = "descent"
    steps: Count = 3
    """Gradients, at most."""
    tries: Annotated[Count, Field(ge=2, le=64)] = 4
    """Lengths along each that are rolled out, each half as long as the one before."""
    first_step: Positive = 0.5
    """The longest of them is twice this [first step sizes of the search, together]."""


StartConfig = VideoStart | RandomStart | DescentStart


@dataclass(frozen=True, kw_only=True)
class SearchConfig(Config):
    population: Annotated[Count, Field(ge=2)] = 16
    """Rollouts in a generation."""
    generations: Index = 16
    """At most so many; 0: replay the start without a search."""
    patience: int = 3
    """Stop after so many generations that have not lowered the loss by `least_gain`; 0: never."""
    least_gain: Fraction = 0.05
    """Share of the loss by which `patience` generations together must lower it."""
    restarts: Annotated[Index, Field(le=100)] = 2
    """How often a search that has stalled begins again about its best rollout, where that does not do what
    was asked for."""
    widen: Annotated[Positive, Field(ge=1)] = 2.0
    """By how much its first steps are wider the second time that it begins again, and each time after."""
    sigma_position_m: Positive = 0.004
    """First step size of positions [m]."""
    sigma_depth_m: Positive | None = 0.015
    """First step size along the line of sight [m], where the video says least; none: as across."""
    sigma_rotation_deg: Positive = 3.0
    """First step size of rotations [deg]."""
    correlation: Annotated[Fraction, Field(lt=1)] = 0.64
    """How much of a displacement all waypoints of an actuator share; 0: each on its own (paper)."""
    include_start: bool = True
    """Evaluate the start in the first generation and keep it as a candidate."""
    optimizer: Evosax | Pycma | CEM | OwnOptimizer = Evosax()

    def check(self) -> None:
        strategy = getattr(self.optimizer, "strategy", None)
        if strategy == "CR_FM_NES" and self.population % 2:
            self.refuse("population", f"{strategy} takes an even number")
