"""What a run is going to ask others for, and what that may cost, before it begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from lucibot.config import RunConfig
from lucibot.services.estimate import Outlook, Planned
from lucibot.task import Task


def planned(task: Task, config: RunConfig) -> list[Planned]:
    """Every call that the chosen members say they make, at most, in the order of the stages."""
    outlook = Outlook(
        task=task, videos=max(config.video.candidates, config.select.budget),
        services=config.services,
    )  # fmt: skip
    return [p for member in _configs(config) for p in _of(member, outlook)]


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
