"""Makes spoon.obj, box.obj, sand.obj and the storyboard's key meshes: `python make.py`.

spoon.obj: one watertight mesh [m]. Object frame: the origin is the middle of the bowl's rim, z points
up out of the bowl, x runs along the handle. It is a serving spoon: a bowl must be several cells of
the simulator's grid wide to keep its sand.
box.obj: an open box, its foot centred on the origin, with a floor thicker than it looks.
sand.obj: what fills the box, its base centred on the origin, with a rough top.
Colours are stored as vertex colours (sRGB).
In the storyboard the sand has two parts: what stays in the box, with the furrow that the spoon
leaves (in the sand's frame), and the heap on the spoon (in the spoon's frame).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

from lucibot.authoring.meshes import closed, loft

HERE = Path(__file__).resolve().parent

ENAMEL = (0.05, 0.16, 0.46)
RIM = (0.42, 0.68, 0.95)
HANDLE = (0.03, 0.05, 0.12)
SAND = (0.90, 0.72, 0.33)

BOWL = np.array([0.034, 0.028])
"""Half axes of the bowl's inside at its rim."""
DEPTH = 0.020
WALL = 0.0035
HANDLE_LENGTH = 0.125
SLOPE = np.tan(np.deg2rad(12.0))

INNER = np.array([0.140, 0.106])
"""Of the box."""
BOARD = 0.020
BOX_HEIGHT = 0.060
BOX_FLOOR = 0.012
SAND_DEPTH = 0.034
YAW = np.deg2rad(-35.0)
"""Of the spoon while it digs; it moves against its handle."""
ROW = 21
"""Points across the spoon, above and below."""


