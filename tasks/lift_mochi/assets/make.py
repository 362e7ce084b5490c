"""Makes fork.obj, the mochi, the storyboard's key meshes and the textures: `python make.py`.

fork.obj: one watertight mesh [m]. Object frame: x runs from the handle to the tips, y across, z up
from the table to the hollow side. The origin is the middle of the tines. Its four tines span x in
[-0.026, 0.026], the handle ends at x = -0.165. Tines are 4 mm thick, so that they part particles.
pink.obj, green.obj, brown.obj: flattened balls [m] of one size, their flat base centred on the
origin. Colours are stored as vertex colours (sRGB).
brown_keys.npz: the brown mochi at rest; with the fork in it; sagging on the raised fork. The last
two are in the fork's frame.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import trimesh

from lucibot.authoring.meshes import closed
from lucibot.authoring.textures import octaves

HERE = Path(__file__).resolve().parent

STEEL = (0.70, 0.71, 0.73)
COLORS = {"pink": (0.93, 0.64, 0.77), "green": (0.52, 0.86, 0.53), "brown": (0.45, 0.38, 0.26)}
WOOD = (0.265, 0.205, 0.165)
CONCRETE = (0.42, 0.42, 0.41)

TIP, ROOT, NECK, END = 0.026, -0.026, -0.054, -0.165
THICKNESS = 0.004
TINE, GAP = 0.0060, 0.0016
RADIUS, HEIGHT = 0.024, 0.041
STAB_DEG, HEADING_DEG = 45.0, 168.0


def fork() -> trimesh.Trimesh:
    """A grid of quads over stations along x and lines across; cells between tines are left out."""
    x = np.unique(np.concatenate([
        np.linspace(END, NECK, 26), np.linspace(NECK, ROOT, 14), np.linspace(ROOT, TIP, 22),
        [END + 0.0008, END + 0.0025, END + 0.005, TIP - 0.0015, ROOT + 0.0007, ROOT + 0.002],
    ]).round(5))  # fmt: skip
    # Twelve lines: two edges and a middle for each tine.
    pitch = TINE + GAP
    middles = (np.arange(4) - 1.5) * pitch
    lines = (middles[:, None] + np.array([-0.5, 0.0, 0.5]) * TINE).ravel()
    full = lines / lines[-1]
    y = np.empty((len(x), 12))
    for i, xi in enumerate(x):
        if xi >= ROOT:
            s = np.clip((xi - ROOT) / (TIP - ROOT), 0, 1)
            narrow = TINE * (1 - 0.45 * s**2)
            # Gaps end in a round: the tines are wider next to their root.
            near = np.clip((ROOT + 0.004 - xi) / 0.004, 0, 1)
            narrow += (GAP - 0.0004) * (1 - np.sqrt(1 - near**2))
            if xi > TIP - 0.004:
                narrow *= np.sqrt(np.clip(1 - ((xi - TIP + 0.004) / 0.0042) ** 2, 0.08, 1))
            y[i] = (middles[:, None] + np.array([-0.5, 0.0, 0.5]) * narrow).ravel()
        else:
            y[i] = full * half_width(xi)
    top, bottom = np.empty((len(x), 12, 3)), np.empty((len(x), 12, 3))
    for i, xi in enumerate(x):
        z, t = profile(xi), thickness(xi)
        if xi >= ROOT:
            edge = np.tile([0.55, 1.0, 0.55], 4)
        else:
            edge = np.clip(1 - 0.6 * np.abs(full) ** 3, 0, 1)
            # Across the head every tine fades into the plate.
            fade = np.clip((ROOT - xi) / 0.006, 0, 1)
            edge = fade * edge + (1 - fade) * np.tile([0.55, 1.0, 0.55], 4)
        # The head is hollow like a spoon.
        hollow = 0.0022 * np.exp(-(((xi - ROOT + 0.008) / 0.016) ** 2)) * np.abs(full) ** 2
        top[i] = np.stack([np.full(12, xi), y[i], z + hollow + 0.5 * t * edge], -1)
        bottom[i] = np.stack([np.full(12, xi), y[i], z + hollow - 0.5 * t * edge], -1)
    filled = np.ones((len(x) - 1, 11), bool)
    filled[x[:-1] >= ROOT - 1e-9, 2::3] = False
    points = np.concatenate([top.reshape(-1, 3), bottom.reshape(-1, 3)])
    faces = grid_solid(filled, len(x), 12)
    return closed(points, faces, np.tile(STEEL, (len(points), 1)))


def half_width(x: float) -> float:
    """Half width [m] of head, neck and handle."""
    at = [
        END,
        END + 0.002,
        END + 0.008,
        END + 0.03,
        END + 0.06,
        NECK - 0.008,
        NECK + 0.004,
        NECK + 0.014,
        ROOT,
    ]
    wide = [0.0030, 0.0056, 0.0082, 0.0080, 0.0058, 0.0036, 0.0046, 0.0112, 0.0135]
    return float(np.interp(x, at, wide))


def thickness(x: float) -> float:
    if x < NECK:
        return float(
            np.interp(x, [END, END + 0.004, END + 0.05, NECK], [0.0020, 0.0045, 0.0048, 0.0048])
        )
    return float(
        np.interp(x, [NECK, ROOT, TIP - 0.003, TIP], [0.0048, THICKNESS, THICKNESS, 0.0020])
    )


def profile(x: float) -> float:
    """Height [m] of the middle surface: hollow tines, a raised neck, a handle that comes down."""
    at = [END, END + 0.03, NECK - 0.02, NECK, ROOT, 0.0, TIP]
    high = [0.0010, 0.0040, 0.0120, 0.0105, 0.0015, 0.0, 0.0030]
    return float(np.interp(x, at, high))


def grid_solid(filled: np.ndarray, n: int, m: int) -> np.ndarray:
    """Faces of a solid over the filled cells (n - 1, m - 1) of a grid of n x m points; the top's
    points come first, the bottom's after them."""
    faces, under = [], n * m
    for i, j in zip(*np.nonzero(filled), strict=True):
        a, b, c, d = i * m + j, (i + 1) * m + j, (i + 1) * m + j + 1, i * m + j + 1
        faces += [[a, b, c], [a, c, d]]
        faces += [[under + a, under + c, under + b], [under + a, under + d, under + c]]
        for (p, q), (di, dj) in (
            ((a, b), (0, -1)),
            ((b, c), (1, 0)),
            ((c, d), (0, 1)),
            ((d, a), (-1, 0)),
        ):
            r, s = i + di, j + dj
            if not (0 <= r < filled.shape[0] and 0 <= s < filled.shape[1] and filled[r, s]):
                faces += [[p, under + p, under + q], [p, under + q, q]]
    return np.array(faces)


