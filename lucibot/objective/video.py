"""The objective that a rollout be like the video: all terms put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lucibot.objective.affordance import AffordanceTerms
from lucibot.objective.config import VideoObjective
from lucibot.objective.losses import Losses
from lucibot.objective.objective import Looks, Seen
from lucibot.objective.supervision import Supervision
from lucibot.objective.terms import find_term
from lucibot.task import Task


class LikeTheVideo:
    """The `Objective` behind `lucibot.objective.config.VideoObjective`."""

    def __init__(
        self, config: VideoObjective, task: Task, supervision: Supervision,
        rest: Mapping[str, Tensor], device: str,
    ):  # fmt: skip
        labels = {o.name: task.label(o.name) for o in task.objects}
        self._losses = Losses(
            labels, supervision, device, lets_drop=task.spec.simulation.rigid_collision
        )
        self._affordance = AffordanceTerms(task, supervision, rest, device)
        self._own = {n: find_term(n)(task, supervision, device) for n in config.own_weights()}
        self.weights = config.term_weights()
        self.looks = Looks(
            masks=self._losses.wanted, contact_pairs=supervision.contact_pairs, goal=True,
            settled=True, parts=True, around_pairs=supervision.expected_around, state=True,
        )  # fmt: skip

    def shown(self, seen: Seen) -> dict[str, Tensor]:
        """See `Objective`."""
        return {}

    def score(self, seen: Seen) -> dict[str, Tensor]:
        """See `Objective`."""
        keyframes = [
            self._losses.at_keyframe(k, overlap, contact)
            for k, (overlap, contact) in enumerate(zip(seen.overlap, seen.contact, strict=True))
        ]
        # The last keyframe is the goal frame: what was held is still held there.
        terms = {
            **{n: mean_of_known([t[n] for t in keyframes]) for n in keyframes[0]},
            **self._losses.at_goal(seen.goal),
            **self._losses.settled(seen.settled),
            **self._affordance.terms(seen.state),
        }
        pictures = replace(seen, state=None)
        for name, term in self._own.items():
            terms[name] = term(seen if term.sees_state else pictures)
        return terms


def mean_of_known(values: list[Tensor]) -> Tensor:
    """Mean (P,) over a list of (P,), leaving NaN out; 0 where nothing is known.

    Added one by one, because a reduction over an axis may order its sum by the batch's size, and
    then a population would not give the same bits however it is sharded.
    """
    total, known = torch.zeros_like(values[0]), torch.zeros_like(values[0])
    for v in values:
        total = total + v.nan_to_num(0.0)
        known = known + (~v.isnan()).to(v.dtype)
    return total / known.clamp(min=1)
