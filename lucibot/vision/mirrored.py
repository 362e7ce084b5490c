"""Where a clip turns and runs backwards: some tools lengthen clips that way."""

from __future__ import annotations

import numpy as np

STEPS = 12
"""Pairs of pictures that are compared for each turn, at most."""
LEAST_S = 0.7
"""How long the same must be seen backwards."""
SAME = 0.25
"""Mirrored pictures differ by at most this share of what moves meanwhile, wherever they do."""
MOVES = 8.0
"""Least change of a picture's most changed places that counts as motion, of 255."""
PLACES = 1 / 300
"""Share of a picture whose change is looked at: a thing that was moved and stays is this large."""


def turning_point(pictures: np.ndarray, rate: float) -> int | None:
    """The picture at which a clip turns and shows, backwards, what it has just shown; None if it
    does not turn.

    Nothing real goes back the same way to the pixel, and what was done remains. The mirrored part
    lasts to the end, or as long as what came before.

    Args:
        pictures: (n, h, w) uint8, small: a pixel is to average grain and coding away. Every picture
            of a file, for a clip resampled to another rate no longer mirrors exactly.
        rate: pictures a second.
    """
    small, count = pictures.astype(np.int16), len(pictures)
    least = max(round(LEAST_S * rate), 4)
    found: list[tuple[float, int]] = []
    for twice in range(2 * least, 2 * (count - 1 - least) + 1):
        # The turn lies on a picture, or between two equal ones.
        before, after = twice // 2, (twice + 1) // 2
        length = min(before, count - 1 - after)
        way = np.unique(np.linspace(0, length, STEPS).round().astype(int))
        past, future, here = small[before - way], small[after + way], small[before]
        moved = _most(future - here)
        ratio = _most(future - past) / moved if moved >= MOVES else np.inf
        if ratio < SAME:
            found.append((ratio, before))
        elif found:
            break
    # Next to the turn it is nearly as good: the best of the first that are good in a row.
    return min(found)[1] if found else None


def _most(difference: np.ndarray) -> float:
    """Mean over pictures (n, h, w) of the mean change of each one's most changed places."""
    flat = np.abs(difference).reshape(len(difference), -1)
    k = max(round(PLACES * flat.shape[1]), 1)
    return float(np.partition(flat, -k, axis=1)[:, -k:].mean())