def mochi(color) -> trimesh.Trimesh:
    ball = trimesh.creation.icosphere(subdivisions=3, radius=1.0)
    p = np.asarray(ball.vertices)
    return closed(flattened(p), np.asarray(ball.faces), np.tile(color, (len(p), 1)))


def flattened(p: np.ndarray) -> np.ndarray:
    """Unit sphere to a soft ball on its base: the underside flat, the widest girth below half."""
    z = np.clip(p[:, 2], -0.80, None)
    z = (z + 0.80) / 1.80
    girth = 1 + 0.04 * np.cos(np.pi * np.clip(z, 0, 1))
    base = np.clip((-p[:, 2] - 0.80) / 0.2, 0, 1)
    return np.stack(
        [
            RADIUS * p[:, 0] * girth * (1 - 0.1 * base),
            RADIUS * p[:, 1] * girth * (1 - 0.1 * base),
            HEIGHT * z,
        ],
        -1,
    )


def brown_keys() -> tuple[np.ndarray, np.ndarray]:
    """Key meshes (3, V, 3) [m] of the brown mochi, and their faces."""
    rest = mochi(COLORS["brown"])
    v = np.asarray(rest.vertices)
    return np.stack([v, on_fork(v, sag=0.0), on_fork(v, sag=1.0)]), np.asarray(rest.faces)


