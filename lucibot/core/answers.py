"""The answers that the paper asks a VLM for (section 3.3), with what was measured beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Span:
    """The part of a video in which the task is done."""

    first_contact: int
    """Frame where a hand first interacts with an object."""
    goal: int
    """Frame where the goal is achieved and, if that ever happens, hand and tool are out of the way."""
    reasons: dict[str, str]
    """What each rests on, one sentence each."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    first_contact: int
    """See `Span`."""
    goal: int
    """See `Span`."""
    contact_pairs: tuple[tuple[str, str], ...]
    """(object, target) pairs."""
    contact: np.ndarray
    """(K, pairs) bool: the two touch at this keyframe."""
    around_pairs: tuple[tuple[str, str], ...]
    """(target, thing) pairs; the thing stands still in the background."""
    around: np.ndarray
    """(pairs,) bool: in the goal frame the target goes around the thing, as a ring does."""
    reasons: dict[str, str]
    """What each answer rests on, one sentence each."""
