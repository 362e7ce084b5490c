"""Hands in other colours: drawn clips, the hand given another tone."""

from __future__ import annotations

import cv2
import numpy as np

TONES = {
    **{
        f"monk{i + 1:02d}": tone
        for i, tone in enumerate(
            "f6ede4 f3e7db f7ead0 eadaba d7bd96 a07e56 825c43 604134 3a312a 292420".split()
        )
    },
    "glove_blue": "2f6fd0", "glove_black": "1b1b1d", "glove_yellow": "e8c21a",
    "gripper_white": "e9e9e6", "gripper_grey": "8a8d90",
}  # fmt: skip
"""sRGB: the ten tones of the Monk scale, three gloves and two grippers."""
BRIGHT = 0.8
"""Quantile of the drawn hand's light that takes the tone as it is; the rest is shaded like it."""


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def encoded(light: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to sRGB."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def recoloured(frames: np.ndarray, hand: np.ndarray, tone: str) -> np.ndarray:
    """The frames (T, H, W, 3) uint8 with the hand (T, H, W) bool in another `tone`.

    Its light is multiplied in linear light, so that shading, noise and blur stay.
    """
    table = linear(np.arange(256) / 255.0).astype(np.float32)
    rgb = np.array([int(TONES[tone][k : k + 2], 16) for k in (0, 2, 4)]) / 255
    drawn = np.quantile(table[frames[::4][hand[::4]]], BRIGHT, axis=0)
    gain = (linear(rgb) / drawn).astype(np.float32)
    out = frames.copy()
    for t in np.flatnonzero(hand.any((1, 2))):
        soft = cv2.GaussianBlur(hand[t].astype(np.float32), (0, 0), 0.7)[..., None]
        light = table[frames[t]] * (1 + soft * (gain - 1))
        out[t] = np.where(
            soft > 0.01, np.round(255 * encoded(np.clip(light, 0, 1))), frames[t]
        )  # fmt: skip
    return out