def on_fork(v: np.ndarray, *, sag: float) -> np.ndarray:
    """The mochi in the frame of the fork that was stabbed into it with its tips down by `STAB_DEG`,
    heading by `HEADING_DEG`."""
    c, s = np.cos(np.deg2rad(HEADING_DEG)), np.sin(np.deg2rad(HEADING_DEG))
    p = (v - [0.0, 0.0, 0.43 * HEIGHT]) @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]).T
    c, s = np.cos(np.deg2rad(STAB_DEG)), np.sin(np.deg2rad(STAB_DEG))
    p = p @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]).T
    # The flesh gives way around the tines where they have gone in.
    mouth = np.exp(-((p[:, 2] / 0.007) ** 2) - (p[:, 1] / 0.016) ** 4)
    p[:, 0] += 0.005 * mouth * np.clip(-p[:, 0] / RADIUS, 0, 1)
    # What is not held up hangs: to the sides of the tines, and beyond their tips.
    beyond = np.clip(p[:, 0] - 0.010, 0, None) / RADIUS
    aside = np.clip(np.abs(p[:, 1]) - 0.012, 0, None) / RADIUS
    p[:, 2] -= sag * (0.0035 * beyond**2 + 0.003 * aside)
    return p + np.array([0.008, 0.0, 0.0])


def wood(rng: np.random.Generator, size: int = 1024, planks: int = 6) -> np.ndarray:
    """Dark walnut planks, the grain along u, sRGB (size, size, 3) in [0, 1].

    Too grey to be taken for skin, and too dark for the steel of the fork.
    """
    v = np.arange(size) / size * planks
    fibre = octaves((size, size), (96, 3), rng, 3)
    cloud = octaves((size, size), (10, 3), rng, 4)
    shade = 0.72 + 0.5 * cloud * (0.6 + 0.8 * fibre)
    shade *= (0.90 + 0.2 * rng.random(planks))[np.floor(v).astype(int)][:, None]
    joint = np.abs(v - np.round(v))[:, None] * size / planks
    shade *= 1 - 0.55 * np.exp(-((joint / 1.6) ** 2))
    warm = 0.03 * (octaves((size, size), (6, 2), rng, 3) - 0.5)
    rgb = shade[..., None] * np.array(WOOD) + warm[..., None] * np.array([1.0, 0.6, 0.4])
    return np.clip(rgb, 0, 1)


def concrete(rng: np.random.Generator, size: int = 768) -> np.ndarray:
    """Dark grey plaster with clouds, sRGB (size, size, 3) in [0, 1]."""
    shade = 0.9 + 0.35 * (octaves((size, size), (5, 5), rng, 6, 0.6) - 0.5)
    return np.clip(shade[..., None] * np.array(CONCRETE), 0, 1)


def main() -> None:
    meshes = {"fork": fork()} | {n: mochi(c) for n, c in COLORS.items()}
    for name, mesh in meshes.items():
        mesh.export(HERE / f"{name}.obj", digits=6)
        print(
            name,
            len(mesh.faces),
            "faces",
            mesh.bounds.round(4).tolist(),
            f"{mesh.volume * 1e6:.1f} cm3",
        )
    keys, faces = brown_keys()
    np.savez_compressed(
        HERE / "brown_keys.npz", vertices=keys.astype(np.float32), faces=faces.astype(np.int32)
    )
    images = {
        "wood": wood(np.random.default_rng(4)),
        "concrete": concrete(np.random.default_rng(8)),
    }
    for name, image in images.items():
        bgr = np.round(255 * image[..., ::-1]).astype(np.uint8)
        cv2.imwrite(str(HERE / f"{name}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 86])


if __name__ == "__main__":
    main()
