"""A picture by the colours and the directions of edges in a coarse grid of cells."""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.providers.embedder.config import ColourEmbedder

SIDE = 128
"""Of the square that a picture is brought to [pixels]."""
DIRECTIONS = 8
CONTRAST = 8.0
"""Lightness [of 255] that an even picture is taken to vary by, so that its noise is not blown up."""


class EmbedByColours:
    def __init__(self, config: ColourEmbedder):
        self.config = config

    def embed(self, images: np.ndarray) -> np.ndarray:
        """See `Embedder`. Exposure and contrast count for nothing, what is where does."""
        n = self.config.cells
        if len(images) == 0:
            return np.zeros((0, n * n * (3 + DIRECTIONS) + 1), np.float32)
        return np.stack([self._one(image) for image in images])

    def _one(self, image: np.ndarray) -> np.ndarray:
        n = self.config.cells
        small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
        light = (lab[..., 0] - lab[..., 0].mean()) / (lab[..., 0].std() + CONTRAST)
        colour = np.stack([light, (lab[..., 1] - 128) / 32, (lab[..., 2] - 128) / 32], -1)
        means = cv2.resize(colour, (n, n), interpolation=cv2.INTER_AREA)
        gx, gy = cv2.Sobel(light, cv2.CV_32F, 1, 0), cv2.Sobel(light, cv2.CV_32F, 0, 1)
        steep, turn = cv2.cartToPolar(gx, gy)
        # Which side of an edge is lighter does not matter.
        index = np.floor(turn / np.pi * DIRECTIONS).astype(int) % DIRECTIONS
        edges = np.stack(
            [cv2.resize(np.where(index == d, steep, 0), (n, n), interpolation=cv2.INTER_AREA)
             for d in range(DIRECTIONS)], -1,
        )  # fmt: skip
        # An even grey picture has neither colours nor edges, and is a unit vector all the same.
        whole = np.concatenate([_unit(means), _unit(edges), [0.05]])
        return (whole / np.linalg.norm(whole)).astype(np.float32)


def _unit(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1)
    return flat / (np.linalg.norm(flat) + 1e-3)
