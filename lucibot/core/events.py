"""What happens when in a video, measured frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Events:
    """Of T frames, N objects and A actuators in task order."""

    touched: np.ndarray
    """(T, N) bool: a hand lies on or beside the object; of a rigid one from grip to release."""
    moving: np.ndarray
    """(T, N) bool: the object moves or changes in the picture."""
    held: np.ndarray
    """(T, A) bool: a hand holds (moves or has not yet released) the actuator."""
    contact_pairs: tuple[tuple[str, str], ...]
    """(object, target) pairs."""
    contact: np.ndarray
    """(T, pairs) bool: the surfaces of the two, as far as they are known, touch in this frame."""
