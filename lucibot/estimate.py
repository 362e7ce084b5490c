"""What a run is going to ask others for, and what that may cost, before it begins."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lucibot.config import RunConfig
from lucibot.core.errors import LuciBotError
from lucibot.core.needs import needs_of
from lucibot.pipeline import STAGES, kept_stages
from lucibot.providers.video.jobs import Jobs
from lucibot.services import Services
from lucibot.services.estimate import Outlook, Planned
from lucibot.services.ledger import passes
from lucibot.services.prices import Prices
from lucibot.stages import imagine
from lucibot.store.run import RunDirectory
from lucibot.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is going to be asked for."""

    planned: tuple[Planned, ...]
    spent_usd: float
    """What the run has paid so far."""
    max_usd: float | None
    prices: str
    """Which table the prices are from."""
    licences: tuple[str, ...] = ()
    """Under what chosen members may be used, where that is less than anything."""

    @property
    def pays(self) -> bool:
        """Whether something is asked for that costs, or of which no price is known."""
        return any(p.usd != 0 for p in self.planned)

    @property
    def usd(self) -> float | None:
        """What is still to be paid, at most; None where a price is not known."""
        costs = [p.usd for p in self.planned]
        return None if None in costs else sum(costs)

    def lines(self) -> list[str]:
        """In words, a line each."""
        told = [line_of(p) for p in self.planned]
        if not self.pays:
            return [*told, "nothing is paid"]
        known = sum(p.usd or 0.0 for p in self.planned)
        calls = sum(p.left for p in self.planned)
        unpriced = sum(p.left for p in self.planned if p.usd is None)
        total = f"in all up to {calls} call{'s' * (calls != 1)}, at most {known:.2f} USD"
        if unpriced:
            total += f" and what {unpriced} of them cost, of which no price is known (--video.usd, "
            total += "--services.prices FILE; 0 for what is free)"
        if self.spent_usd:
            total += f"; {self.spent_usd:.2f} USD are spent already"
        if self.max_usd is None:
            total += "; no cap is set (--max-usd)"
        else:
            total += f"; the cap is {self.max_usd:g} USD"
            if self.usd is None:
                total += ", which cannot be kept without a price"
            elif passes(self.spent_usd + known, self.max_usd):
                total += ", and stops the run before the call that would pass it"
        return [*told, total, f"prices: {self.prices}"]


def announce(found: Estimate, say: Callable[[str], None]) -> None:
    """Say what is going to be asked of others, if anything is, and what licences limit."""
    for line in found.licences:
        say(line)
    if found.planned:
        for line in found.lines():
            say(line)


def line_of(p: Planned) -> str:
    """What one kind of call is, in words."""
    each = "no price known" if p.usd_each is None else f"{p.usd_each:.3g} USD each"
    told = f"{p.stage}: up to {p.calls} x {p.what} by {p.by}, {each}"
    return f"{told}; {p.bought} of them are there already" if p.bought else told


def estimate(
    task: Task,
    config: RunConfig,
    *,
    seed: int = 0,
    run: RunDirectory | None = None,
    until: str | None = None,
) -> Estimate:
    """Every call that the chosen members say they make, at most, in the order of the stages, without
    what `run` has already.

    Args:
        until: the last stage to run.

    Raises:
        UserError: the price table or the run cannot be read.
    """
    outlook = Outlook(
        task=task, videos=max(config.video.candidates, config.select.budget),
        services=config.services, population=config.optimize.search.population,
        generations=config.optimize.search.generations if task.is_searched else 1,
        keyframes=_most_keyframes(config),
    )  # fmt: skip
    order = [s.name for s in STAGES]
    last = order.index(until) if until else len(order)
    said = [p for member in _configs(config) for p in _of(member, outlook)]
    calls = sorted(
        (p for p in said if order.index(p.stage) <= last), key=lambda p: order.index(p.stage)
    )
    spent = 0.0
    if run is not None and calls:
        kept = kept_stages(run, task, config, seed=seed)
        calls = [p for p in calls if p.stage not in kept]
        services = Services(run.path / "services", config.services)
        spent = services.ledger.spent_usd()
        there = _videos_there(run, task, config, seed, kept, services, outlook.videos)
        calls = [
            dataclasses.replace(p, bought=min(there, p.calls)) if p.stage == "imagine" else p
            for p in calls
        ]
    return Estimate(
        planned=tuple(p for p in calls if p.calls), spent_usd=spent,
        max_usd=config.services.max_usd, prices=Prices.of(config.services).source,
        licences=tuple(
            dict.fromkeys(text for m in _configs(config) if (text := needs_of(type(m)).licence))
        ),
    )  # fmt: skip


def _most_keyframes(config: RunConfig) -> int:
    k, switches = config.perceive.keyframes, 3
    regular = math.ceil(config.intake.longest_s * k.rate_hz) if k.rate_hz > 0 else k.count
    return regular + switches + k.most_added


def _videos_there(
    run: RunDirectory,
    task: Task,
    config: RunConfig,
    seed: int,
    kept: dict[str, Path],
    services: Services,
    count: int,
) -> int:
    """How many of the candidates the run has asked for already."""
    if "scene" not in kept or "prompt" not in kept or "imagine" in kept:
        return 0
    try:
        model = config.video.create(services)
    except LuciBotError:
        return 0  # What it lacks will be said when it is needed.
    first = imagine.first_request(task, kept["scene"], kept["prompt"], seed)
    jobs = Jobs(imagine.candidates_of(run), model, services, note=lambda text: None)
    return sum(
        jobs.asked_for(dataclasses.replace(first, index=i)) for i in range(count)
    )  # fmt: skip


def _of(member: Any, outlook: Outlook) -> Sequence[Planned]:
    says = getattr(member, "planned", None)
    return says(outlook) if says is not None else ()


def _configs(config: Any) -> Iterator[Any]:
    """A config and those that it holds."""
    yield config
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from _configs(value)
