"""The way back: a video's frames once more, from the last one to where both ways have met."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lucibot.vision.spans import drop_short, fill_gaps

Told = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Of one frame: masks (N, H, W), hand (H, W), confidences (N,) and poses (N, 6)."""
AGREED_S = 0.3
"""The way back ends where it has agreed with the way there for so long in something that moves."""
ALIKE, APART = 0.9, 0.75
"""IoU of an object's two silhouettes from which on they agree, and under which they do not."""
SURER = 0.02
"""By how much more confident the way back has to be."""
STEADY = 3
"""Frames that a stretch of them has at least, and that may be missing in one."""


class Tracking(Protocol):
    """A tracker's state."""

    def step(self, frame: np.ndarray, k: int) -> Told: ...

    def silhouettes(self) -> dict[int, np.ndarray]: ...

    def moving(self) -> set[int]: ...


class WayBack:
    """The same frames looked at from the last one back, as long as they tell of something else.

    What turns fast in a hand is lost there, and found again where it lies in the open; from there back
    it is not lost. Where both ways meet in something that moves, nothing is left to be told.
    """

    def __init__(
        self,
        state: Tracking,
        shown: list[dict[int, np.ndarray]],
        confidence: np.ndarray,
        enough: int,
    ):
        """`shown` (T) and `confidence` (T, N) are those of the way there; both ways have met when `enough`
        frames in which something moves look alike."""
        self._state, self._shown, self._confidence, self._enough = state, shown, confidence, enough
        self._alike, self._astray = 0, False
        self._told: dict[int, Told] = {}
        self._gain: dict[int, float] = {}

    @property
    def met(self) -> bool:
        return self._alike >= self._enough

    def step(self, frame: np.ndarray, k: int) -> None:
        told = self._state.step(frame, k)
        now = self._state.silhouettes()
        same = {i: _overlap(now[i], there) for i, there in self._shown[k].items()}
        if min(same.values(), default=1.0) < ALIKE:
            self._alike = 0
        elif self._state.moving():
            self._alike += 1
        apart = [i for i, overlap in same.items() if overlap < APART]
        self._astray = bool(apart)
        if apart:
            self._told[k] = told
            self._gain[k] = min(float(told[2][i] - self._confidence[k, i]) for i in apart)

    def better(self) -> dict[int, Told]:
        """What is told of frames in stretches in which this way is the surer one."""
        if self._astray:
            return {}
        surer = np.array([self._gain.get(k, -np.inf) for k in range(len(self._shown))]) > SURER
        steady = drop_short(fill_gaps(surer, STEADY), STEADY)
        return {k: told for k, told in self._told.items() if steady[k]}


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))
