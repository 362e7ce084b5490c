"""Makes knife.obj, dough.obj and the textures of this folder: `python make.py`.

knife.obj: one watertight mesh [m]. Object frame: x runs from the handle to the tip, z from the
cutting edge to the spine, y through the blade. The origin is the middle of the cutting edge, so the
blade spans x in [-0.08, 0.08]. The edge lies at z = 0 and curves up to the tip from x = 0.03 on;
the spine lies at z = 0.045. The handle spans x in [-0.20, -0.08], z in [0.02, 0.045].
dough.obj: a block with rounded edges [m], 0.12 x 0.06 x 0.045, its base centred on the origin.
Colours are stored as vertex colours (sRGB).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import trimesh

from lucibot.authoring.meshes import closed, loft

HERE = Path(__file__).resolve().parent

STEEL = (0.66, 0.67, 0.69)
GROUND_EDGE = (0.80, 0.81, 0.83)
HANDLE = (0.045, 0.045, 0.05)
RIVET = (0.74, 0.74, 0.76)
DOUGH = (0.93, 0.84, 0.77)
BEECH = (0.80, 0.55, 0.27)
MAHOGANY = (0.36, 0.19, 0.12)

BLADE = 0.16
BLADE_HEIGHT = 0.045
SPINE_HALF = 0.004
EDGE_HALF = 0.0002
HANDLE_LENGTH = 0.118
RIVETS_X = (-0.103, -0.138, -0.178)
RIVET_RADIUS = 0.0026


def blade_ring(x: float, t: np.ndarray) -> np.ndarray:
    """Half section of the blade at x: rows t in [0, 1] from edge to spine, as (y, z)."""
    u = np.clip((x + BLADE / 2) / BLADE, 0, 1)
    edge = BLADE_HEIGHT * 0.78 * np.clip((u - 0.70) / 0.30, 0, 1) ** 2.2
    spine = BLADE_HEIGHT * (1 - 0.20 * np.clip((u - 0.45) / 0.55, 0, 1) ** 2)
    z = edge + (spine - edge) * t
    taper = 1 - 0.75 * np.clip((u - 0.1) / 0.9, 0, 1)
    # A wedge: straight flanks from the thin edge to the spine.
    y = EDGE_HALF + (SPINE_HALF * taper - EDGE_HALF) * t
    return np.stack([y, z], -1)


def handle_ring(x: float, offsets: np.ndarray) -> np.ndarray:
    """Half section of the handle at x; `offsets` (R,) from its middle line, in half heights
    beyond one rivet radius and in metres within it."""
    v = (-BLADE / 2 - x) / HANDLE_LENGTH
    half = 0.0112 + 0.0012 * np.cos(2 * np.pi * (v * 1.15 - 0.05))
    # Rounded butt, with the hook that keeps the little finger from slipping.
    half *= np.sqrt(np.clip(1 - np.clip((v - 0.93) / 0.07, 0, 1) ** 2, 0.12, 1))
    width = 0.0078 * np.sqrt(np.clip(1 - np.clip((v - 0.95) / 0.05, 0, 1) ** 2, 0.2, 1))
    width *= 0.86 + 0.14 * np.sin(np.pi * np.clip(v, 0, 1))
    middle = 0.0325 - 0.0022 * np.sin(np.pi * v) - 0.005 * np.clip((v - 0.75) / 0.25, 0, 1) ** 2
    d = np.sign(offsets) * np.where(
        np.abs(offsets) < 0.01, np.abs(offsets), (np.abs(offsets) - 1) * half
    )
    y = width * np.clip(1 - np.abs(d / half) ** 5, 0, 1) ** (1 / 3)
    return np.stack([y, middle + d], -1)


def knife() -> trimesh.Trimesh:
    # Rows of a half section, from bottom to top. The rows next to the middle line frame the rivets;
    # rows at both ends carry the steel tang that shows between the handle's two scales.
    inner = np.array([0.0, 0.0013, 0.0023, 0.003])
    outer = 1 + np.array([0.55, 0.8, 0.94])
    up = np.concatenate([inner, outer])
    offsets = np.concatenate([-up[:0:-1], up])
    offsets = np.concatenate([[-2.0], offsets, [2.0]])
    t_blade = (np.arange(len(offsets)) / (len(offsets) - 1)) ** 1.0
    t_blade[1] = 0.10

    near = np.array([-0.0031, -0.0024, -0.0013, 0.0, 0.0013, 0.0024, 0.0031])
    x0, x1 = -BLADE / 2 - HANDLE_LENGTH, -BLADE / 2
    handle_x = np.unique(np.concatenate([
        *[x + near for x in RIVETS_X], np.linspace(x0, x0 + 0.010, 6),
        np.linspace(x0 + 0.015, x1 - 0.0105, 10), [x1 - 0.0092, x1 - 0.009, x1 - 0.0003],
    ]).round(5))  # fmt: skip
    blade_x = BLADE * (np.concatenate([np.linspace(0, 0.6, 7), np.linspace(0.66, 1, 11)]) - 0.5)
    blade_x[-1] = BLADE / 2 - 0.0005

    rings, colours = [], []
    for x in np.concatenate([handle_x, blade_x]):
        on_blade = x >= x1 - 1e-9
        half = blade_ring(x, t_blade) if on_blade else handle_ring(x, offsets)
        tang = 0.0016
        if not on_blade:
            half[[0, -1], 0] = tang
            half[:, 0] = np.maximum(half[:, 0], tang)
        right = np.column_stack([np.full(len(half), x), half[:, 0], half[:, 1]])
        left = (right * [1, -1, 1])[::-1]
        rings.append(np.concatenate([right, left]))
        c = np.tile(STEEL, (len(half), 1))
        if on_blade:
            c[0] = GROUND_EDGE
        elif x < x1 - 0.0091:
            c[1:-1] = HANDLE
            for rx in RIVETS_X:
                middle = half[len(half) // 2, 1]
                c[np.hypot(x - rx, half[:, 1] - middle) <= RIVET_RADIUS] = RIVET
        colours.append(np.concatenate([c, c[::-1]]))
    points, faces = loft(np.asarray(rings))
    c = np.concatenate([np.concatenate(colours), [STEEL, STEEL]])
    return closed(points, faces, c)


def dough() -> trimesh.Trimesh:
    half, radius = np.array([0.06, 0.03, 0.0225]), 0.008
    arc = 1 - np.tan(np.deg2rad([45, 30, 15, 0]))
    axes = []
    for h in half:
        flat = np.linspace(-(h - radius), h - radius, max(3, round(2 * (h - radius) / 0.014) + 1))
        rim = h - radius + radius * (1 - arc[2::-1])
        axes.append(np.concatenate([-rim[::-1], flat, rim]))
    points, faces, base = [], [], 0
    for axis in range(3):
        j, k = (axis + 1) % 3, (axis + 2) % 3
        u, v = np.meshgrid(axes[j], axes[k], indexing="ij")
        for side in (-1, 1):
            p = np.empty((*u.shape, 3))
            p[..., axis], p[..., j], p[..., k] = side * half[axis], u, v
            n0, n1 = u.shape
            q = (np.arange(n0 - 1)[:, None] * n1 + np.arange(n1 - 1)).ravel() + base
            f = np.concatenate([np.stack([q, q + n1, q + 1], -1),
                                np.stack([q + 1, q + n1, q + n1 + 1], -1)])  # fmt: skip
            points.append(p.reshape(-1, 3))
            faces.append(f if side > 0 else f[:, ::-1])
            base += n0 * n1
    p = np.concatenate(points)
    core = np.clip(p, -(half - radius), half - radius)
    out = p - core
    p = core + radius * out / np.linalg.norm(out, axis=1, keepdims=True)
    p[:, 2] += half[2]
    return closed(p, np.concatenate(faces), np.tile(DOUGH, (len(p), 1)))


def noise(shape: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (H, W) in [0, 1] with about `cells` features, tileable."""
    coarse = rng.random(cells).astype(np.float32)
    tiled = np.pad(coarse, 2, mode="wrap")
    scale = (shape[0] / cells[0], shape[1] / cells[1])
    big = cv2.resize(tiled, None, fx=scale[1], fy=scale[0], interpolation=cv2.INTER_CUBIC)
    oy, ox = round(2 * scale[0]), round(2 * scale[1])
    return np.clip(big[oy : oy + shape[0], ox : ox + shape[1]], 0, 1)


