"""Answers of a vision-language model (paper, section 3.3), with the embedded ones beside.

First contact and goal are found coarse to fine: among frames of the whole video, then among those
around what was found. Contacts are asked for at the keyframes, as pairs alone: where objects touch,
models tell badly. The measured answers cost nothing and are always read as well.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, Field, create_model, model_validator

from lucibot.core.answers import Contacts, Span
from lucibot.core.errors import RunFailed
from lucibot.core.events import Events
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.answerer.config import VlmAnswerer
from lucibot.providers.answerer.sheets import sheets
from lucibot.providers.asking import Later, Text, evenly, told, words
from lucibot.services import Services
from lucibot.task import Task

T = TypeVar("T", Span, Contacts)
A = TypeVar("A", bound=BaseModel)


class AnswerByVlm:
    def __init__(self, config: VlmAnswerer, services: Services):
        self.config, self.vlm = config, services.vlm
        self.by = f"vlm {config.model}"
        self._beside = config.beside.create(services)

    def span(
        self, task: Task, view: SceneView, video: Video, tracks: Tracks, events: Events
    ) -> Span:
        """See `Answerer`.

        Raises:
            RunFailed: the model gives no answer, and `fall_back` is off.
        """
        measured = self._beside.span(task, view, video, tracks, events)
        return self._or_measured(lambda: self._span(task, video), measured)

    def contact(
        self, task: Task, view: SceneView, video: Video, tracks: Tracks, events: Events,
        keyframes: np.ndarray,
    ) -> Contacts:  # fmt: skip
        """See `Answerer`.

        Raises:
            RunFailed: the model gives no answer, and `fall_back` is off.
        """
        measured = self._beside.contact(task, view, video, tracks, events, keyframes)
        if not events.contact_pairs:
            return measured
        return self._or_measured(
            lambda: self._contact(task, view, video, events.contact_pairs, keyframes), measured
        )

    def _or_measured(self, asked: Callable[[], T], measured: T) -> T:
        try:
            return dataclasses.replace(asked(), by=self.by, beside=measured)
        except RunFailed as e:
            if not self.config.fall_back:
                raise RunFailed(
                    f"{e}; measured answers stand in with --perceive.answerer.fall-back yes"
                ) from None
            why = f"the model gave no answer ({e}): this one is measured"
            reasons = {q: f"{text} ({why})" for q, text in measured.reasons.items()}
            return dataclasses.replace(measured, reasons=reasons, notes=(why,))

    def _span(self, task: Task, video: Video) -> Span:
        last, most = len(video) - 1, self.config.frames
        shown = evenly(0, last, most)
        coarse = self._look(
            _coarse(shown), "span", task, video, shown, hands=task.spec.hands, site="span"
        )
        for name in ("first_contact", "goal"):
            if getattr(coarse, name) is None:
                raise RunFailed(
                    f"span ({self.config.model}): it finds no {name.replace('_', ' ')} in this video: "
                    f"{getattr(coarse, f'{name}_reason')}"
                )
        reasons = {n: getattr(coarse, f"{n}_reason") for n in ("first_contact", "goal")}

        def finer(what: str, found: int, least: int) -> int:
            """Within the step before the frame that was found."""
            begin = max(int(shown[max(np.searchsorted(shown, found) - 1, 0)]), least)
            among = evenly(begin, max(found, begin), most)
            if len(among) == 1:
                return int(among[0])
            said = self._look(
                _finer(among), what, task, video, among, hands=task.spec.hands, site=f"span: {what}"
            )
            reasons[what] = said.reason
            return said.frame

        first = finer("first_contact", coarse.first_contact, 0)
        if first >= last:
            raise RunFailed(
                f"span ({self.config.model}): it puts the first contact at the end of the video"
            )
        goal = finer("goal", max(coarse.goal, first + 1), first + 1)
        reasons = {n: f"By {self.by}: {text}" for n, text in reasons.items()}
        return Span(first_contact=first, goal=goal, reasons=reasons)

    def _look(
        self, answer: type[A], what: str, task: Task, video: Video, shown: np.ndarray, *, hands: str,
        site: str,
    ) -> A:  # fmt: skip
        """An answer about numbered frames."""
        question = told(task)
        if hands != "expected" and what != "goal":
            question += f"\n{words(__file__, f'vlm_{hands}.txt')}"
        question += f"\nFrames shown: {', '.join(map(str, shown))} of 0 to {len(video) - 1}."
        a_sheet = max(self.config.a_sheet, -(-len(shown) // self.vlm.config.most_pictures))
        return self.vlm.ask(
            answer, model=self.config.model, call_site=site,
            instructions=words(__file__, f"vlm_{what}.txt"), question=question,
            pictures=sheets(
                video.frames[shown], shown, a_sheet=a_sheet, tile_px=self.config.tile_px
            ),
        )  # fmt: skip

    def _contact(self, task, view: SceneView, video: Video, pairs, keyframes) -> Contacts:
        c = self.config
        most, count = self.vlm.config.most_pictures, len(keyframes)
        batches = np.array_split(np.arange(count), c.calls_for(count, most))
        names = [f"{a} and {b}" for a, b in pairs]

        def ask(batch: np.ndarray) -> dict[int, Any]:
            frames = [int(keyframes[k]) for k in batch]
            question = f"{told(task)}\nPairs: {'; '.join(names)}.\nFrames: {frames}."
            pictures = [view.first_frame, *video.frames[frames]]
            captions = ["The scene at first:", *(f"Frame {t}:" for t in frames)]
            # Where one picture alone is allowed, it is the frame.
            said = self.vlm.ask(
                _touching(frames, names), model=c.model, call_site="contacts",
                instructions=words(__file__, "vlm_contact.txt"), question=question,
                pictures=pictures[-most:], captions=captions[-most:],
            )  # fmt: skip
            return {int(k): at for k, at in zip(batch, _in_order(said, frames), strict=True)}

        asked = [Later(functools.partial(ask, batch)) for batch in batches]
        answers = {k: at for one in asked for k, at in one.result().items()}
        contact = np.array(
            [[name in answers[k].touching for name in names] for k in range(len(keyframes))]
        )
        reasons = {}
        for (a, b), seen in zip(pairs, contact.T, strict=True):
            at = [f"keyframe {k}: {answers[k].seen.rstrip('. ')}." for k in np.flatnonzero(seen)]
            reasons[f"contact {a}, {b}"] = (
                f"By {self.by}: {' '.join(at)}" if at else f"By {self.by}: at no keyframe."
            )
        return Contacts(contact=contact, reasons=reasons)


def _coarse(shown: np.ndarray) -> type[BaseModel]:
    number = Literal[tuple(int(t) for t in shown)]

    class Found(BaseModel):
        seen: Text = Field(description="What happens, step by step.")
        first_contact_reason: str
        first_contact: number | None
        goal_reason: str
        goal: number | None

        @model_validator(mode="after")
        def _in_order(self):
            both = self.first_contact is not None and self.goal is not None
            if both and self.goal < self.first_contact:
                raise ValueError("the goal cannot be reached before the first contact")
            return self

    return Found


def _finer(shown: np.ndarray) -> type[BaseModel]:
    number = Literal[tuple(int(t) for t in shown)]
    return create_model(
        "Moment", reason=(Text, ...), frame=(number, ...)
    )  # fmt: skip


def _touching(frames: list[int], names: list[str]) -> type[BaseModel]:
    """The answer for some frames: of each, what is seen and which pairs touch."""

    class Frame(BaseModel):
        frame: Literal[tuple(frames)]
        seen: Text = Field(description="Where the objects are to each other.")
        touching: list[Literal[tuple(names)]]

    class Touching(BaseModel):
        frames: list[Frame]

        @model_validator(mode="after")
        def _all(self):
            given = [f.frame for f in self.frames]
            if sorted(given) != sorted(frames):
                raise ValueError(
                    f"wanted is one entry for each of the frames {frames}, got {given}"
                )
            return self

    return Touching


def _in_order(said: Any, frames: list[int]) -> list[Any]:
    by_frame = {f.frame: f for f in said.frames}
    return [by_frame[t] for t in frames]
