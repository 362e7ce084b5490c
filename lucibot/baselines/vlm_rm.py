"""VLM-RMs: CLIP as a zero-shot reward model (Rocamonde et al., 2023), as the paper applies it (section
4.1): the final picture is rendered and its reward computed from CLIP's features.

With unit vectors s of the picture, g of the goal's text and b of the baseline's, and L the line through
b and g, the goal-baseline regularised reward is

    R = 1 - 1/2 || alpha proj_L(s) + (1 - alpha) s - g ||^2,

which drops what differs between pictures but does not lie between "nothing done" and "done". With alpha
0 it is the cosine of s and g.
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.baselines.config import VlmRmObjective
from lucibot.baselines.judge import Given
from lucibot.baselines.picture import Painter
from lucibot.objective.evaluation import Evaluation
from lucibot.providers.asking import listed
from lucibot.task import Task


class VlmRm:
    """The `Judge` behind `lucibot.baselines.config.VlmRmObjective`."""

    def __init__(self, config: VlmRmObjective, given: Given):
        """
        Raises:
            UserError: a package or the checkpoint is not there.
        """
        self.weights = {"negative_reward": 1.0}
        self._alpha = config.alpha
        self._painter = Painter(given.view, given.supervision.camera)
        self._embedder = config.embedder.create()
        texts = (config.goal or goal_text(given.task), config.baseline or baseline_text(given.task))
        self._goal, self._baseline = self._embedder.embed_texts(texts)

    def terms(self, rollouts: Evaluation) -> dict[str, np.ndarray]:
        """See `Judge`."""
        pictures = self._painter.paint(rollouts.shown["label"], rollouts.shown["depth"])
        states = self._embedder.embed(squared(pictures))
        reward = regularised_reward(states, self._goal, self._baseline, self._alpha)
        return {"negative_reward": -reward.astype(np.float32)}


def squared(pictures: np.ndarray) -> np.ndarray:
    """Pictures (P, H, W, 3) squeezed to squares: CLIP would cut off what is at their sides."""
    side = min(pictures.shape[1:3])
    return np.stack(
        [cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in pictures]
    )  # fmt: skip


def regularised_reward(
    states: np.ndarray, goal: np.ndarray, baseline: np.ndarray, alpha: float
) -> np.ndarray:
    """(P,) of unit vectors (P, D), (D,) and (D,)."""
    direction = goal - baseline
    length = float(direction @ direction)
    along = (states - baseline) @ direction / length if length > 0 else np.zeros(len(states))
    projected = baseline + along[:, None] * direction
    off = alpha * projected + (1 - alpha) * states - goal
    return 1 - (off**2).sum(-1) / 2


def goal_text(task: Task) -> str:
    """What is to be done, in the words that the task has."""
    return " ".join(task.instruction.split())


def baseline_text(task: Task) -> str:
    """The scene in which nothing has been done."""
    return f"{listed([o.name for o in task.objects], 'objects')} on a table"
