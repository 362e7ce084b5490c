"""Which of many points are kept: the one rule by which every cloud is thinned."""

from __future__ import annotations

import numpy as np


def even_ranks(count: int, most: int) -> np.ndarray:
    """Ranks (min(count, most),) int64, increasing, of the points that are kept of `count` in a row.

    Point i of m that are kept is number floor(i * count / m): their number never jumps with `count`,
    no stretch of the row is left out, and nothing is drawn by lot.
    """
    kept = min(count, most)
    return np.arange(kept, dtype=np.int64) * count // max(kept, 1)