def octaves(shape, cells, rng, count, gain=0.5) -> np.ndarray:
    out, weight, total = np.zeros(shape, np.float32), 1.0, 0.0
    for k in range(count):
        out += weight * noise(shape, (cells[0] * 2**k, cells[1] * 2**k), rng)
        total, weight = total + weight, weight * gain
    return out / total


def wood(rng: np.random.Generator, color: tuple[float, float, float]) -> np.ndarray:
    """A board of one piece, the grain along u, (512, 768, 3) sRGB in [0, 1]."""
    h, w = 512, 768
    v = np.linspace(0, 1, h, dtype=np.float32)[:, None]
    wave = octaves((h, w), (3, 2), rng, 3)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (v * 11 + 2.2 * wave))
    fibre = octaves((h, w), (128, 4), rng, 2)
    shade = 0.86 + 0.10 * rings**3 + 0.22 * (fibre - 0.5)
    shade += 0.10 * (octaves((h, w), (2, 3), rng, 2) - 0.5)
    return np.clip(shade[..., None] * np.array(color), 0, 1)


def main() -> None:
    for name, mesh in {"knife": knife(), "dough": dough()}.items():
        mesh.export(HERE / f"{name}.obj", digits=6)
        print(name, len(mesh.faces), "faces", mesh.extents.round(4), f"{mesh.volume * 1e6:.1f} cm3")
    for name, image in (("wood", wood(np.random.default_rng(3), BEECH)),
                        ("mahogany", wood(np.random.default_rng(5), MAHOGANY))):  # fmt: skip
        bgr = np.round(255 * image[..., ::-1]).astype(np.uint8)
        cv2.imwrite(str(HERE / f"{name}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
