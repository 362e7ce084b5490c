"""VQA score (paper, section 4): how probable a model's "yes" is to "does this picture show that?".

Where the server says how probable tokens are, that of "yes" as the answer's first token is read; else
the model votes several times, and the share of its "yes" counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from pydantic import BaseModel

from lucibot.core.errors import RunFailed, UserError
from lucibot.evaluate.config import EvaluateConfig
from lucibot.evaluate.judges import Judged, Verdicts
from lucibot.evaluate.outcomes import Outcome
from lucibot.providers.asking import words
from lucibot.services import Services

UNDERSTOOD = 0.5
"""Least probability of "yes" and "no" together: below, the model is about to say something else."""


class Vote(BaseModel):
    answer: Literal["yes", "no"]


class VqaJudge:
    """The score is P("yes") in [0, 1] of each outcome's last frame."""

    def __init__(self, config: EvaluateConfig, services: Services):
        if config.model is None:
            raise UserError("the judge vqa asks a model: name it with --model")
        self.config, self.vlm = config, services.vlm

    def judge(self, outcomes: Sequence[Outcome]) -> Verdicts:
        with ThreadPoolExecutor(self.vlm.config.at_once) as pool:
            each = tuple(pool.map(self._one, outcomes))
        by = {j.told["by"] for j in each if "by" in j.told}
        facts = {"model": self.config.model, "by": " and ".join(sorted(by)),
                 "unanswered": sum(bool(j.error) for j in each)}  # fmt: skip
        return Verdicts(judge="vqa", each=each, facts=facts)

    def _one(self, outcome: Outcome) -> Judged:
        try:
            return self._by_tokens(outcome) or self._by_votes(outcome)
        except RunFailed as e:
            return Judged(error=str(e))

    def _asked(self, outcome: Outcome) -> dict:
        instruction = " ".join(outcome.task.instruction.split())
        return {
            "model": self.config.model, "call_site": "vqa", "instructions": words(__file__, "vqa.txt"),
            "question": f'Does this picture show the end of the following task, fully done: "{instruction}"? '
            "Answer yes or no.",
            "pictures": [outcome.last_frame],
        }  # fmt: skip

    def _by_tokens(self, outcome: Outcome) -> Judged | None:
        if not self.config.probabilities:
            return None
        found = self.vlm.first_token(**self._asked(outcome))
        if found is None:
            return None
        yes, no = (sum(p for t, p in found.items() if _word(t) == w) for w in ("yes", "no"))
        if yes + no < UNDERSTOOD:
            said = max(found, key=found.get)
            raise RunFailed(
                f"vqa ({self.config.model}): it begins to answer {said!r}, neither yes nor no; a model that "
                "thinks first votes with --probabilities no"
            )
        return Judged(
            score=yes, success=yes > no, told={"by": "probabilities", "yes": yes, "no": no}
        )

    def _by_votes(self, outcome: Outcome) -> Judged:
        votes = [
            self.vlm.ask(Vote, **self._asked(outcome), again=k).answer == "yes"
            for k in range(self.config.votes)
        ]
        share = sum(votes) / len(votes)
        return Judged(score=share, success=share > 0.5, told={"by": "votes", "votes": len(votes)})


def _word(token: str) -> str:
    return token.strip("\u0120\u2581 \n\t.,!\"'*").lower()
