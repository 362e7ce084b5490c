"""Stretches of time in which something holds."""

from __future__ import annotations

import numpy as np


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Half-open intervals where (T,) `flags` is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def fill_gaps(flags: np.ndarray, longest: int) -> np.ndarray:
    """Closes gaps of at most `longest` frames between true runs."""
    out = flags.copy()
    for a, b in runs(~flags):
        if a > 0 and b < len(flags) and b - a <= longest:
            out[a:b] = True
    return out


def drop_short(flags: np.ndarray, shortest: int) -> np.ndarray:
    """Removes true runs shorter than `shortest` frames."""
    out = flags.copy()
    for a, b in runs(flags):
        if b - a < shortest:
            out[a:b] = False
    return out
