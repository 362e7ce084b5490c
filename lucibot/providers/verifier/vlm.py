"""The paper's rubric (section 3.2) as a vision-language model gives it, with the embedded judge beside.

The model sees the scene and some frames; the embedded judge, which costs nothing, measures the same
video meanwhile. Both verdicts are kept.
"""

from __future__ import annotations

import dataclasses

from pydantic import BaseModel, Field

from lucibot.core.errors import RunFailed
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.providers.asking import Later, Text, captions, evenly, told, words
from lucibot.providers.verifier.base import MOST, Opinion, Verdict
from lucibot.providers.verifier.config import VlmVerifier
from lucibot.services import Services
from lucibot.task import Task


class Said(BaseModel):
    """A reason comes before what rests on it: so models think first."""

    seen: Text = Field(description="What happens, step by step.")
    new_object_reason: str = Field(
        description="What is new and in which frames, or that nothing is."
    )
    new_object: bool = Field(description="Whether an object appears that was not there at first.")
    match_reason: Text
    match: float = Field(ge=2, le=6)
    motion_reason: Text
    motion: float = Field(ge=1, le=3)
    goal_reason: Text
    goal: float = Field(ge=2, le=6)


class VlmJudge:
    def __init__(self, config: VlmVerifier, services: Services):
        self.config, self.vlm = config, services.vlm
        self._beside = config.beside.create(services)

    def judge(self, task: Task, view: SceneView, video: Video) -> Verdict:
        """See `Verifier`.

        Raises:
            RunFailed: the model gives no verdict, and `fall_back` is off.
        """
        asked = Later(lambda: self._ask(task, view, video))
        measured = self._beside.judge(task, view, video)
        try:
            verdict = self._verdict(asked.result(), measured)
        except RunFailed as e:
            if not self.config.fall_back:
                raise
            why = f"the model gave no verdict ({e}): this one is measured"
            return dataclasses.replace(measured, reasons=(why, *measured.reasons))
        return _stricter(verdict, measured) if self.config.both else verdict

    def _ask(self, task: Task, view: SceneView, video: Video) -> Said:
        most = min(self.config.frames, max(self.vlm.config.most_pictures - 1, 1))
        frames = evenly(0, len(video) - 1, most)
        question = told(task)
        if task.spec.hands != "expected":
            question += f"\n{words(__file__, f'vlm_{task.spec.hands}.txt')}"
        return self.vlm.ask(
            Said, model=self.config.model, call_site="judge", instructions=words(__file__, "vlm.txt"),
            question=question, pictures=[view.first_frame, *video.frames[frames]],
            captions=["The scene before anything happens:", *captions(video, frames)],
        )  # fmt: skip

    def _verdict(self, said: Said, measured: Verdict) -> Verdict:
        points = {n: getattr(said, n) for n in MOST}
        reasons = [said.new_object_reason] if said.new_object else []
        reasons += [getattr(said, f"{n}_reason") for n in MOST if points[n] < MOST[n]]
        evidence = {
            n: getattr(said, n) for n in Said.model_fields if n not in (*MOST, "new_object")
        }
        shown = [dataclasses.replace(s, words=f"measured: {s.words}") for s in measured.shown]
        return Verdict(
            by=f"vlm {self.config.model}", **points, new_object=said.new_object,
            reasons=tuple(reasons),
            # Models give whole points: of videos that have the same the measured ones decide.
            doubt=sum(MOST.values()) - measured.total + measured.doubt,
            evidence=evidence, shown=tuple(shown), beside=measured.opinion(),
        )  # fmt: skip


def _stricter(verdict: Verdict, measured: Opinion) -> Verdict:
    """Of each criterion the lower points."""
    added = tuple(f"measured: {r}" for r in measured.reasons)
    return dataclasses.replace(
        verdict, **{n: min(getattr(verdict, n), getattr(measured, n)) for n in MOST},
        new_object=verdict.new_object or measured.new_object, reasons=(*verdict.reasons, *added),
    )  # fmt: skip
