"""By the picture: the goal relations of the task, measured as the embedded verifier measures them in
videos, on the last frame of the replay as it was filmed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.evaluate.judges import Judged, Verdicts
from lucibot.evaluate.outcomes import Outcome
from lucibot.providers.verifier import PixelVerifier, goals
from lucibot.vision.regions import classify_task

HOLDS = 0.8
"""Share of a relation from which on it counts as reached, as the verifier has it."""


class PictureJudge:
    """The weakest goal relation's share, in [0, 1], of each outcome."""

    def __init__(self, config: PixelVerifier | None = None):
        self.config = config or PixelVerifier()

    def judge(self, outcomes: Sequence[Outcome]) -> Verdicts:
        return Verdicts(judge="picture", each=tuple(self._one(o) for o in outcomes))

    def _one(self, outcome: Outcome) -> Judged:
        task = outcome.task
        if not task.spec.goal:
            return Judged(error=f"the task {task.name!r} names no goal relation")
        view, film = as_filmed(outcome)
        regions = classify_task(
            task, view, film, width=self.config.width, samples_per_s=self.config.samples_per_s
        )
        shares = {}
        for kind, relation in goals.relations(task):
            held = goals.measure(task, view, film, regions, kind, relation)
            name = f"{kind} {relation.object}"
            alike = sum(n.startswith(f"{name} (") or n == name for n in shares)
            shares[f"{name} ({alike + 1})" if alike else name] = float(held[-1])
        hidden = [n for n, v in shares.items() if math.isnan(v)]
        if hidden:
            return Judged(
                told=shares, error=f"what {hidden[0]!r} speaks of is hidden in the last frame"
            )
        worst = min(shares.values())
        return Judged(score=worst, success=worst >= HOLDS, told=shares)


def as_filmed(outcome: Outcome) -> tuple[SceneView, Video]:
    """The scene and the replay through the simulation's camera, which draws otherwise than what made
    the first frame that the video began with: here the film's own first frame is the first frame.
    The last frame is added as it was kept, without a coder's loss."""
    view, film = outcome.view, outcome.film
    h, w = view.labels.shape

    def sized(frame: np.ndarray) -> np.ndarray:
        if frame.shape[:2] == (h, w):
            return frame
        return cv2.resize(frame, (w, h), interpolation=cv2.INTER_CUBIC)

    frames = np.stack([sized(f) for f in (*film.frames, outcome.last_frame)])
    scene = dataclasses.replace(view, first_frame=frames[0], background_frame=None)
    return scene, Video(frames=frames, fps=film.fps)
