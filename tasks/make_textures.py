"""Makes the surfaces that tasks share: `make_textures.py FOLDER[:NAME,NAME...]...`

Each folder gets assets/NAME.jpg for each name, marble and plaster if none is given, so that a task
folder stays complete in itself. All are drawn from seeded noise and tile without a seam.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from lucibot.authoring.textures import octaves


def veins(shape, cells, rng, width: float) -> np.ndarray:
    """Thin branching lines (H, W) in [0, 1]: where warped noise crosses its mean."""
    h, w = shape
    field = octaves(shape, cells, rng, 3, 0.4)
    dy, dx = (55 * (octaves(shape, (6, 6), rng, 4, 0.55) - 0.5) for _ in range(2))
    y, x = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    wrapped = np.pad(field, 128, mode="wrap")
    field = cv2.remap(
        wrapped, (x + dx + 128).astype(np.float32), (y + dy + 128).astype(np.float32),
        cv2.INTER_LINEAR,
    )  # fmt: skip
    slope = np.hypot(*np.gradient(field)) + 1e-4
    distance = np.abs(field - 0.5) / slope
    strength = np.clip(2.4 * octaves(shape, (4, 4), rng, 2) - 0.75, 0, 1)
    thickness = width * (0.4 + 1.2 * octaves(shape, (9, 9), rng, 2))
    return strength * np.exp(-((distance / thickness) ** 2))


def marble(rng: np.random.Generator, size: int = 1024) -> np.ndarray:
    """Grey stone with dark veins, sRGB (size, size, 3) in [0, 1]."""
    shape = (size, size)
    clouds = octaves(shape, (3, 3), rng, 6, 0.55)
    grey = 0.50 + 0.16 * (clouds - 0.5)
    grey -= 0.27 * veins(shape, (2, 2), rng, 4.5)
    grey -= 0.12 * veins(shape, (4, 4), rng, 2.2)
    warm = 0.012 * (octaves(shape, (2, 2), rng, 3) - 0.5)
    return np.clip(np.stack([grey + warm, grey + 0.004, grey - warm], -1), 0, 1)


def plaster(rng: np.random.Generator, size: int = 512) -> np.ndarray:
    """Rough cast lit from the upper left, sRGB (size, size, 3) in [0, 1]."""
    height = octaves((size, size), (64, 64), rng, 2, 0.6)
    height = np.maximum(height, 0.42) + 0.15 * octaves((size, size), (20, 20), rng, 2)
    padded = np.pad(height, 1, mode="wrap")
    slope = padded[1:-1, 2:] - padded[1:-1, :-2] + padded[2:, 1:-1] - padded[:-2, 1:-1]
    grey = 0.88 - 0.85 * slope
    return np.repeat(np.clip(grey, 0.40, 0.99)[..., None], 3, -1)


def rough_wall(rng: np.random.Generator) -> np.ndarray:
    """The same rough cast in grey, sRGB (512, 512, 3) in [0, 1]."""
    return plaster(rng) * np.array([0.66, 0.66, 0.65])


def floor_tiles(rng: np.random.Generator, size: int = 1024) -> np.ndarray:
    """A floor of four by two tiles of grey wood with dark joints, sRGB (size, size, 3) in [0, 1]."""
    shape = (size, size)
    rows, columns = 2, 4
    grain = octaves(shape, (4, 40), rng, 3, 0.6) - 0.5
    cloud = octaves(shape, (5, 6), rng, 4, 0.55) - 0.5
    y, x = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    tone = rng.normal(0, 0.025, (rows, columns))[y * rows // size, x * columns // size]
    grey = 0.47 + 0.10 * grain + 0.16 * cloud + tone
    edge = np.minimum(
        np.minimum(x % (size // columns), -x % (size // columns)),
        np.minimum(y % (size // rows), -y % (size // rows)),
    )
    grey = grey - 0.22 * np.exp(-((edge / 2.2) ** 2))
    return np.clip(grey[..., None] * np.array([1.0, 0.985, 0.95]), 0, 1)


def oak(rng: np.random.Generator, size: int = 512) -> np.ndarray:
    """Light yellow wood, the grain along u, sRGB (size, size, 3) in [0, 1]."""
    shape = (size, size)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * 9 * octaves(shape, (5, 2), rng, 3))
    fibre = octaves(shape, (128, 4), rng, 2)
    shade = 0.90 + 0.06 * rings**3 + 0.16 * (fibre - 0.5)
    return np.clip(shade[..., None] * np.array([0.82, 0.64, 0.36]), 0, 1)


TEXTURES = {
    "marble": (marble, 22), "plaster": (plaster, 5), "rough_wall": (rough_wall, 5),
    "floor_tiles": (floor_tiles, 8), "oak": (oak, 4),
}  # fmt: skip
"""Name -> what draws it, and its seed."""


def main(arguments: list[str]) -> None:
    for argument in arguments:
        folder, _, names = argument.partition(":")
        for name in names.split(",") if names else ("marble", "plaster"):
            draw, seed = TEXTURES[name]
            path = Path(folder) / "assets" / f"{name}.jpg"
            bgr = np.round(255 * draw(np.random.default_rng(seed))[..., ::-1]).astype(np.uint8)
            cv2.imwrite(str(path), bgr, [cv2.IMWRITE_JPEG_QUALITY, 82])


if __name__ == "__main__":
    main(sys.argv[1:])
