"""The embedder family: pictures as vectors whose products say how alike they are.

A run is led by masks, depth and contacts, and asks none. It is for comparisons: by `lucibot.embed`, of a
replay's film with the video, say, and by the objective `vlm-rm`, which takes CLIP alone.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Embedder(Protocol):
    def embed(self, images: np.ndarray) -> np.ndarray:
        """(N, D) float32 unit vectors of images (N, H, W, 3) uint8 RGB, each by itself."""
        ...
