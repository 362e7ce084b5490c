"""What the targets go around in the goal frame."""

from __future__ import annotations

import numpy as np

from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.task import Task
from lucibot.vision.around import Posts, around_pairs


def read_around(
    task: Task, view: SceneView, tracks: Tracks, goal: int
) -> tuple[tuple[tuple[str, str], ...], np.ndarray, dict[str, str]]:
    """`Answers.around_pairs` and `Answers.around`, by the majority of the frames about `goal`, and what
    that rests on."""
    pairs = around_pairs(task)
    posts = Posts(task, view.camera, {b for _, b in pairs})
    out, reasons = np.zeros(len(pairs), bool), {}
    for k, (a, b) in enumerate(pairs):
        masks = tracks.masks[max(0, goal - 2) : goal + 3, task.label(a) - 1]
        out[k] = np.mean([posts.goes_around(m, b) for m in masks]) > 0.5
        if out[k]:
            reasons[f"around {a}, {b}"] = (
                f"What is seen of {a} goes past {b} in front and on both sides, and closes behind it."
            )
    return pairs, out, reasons
