"""What happens when in a video: the answers that the paper asks a VLM for (section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Answers:
    first_contact: int
    """Frame where a hand first interacts with an object."""
    goal: int
    """Frame where the goal is achieved and, if that ever happens, hand and tool are out of the way."""
    held: np.ndarray
    """(T, A) bool: a hand holds (moves or has not yet released) the actuator."""
    contact_pairs: tuple[tuple[str, str], ...]
    """(object, target) pairs."""
    contact: np.ndarray
    """(T, pairs) bool: the two touch in this frame."""
    around_pairs: tuple[tuple[str, str], ...]
    """(target, thing) pairs; the thing stands still in the background."""
    around: np.ndarray
    """(pairs,) bool: in the goal frame the target goes around the thing, as a ring does."""
    reasons: dict[str, str]
    """What each answer rests on, one sentence each."""
