"""The embedder family: pictures as vectors whose products say how alike they are.

No stage asks it: a run is led by masks, depth and contacts. It is for comparisons, by `lucibot.embed`:
of a replay's film with the video, say, as image-similarity rewards have it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Embedder(Protocol):
    def embed(self, images: np.ndarray) -> np.ndarray:
        """(N, D) float32 unit vectors of images (N, H, W, 3) uint8 RGB, each by itself."""
        ...
