"""GPT-ranking (paper, section 4): a model ranks the last frames of one task's runs.

Where a picture is shown changes what models say of it, so there are several rounds, each over
another order, and the bias is measured: how far a rank goes with the place in the order.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field, create_model, field_validator

from lucibot.core.errors import RunFailed, UserError
from lucibot.evaluate.agreement import correlation
from lucibot.evaluate.config import EvaluateConfig
from lucibot.evaluate.judges import Judged, Verdicts
from lucibot.evaluate.outcomes import Outcome
from lucibot.providers.asking import Text, told, words
from lucibot.services import Services

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, kw_only=True)
class Heat:
    """One question: some outcomes of a group in one order."""

    round: int
    members: tuple[int, ...]
    """Indices of outcomes, in the order in which they are shown."""


def heats(members: Sequence[int], *, rounds: int, most: int, seed: int) -> list[Heat]:
    """Orders of a group for each round; a group of more than `most` is dealt anew into heats, as equal
    as they can be, in each."""
    rng = np.random.default_rng(seed)
    found = []
    for r in range(rounds):
        order = rng.permutation(members)
        for part in np.array_split(order, -(-len(order) // most)):
            if len(part) > 1:
                found.append(Heat(round=r, members=tuple(int(i) for i in part)))
    return found


def ranks(ranking: Sequence[Sequence[str]]) -> dict[str, float]:
    """Letter -> rank from 1; those that stand together share the mean of their places."""
    found, place = {}, 1
    for level in ranking:
        for letter in level:
            found[letter] = place + 0.5 * (len(level) - 1)
        place += len(level)
    return found


def answer_about(letters: str) -> type[BaseModel]:
    """What is asked for, of so many pictures."""

    class Checked(BaseModel):
        @field_validator("ranking", check_fields=False)
        @classmethod
        def _each_once(cls, levels):
            named = [letter for level in levels for letter in level]
            if sorted(named) != sorted(letters):
                raise ValueError(
                    f"every letter of {', '.join(letters)} must stand there exactly once"
                )
            return [level for level in levels if level]

    return create_model(
        "Ranking", __base__=Checked, seen=(Text, Field(description="What each picture shows.")),
        ranking=(list[list[Literal[tuple(letters)]]],
                 Field(description="Letters from best to worst; equals together.")),
    )  # fmt: skip


class RankingJudge:
    """The score of an outcome is how much of the others it is ranked before: 1 always first, 0 always
    last. `told` has its mean rank, scaled to the group's size."""

    def __init__(self, config: EvaluateConfig, services: Services):
        if config.model is None:
            raise UserError("the judge vlm-rank asks a model: name it with --model")
        self.config, self.vlm = config, services.vlm
        self.most = min(self.vlm.config.most_pictures - 1, len(LETTERS))
        if self.most < 2:
            raise UserError(
                "the judge vlm-rank shows the scene and two pictures at least: allow 3 with "
                "--services.vlm.most-pictures"
            )

    def planned(self, outcomes: Sequence[Outcome]) -> int:
        """How many questions there are."""
        return sum(len(self._heats(o)) for o in self._groups(outcomes))

    def judge(self, outcomes: Sequence[Outcome]) -> Verdicts:
        groups = self._groups(outcomes)
        asked = [(g, heat) for g in groups for heat in self._heats(g)]
        with ThreadPoolExecutor(self.vlm.config.at_once) as pool:
            answers = list(pool.map(lambda a: self._ask(outcomes, a[1]), asked))
        size = {i: len(g) for g in groups for i in g}
        places: dict[int, list[float]] = {i: [] for i in range(len(outcomes))}
        shown: list[tuple[float, float]] = []
        tied = pairs = 0
        errors: dict[int, str] = {}
        for (_, heat), found in zip(asked, answers, strict=True):
            if isinstance(found, str):
                errors |= dict.fromkeys(heat.members, found)
                continue
            n = len(heat.members)
            for k, i in enumerate(heat.members):
                place = (found[LETTERS[k]] - 1) / (n - 1)
                places[i].append(place)
                shown.append((k / (n - 1), place))
            values = list(found.values())
            pairs += n * (n - 1) // 2
            tied += sum(a == b for j, a in enumerate(values) for b in values[:j])
        each = tuple(
            _judged(places[i], size.get(i, 1), errors.get(i, "")) for i in range(len(outcomes))
        )
        bias = correlation([s for s, _ in shown], [p for _, p in shown])
        first, last = ([p for s, p in shown if s == end] for end in (0.0, 1.0))
        facts = {
            "model": self.config.model, "rounds": self.config.rounds, "questions": len(asked),
            "unanswered": sum(isinstance(a, str) for a in answers),
            "tied_pairs": tied / pairs if pairs else None,
            "position_bias": {
                "spearman": bias.spearman,
                "mean_place_shown_first": float(np.mean(first)) if first else None,
                "mean_place_shown_last": float(np.mean(last)) if last else None,
            },
        }  # fmt: skip
        return Verdicts(judge="vlm-rank", each=each, facts=facts)

    def _groups(self, outcomes: Sequence[Outcome]) -> list[list[int]]:
        by: dict[tuple, list[int]] = {}
        for i, o in enumerate(outcomes):
            # Of one name and other content: other tasks.
            key = (o.task.name, o.task.digest_of("scene", "instruction"))
            by.setdefault((*key, o.seed) if self.config.against == "seed" else key, []).append(i)
        return list(by.values())

    def _heats(self, group: list[int]) -> list[Heat]:
        seed = zlib.crc32(repr((self.config.seed, len(group))).encode())
        return heats(group, rounds=self.config.rounds, most=self.most, seed=seed)

    def _ask(self, outcomes: Sequence[Outcome], heat: Heat) -> dict[str, float] | str:
        """Ranks by letter, or why there are none."""
        letters = LETTERS[: len(heat.members)]
        task = outcomes[heat.members[0]].task
        pictures = [outcomes[i].last_frame for i in heat.members]
        before = outcomes[heat.members[0]].film.frames[0]
        try:
            said = self.vlm.ask(
                answer_about(letters), model=self.config.model, call_site="rank",
                instructions=words(__file__, "ranking.txt"), question=told(task),
                pictures=[before, *pictures],
                captions=["The scene before:", *(f"Picture {x}:" for x in letters)],
                again=heat.round,
            )  # fmt: skip
        except RunFailed as e:
            return str(e)
        return ranks(said.ranking)


def _judged(places: list[float], size: int, error: str) -> Judged:
    if not places:
        return Judged(error=error or "there is no other run to rank it against")
    place = float(np.mean(places))
    told = {"mean_rank": 1 + place * (size - 1), "of": size, "rounds": len(places),
            "spread": float(np.std(places)) * (size - 1)}  # fmt: skip
    return Judged(score=1 - place, told=told, error=error)