def spoon_section(x: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (2 * ROW, 3) round the spoon at x and their colours: above from right to left, then
    below and back."""
    outer = BOWL + WALL
    u = np.clip(x / outer[0], -1, 1)
    bowl_half = outer[1] * np.sqrt(max(1 - u * u, 0.0))
    along = (x - BOWL[0]) / HANDLE_LENGTH
    handle_half = 0.0085 - 0.0032 * np.exp(-(((along - 0.25) / 0.2) ** 2))
    handle_half *= np.sqrt(np.clip(1 - np.clip((along - 0.93) / 0.075, 0, 1) ** 2, 0.03, 1))
    on_handle = x > 0.75 * outer[0]
    half = max(bowl_half, handle_half if on_handle else 0.0, 0.0015)
    y = half * np.sin(np.linspace(-np.pi / 2, np.pi / 2, ROW))
    inside = np.clip(1 - (x / BOWL[0]) ** 2 - (y / BOWL[1]) ** 2, 0, 1)
    outside = np.clip(1 - (x / outer[0]) ** 2 - (y / outer[1]) ** 2, 0, 1)
    rise = SLOPE * max(0.0, x - BOWL[0]) - 0.10 * max(0.0, along - 0.55) ** 2 * HANDLE_LENGTH
    crown = 0.0022 * np.sqrt(np.clip(1 - (y / half) ** 2, 0, 1)) if on_handle else 0.0
    above = rise - DEPTH * inside + np.where(inside > 0, 0.0, crown)
    below = rise - 0.0022 - (DEPTH + WALL - 0.0022) * outside - np.where(outside > 0, 0.0, crown)
    top = np.stack([np.full(ROW, x), y, above], -1)
    under = np.stack([np.full(ROW, x), y, below], -1)[::-1]
    colour = np.where((inside > 0)[:, None], ENAMEL, RIM)
    if x > outer[0] + 0.004:
        colour = np.tile(HANDLE, (ROW, 1))
    low = np.tile(HANDLE if x > outer[0] + 0.004 else ENAMEL, (ROW, 1))
    return np.concatenate([top, under]), np.concatenate([colour, low])


def spoon() -> trimesh.Trimesh:
    edge = (BOWL + WALL)[0]
    bowl_x = -edge * np.cos(np.linspace(0.06, np.pi / 2, 16))
    right = edge * np.sin(np.linspace(0.0, np.pi / 2, 16))[1:]
    handle_x = np.concatenate([
        edge + np.array([0.002, 0.0038, 0.0042, 0.008]),
        np.linspace(edge + 0.015, BOWL[0] + HANDLE_LENGTH - 0.012, 11),
        BOWL[0] + HANDLE_LENGTH - np.array([0.009, 0.006, 0.0035, 0.0015, 0.0003]),
    ])  # fmt: skip
    sections = [spoon_section(x) for x in np.concatenate([bowl_x, right, handle_x])]
    # `loft` wants rings that turn counter-clockwise seen against the sweep.
    points, faces = loft(np.stack([s[0][::-1] for s in sections]))
    colours = np.concatenate([s[1][::-1] for s in sections])
    return closed(points, faces, np.concatenate([colours, [ENAMEL, HANDLE]]))


def box() -> trimesh.Trimesh:
    low, high = INNER / 2, INNER / 2 + BOARD
    ring = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    points = np.concatenate([
        np.column_stack([ring * high, np.zeros(4)]),
        np.column_stack([ring * high, np.full(4, BOX_HEIGHT)]),
        np.column_stack([ring * low, np.full(4, BOX_HEIGHT)]),
        np.column_stack([ring * low, np.full(4, BOX_FLOOR)]),
    ])  # fmt: skip
    faces = [[0, 2, 1], [0, 3, 2], [12, 13, 14], [12, 14, 15]]
    for first in (0, 4, 8):
        for k in range(4):
            a, b = first + k, first + (k + 1) % 4
            faces += [[a, b, b + 4], [a, b + 4, a + 4]]
    mesh = trimesh.Trimesh(points, faces, process=False)
    mesh.fix_normals()
    assert mesh.is_watertight and mesh.volume > 0
    return mesh


def sand_block(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """A block a millimetre smaller than the box, its top uneven by a grain: points (V, 3), faces
    (F, 3), colours (V, 3), and how many of the points are its top."""
    size = INNER - 0.002
    n = np.round(size / 0.0028).astype(int)
    x, y = (np.linspace(-s / 2, s / 2, k) for s, k in zip(size, n, strict=True))
    X, Y = np.meshgrid(x, y, indexing="ij")
    Z = SAND_DEPTH + rng.normal(scale=0.0004, size=X.shape)
    Z += 0.0012 * np.sin(X / 0.018 + 1.0) * np.sin(Y / 0.021)
    top = np.stack([X, Y, Z], -1).reshape(-1, 3)
    i = (np.arange(n[0] - 1)[:, None] * n[1] + np.arange(n[1] - 1)).ravel()
    up = np.concatenate([np.stack([i, i + n[1], i + 1], -1),
                         np.stack([i + 1, i + n[1], i + n[1] + 1], -1)])  # fmt: skip
    grid = np.arange(n[0] * n[1]).reshape(n)
    rim = np.concatenate([grid[:, 0], grid[-1, 1:], grid[-2::-1, -1], grid[0, -2:0:-1]])
    foot = top[rim] * [1, 1, 0]
    m, base = len(rim), len(top)
    k, kn = np.arange(m), (np.arange(m) + 1) % m
    sides = np.concatenate([np.stack([base + k, base + kn, rim[k]], -1),
                            np.stack([base + kn, rim[kn], rim[k]], -1)])  # fmt: skip
    floor = np.stack([base + kn, base + k, np.full(m, base + m)], -1)
    points = np.concatenate([top, foot, [[0, 0, 0]]])
    shade = np.clip(1 + rng.normal(scale=0.13, size=len(points)), 0.62, 1.25)
    shade[base:] = 0.8
    faces = np.concatenate([up, sides, floor])
    return points, faces, np.clip(shade[:, None] * SAND, 0, 1), base


def bed(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Key meshes, sand's frame: smooth; the tip is in; half and all of the furrow; slumped."""
    points, faces, colours, tops = sand_block(rng)
    x, y = points[:tops, 0], points[:tops, 1]
    way = -np.array([np.cos(YAW), np.sin(YAW)])
    along = x * way[0] + y * way[1]
    across = -x * way[1] + y * way[0]
    grains = rng.normal(scale=0.0006, size=tops)
    keys = [points]
    # Front and rear end of the furrow along the way, its depth, the bank it pushes up.
    stages = ((-0.018, 0.006, 0.007, 0.003), (-0.024, 0.034, 0.013, 0.006),
              (-0.024, 0.054, 0.013, 0.006), (-0.026, 0.054, 0.011, 0.004))  # fmt: skip
    for rear, front, depth, bank in stages:
        middle, half = (rear + front) / 2, (front - rear) / 2 + 0.010
        inside = 1 - ((along - middle) / half) ** 4 - (across / 0.031) ** 2
        dug = depth * np.clip(inside, 0, 1) ** 0.7
        ahead = np.hypot((along - front - 0.014) / 0.014, across / 0.030)
        beside = np.exp(-(((np.abs(across) - 0.034) / 0.007) ** 2)) * (
            np.abs(along - middle) < half
        )
        v = points.copy()
        v[:tops, 2] += bank * np.exp(-(ahead**2)) + 0.3 * bank * beside - dug
        v[:tops, 2] += np.where(dug > 0.001, grains, 0)
        keys.append(v)
    return {"vertices": np.stack(keys), "faces": outwards(points, faces), "colors": colours}


def heap(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Key meshes, spoon's frame: none; what the tip takes first; a heaped bowl."""
    rings, around = 14, 56
    a = 2 * np.pi * np.arange(around) / around
    r = np.linspace(1.0, 0.0, rings + 1)[:-1, None]
    x, y = r * np.cos(a), r * np.sin(a)
    lumps = rng.normal(scale=0.0005, size=x.shape)
    keys = []
    # Share of the bowl that is covered, height of the heap over its rim, shift towards the tip.
    for cover, height, shift in ((0.25, 0.0, -0.012), (0.75, 0.005, -0.005), (0.97, 0.013, 0.0)):
        X, Y = cover * BOWL[0] * x + shift, cover * BOWL[1] * y
        floor = -DEPTH * np.clip(1 - (X / BOWL[0]) ** 2 - (Y / BOWL[1]) ** 2, 0, 1) + 0.0004
        edge = floor[:1] + 0.0008
        dome = edge + (height - edge) * (1 - r**1.7) + lumps * (r < 0.95)
        top = np.stack([X, Y, np.maximum(dome, floor + 0.0006)], -1).reshape(-1, 3)
        under = np.stack([X, Y, floor - 0.0003], -1).reshape(-1, 3)
        peak, pit = [[shift, 0, top[-around:, 2].mean()]], [[shift, 0, floor[-1].mean() - 0.0003]]
        keys.append(np.concatenate([top, under, peak, pit]))
    i = np.arange(rings - 1)[:, None] * around
    k, kn = np.arange(around), (np.arange(around) + 1) % around
    p, q = i + k, i + kn
    n, last = rings * around, (rings - 1) * around
    skin = np.concatenate([np.stack([p, q, p + around], -1).reshape(-1, 3),
                           np.stack([q, q + around, p + around], -1).reshape(-1, 3)])  # fmt: skip
    faces = np.concatenate([
        skin, np.stack([last + k, last + kn, np.full(around, 2 * n)], -1),
        n + skin[:, ::-1], np.stack([n + last + kn, n + last + k, np.full(around, 2 * n + 1)], -1),
        np.stack([kn, k, n + k], -1), np.stack([kn, n + k, n + kn], -1),
    ])  # fmt: skip
    shade = np.clip(1 + rng.normal(scale=0.13, size=2 * n + 2), 0.62, 1.25)
    colours = np.clip(shade[:, None] * SAND, 0, 1)
    return {"vertices": np.stack(keys), "faces": outwards(keys[-1], faces), "colors": colours}


def outwards(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The faces (F, 3), all looking out."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.fix_normals()
    assert mesh.is_watertight and mesh.volume > 0
    return np.asarray(mesh.faces)


def main() -> None:
    for name, keys in {
        "bed": bed(np.random.default_rng(4)),
        "heap": heap(np.random.default_rng(8)),
    }.items():
        keys["vertices"], keys["colors"] = (
            keys[k].astype(np.float32) for k in ("vertices", "colors")
        )
        np.savez_compressed(HERE / f"{name}_keys.npz", **keys)
    sand = closed(*sand_block(np.random.default_rng(4))[:3])
    made = {"spoon": spoon(), "box": box(), "sand": sand}
    for name, mesh in made.items():
        mesh.export(HERE / f"{name}.obj", digits=6)
        print(name, len(mesh.faces), "faces", mesh.extents.round(4), f"{mesh.volume * 1e6:.1f} cm3")


if __name__ == "__main__":
    main()
