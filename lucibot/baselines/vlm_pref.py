"""VLM-Pref: rollouts ranked by pairwise preferences (paper, section 4.1, after RL-VLM-F)."""

from __future__ import annotations

import io
import json
from typing import Literal, Protocol

import numpy as np
from pydantic import BaseModel, Field

from lucibot.baselines.config import NoisyPreference, VlmPreference, VlmPrefObjective
from lucibot.baselines.judge import Given
from lucibot.baselines.picture import Painter
from lucibot.baselines.ranking import Ranking
from lucibot.core.arrays import read_npz
from lucibot.objective.evaluation import Evaluation
from lucibot.providers.asking import Text, told, words

KEPT = "ranking.npz"
"""Everything that was compared, so that a stopped search goes on and the replay finds its own."""


class Preferred(BaseModel):
    difference: Text = Field(
        description="In what the two pictures differ, as far as the task goes."
    )
    nearer: Literal["first", "second"] = Field(
        description="Where the task is nearer to being done."
    )


class Preference(Protocol):
    def better(self, a: int, b: int) -> bool:
        """Whether sample a is better than sample b."""
        ...


class VlmPref:
    """The `Judge` behind `lucibot.baselines.config.VlmPrefObjective`."""

    def __init__(self, config: VlmPrefObjective, given: Given):
        self.weights = {"negative_score": 1.0}
        self._given, self._path = given, given.folder / KEPT
        self._painter = Painter(given.view, given.supervision.camera)
        self.pictures: list[np.ndarray] = []
        self.hidden: list[float] = []
        """How like the video each sample is; only a noisy preference knows it."""
        self._ask = _preference(config.preference, self)
        self.ranking = Ranking(better=self._ask.better)
        self._load()

    def terms(self, rollouts: Evaluation) -> dict[str, np.ndarray]:
        """See `Judge`. A picture that was ranked before has the score that it had; a sample that
        was compared and not told, as the search was stopped, is compared again.

        Raises:
            RunFailed: the judge does not answer with a preference.
        """
        pictures = self._painter.paint(rollouts.shown["label"], rollouts.shown["depth"])
        before = {p.tobytes(): i for i, p in enumerate(self.pictures)}
        fresh = [i for i, p in enumerate(pictures) if p.tobytes() not in before]
        hidden = _likeness(rollouts)
        kept = len(self.pictures)
        self.pictures += [pictures[i] for i in fresh]
        self.hidden += [float(hidden[i]) for i in fresh]
        if fresh:
            self._given.progress(f"comparing {len(fresh)} rollouts by pairs")
            try:
                # Of its own for each batch, so that a search that goes on draws the same.
                self.ranking.add(len(fresh), np.random.default_rng([self._given.seed, kept]))
            except BaseException:
                del self.pictures[kept:], self.hidden[kept:], self.ranking.scores[kept:]
                self.ranking.order = [s for s in self.ranking.order if s < kept]
                raise
            self._save()
        place = before | {pictures[i].tobytes(): kept + n for n, i in enumerate(fresh)}
        scores = [self.ranking.scores[place[p.tobytes()]] for p in pictures]
        return {"negative_score": -np.asarray(scores, np.float32)}

    def _save(self) -> None:
        archive = io.BytesIO()
        np.savez_compressed(
            archive, pictures=np.stack(self.pictures), hidden=self.hidden, order=self.ranking.order,
            scores=self.ranking.scores, meta=np.array(json.dumps({"asked": self.ranking.asked})),
        )  # fmt: skip
        part = self._path.with_name(f".{KEPT}")
        part.write_bytes(archive.getvalue())
        part.replace(self._path)

    def _load(self) -> None:
        if not self._path.is_file():
            return
        with read_npz(self._path) as z:
            self.pictures, self.hidden = list(z["pictures"]), z["hidden"].tolist()
            self.ranking.order, self.ranking.scores = z["order"].tolist(), z["scores"].tolist()
            self.ranking.asked = json.loads(str(z["meta"]))["asked"]


class _Noisy:
    """Knows which is better, and errs in a set share of its answers, a pair always in the same way."""

    def __init__(self, config: NoisyPreference, samples: VlmPref, seed: int):
        self._config, self._samples, self._seed = config, samples, seed

    def better(self, a: int, b: int) -> bool:
        first, second = sorted((a, b))
        errs = (
            np.random.default_rng([self._seed, first, second]).uniform() < self._config.error_rate
        )
        hidden = self._samples.hidden
        return (hidden[a] > hidden[b]) != errs


class _Asked:
    """Asks a vision-language model about two pictures."""

    def __init__(self, config: VlmPreference, samples: VlmPref, given: Given):
        self._config, self._samples, self._given = config, samples, given
        self._question = told(given.task)

    def better(self, a: int, b: int) -> bool:
        answer = self._given.services.vlm.ask(
            Preferred, model=self._config.model, call_site="preference",
            instructions=words(__file__, "vlm_pref.txt"), question=self._question,
            pictures=[self._samples.pictures[i] for i in (a, b)],
            captions=["The first picture:", "The second picture:"],
        )  # fmt: skip
        return answer.nearer == "first"


def _preference(config: VlmPreference | NoisyPreference, samples: VlmPref) -> Preference:
    given = samples._given
    if isinstance(config, NoisyPreference):
        return _Noisy(config, samples, given.seed)
    return _Asked(config, samples, given)


def _likeness(rollouts: Evaluation) -> np.ndarray:
    """(P,) of the terms that were scored beside, if any: what a noisy preference hides."""
    found = rollouts.loss
    return -np.nan_to_num(found.astype(float))
