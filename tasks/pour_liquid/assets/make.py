"""Makes bottle.obj, glass.obj, liquid.obj and the storyboard's key meshes: `python make.py`.

All three are watertight surfaces of revolution [m]: z is the axis, bottle and glass stand on z = 0.
The bottle's cavity begins well above its foot and the glass has a thick bottom: fewer particles
fill them, and nothing of it is seen. Their walls are as thick as a particle is wide: thinner ones
leak. The liquid's frame is the bottle's; it fills the cavity up to the neck.
Colours are stored as vertex colours (sRGB).
In the storyboard the liquid has three parts: what is still in the bottle (in the bottle's frame),
the stream, and what is in the glass (both in the glass's frame, which is the world's at its place).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

HERE = Path(__file__).resolve().parent
SEGMENTS = 48

GREEN = (0.04, 0.27, 0.17)
DEEP_GREEN = (0.02, 0.15, 0.10)
LABEL = (0.93, 0.90, 0.80)
BAND = (0.80, 0.62, 0.15)
AQUA = (0.55, 0.82, 0.78)
RED = (0.72, 0.02, 0.05)

HEIGHT = 0.150
CAVITY_FLOOR = 0.046
LEVEL = 0.144
"""Of the liquid in the bottle: it shows at the mouth."""
INSET = 0.001
"""Between liquid and wall."""

# (radius, z) from the foot up, and from the lip down the cavity.
BOTTLE_OUTSIDE = [
    (0.0, 0.0), (0.0265, 0.0), (0.0293, 0.003), (0.0297, 0.008), (0.0297, 0.022), (0.0297, 0.0222),
    (0.0297, 0.0248), (0.0297, 0.025), (0.0297, 0.062), (0.0297, 0.0622), (0.0297, 0.0648),
    (0.0297, 0.065), (0.0297, 0.086), (0.0292, 0.094), (0.0278, 0.102), (0.0258, 0.110),
    (0.0242, 0.117), (0.0235, 0.124), (0.0235, 0.142), (0.0250, 0.1435), (0.0252, 0.148),
    (0.0240, 0.150),
]  # fmt: skip
BOTTLE_INSIDE = [
    (0.0190, 0.150), (0.0174, 0.148), (0.0170, 0.142), (0.0166, 0.124), (0.0170, 0.117),
    (0.0183, 0.110), (0.0198, 0.102), (0.0208, 0.094), (0.0210, 0.086), (0.0210, 0.054),
    (0.0196, 0.0485), (0.0160, CAVITY_FLOOR), (0.0, CAVITY_FLOOR),
]  # fmt: skip
GLASS_OUTSIDE = [
    (0.0, 0.0), (0.0330, 0.0), (0.0355, 0.002), (0.0365, 0.006), (0.0448, 0.058), (0.0443, 0.060),
]  # fmt: skip
GLASS_INSIDE = [
    (0.0396, 0.060), (0.0386, 0.058), (0.0305, 0.028), (0.0280, 0.022), (0.0220, 0.019),
    (0.0, 0.019),
]  # fmt: skip


def revolve(section: list[tuple[float, float]], colours: np.ndarray) -> trimesh.Trimesh:
    """A closed surface from its section (N, 2), radius and z, which begins and ends on the axis;
    `colours` (N, 3) sRGB."""
    section = np.asarray(section)
    rings, n = section[1:-1], SEGMENTS
    angle = 2 * np.pi * np.arange(n) / n
    around = np.stack([np.cos(angle), np.sin(angle), np.zeros(n)], -1)
    points = rings[:, :1, None] * around + np.array([0, 0, 1.0]) * rings[:, 1, None, None]
    k, kn = np.arange(n), (np.arange(n) + 1) % n
    first = np.arange(len(rings) - 1)[:, None] * n
    a, b = first + k, first + kn
    foot, top, last = len(rings) * n, len(rings) * n + 1, (len(rings) - 1) * n
    faces = np.concatenate([
        np.stack([a, b, a + n], -1).reshape(-1, 3), np.stack([b, b + n, a + n], -1).reshape(-1, 3),
        np.stack([kn, k, np.full(n, foot)], -1), np.stack([last + k, last + kn, np.full(n, top)], -1),
    ])  # fmt: skip
    ends = [[0, 0, section[0, 1]], [0, 0, section[-1, 1]]]
    mesh = trimesh.Trimesh(np.concatenate([points.reshape(-1, 3), ends]), faces, process=False)
    rgb = np.concatenate([np.repeat(colours[1:-1], n, 0), colours[[0, -1]]])
    rgba = np.concatenate([rgb, np.ones((len(rgb), 1))], 1)
    mesh.visual.vertex_colors = np.round(255 * rgba).astype(np.uint8)
    mesh.fix_normals()
    assert mesh.is_watertight and mesh.volume > 0
    return mesh


def bottle() -> trimesh.Trimesh:
    section = BOTTLE_OUTSIDE + BOTTLE_INSIDE
    z = np.array(section)[:, 1]
    outside = np.arange(len(section)) < len(BOTTLE_OUTSIDE)
    colours = np.where(outside[:, None], GREEN, DEEP_GREEN)
    colours[outside & (z > 0.0221) & (z < 0.0649)] = BAND
    colours[outside & (z > 0.0249) & (z < 0.0621)] = LABEL
    return revolve(section, colours)


def glass() -> trimesh.Trimesh:
    section = GLASS_OUTSIDE + GLASS_INSIDE
    return revolve(section, np.tile(AQUA, (len(section), 1)))


def liquid() -> trimesh.Trimesh:
    """The cavity up to `LEVEL`, a little smaller than it."""
    wall = np.array(BOTTLE_INSIDE)[::-1]
    floor = CAVITY_FLOOR + INSET
    z = np.unique(np.r_[floor, wall[(wall[:, 1] > floor) & (wall[:, 1] < LEVEL), 1], LEVEL])
    radius = np.interp(z, wall[1:, 1], wall[1:, 0]) - INSET
    section = [(0.0, floor), *zip(radius, z, strict=True), (0.0, LEVEL)]
    return revolve(section, np.tile(RED, (len(section), 1)))


def in_bottle() -> np.ndarray:
    """Keys (K, V, 3), bottle frame: full; at the lip; half empty along the lower side, which is +x;
    empty."""
    full = np.asarray(liquid().vertices)
    keys = [full]
    # Where the liquid's surface cuts a vertical line, as height at the axis and slope along x.
    for middle, slope in ((0.1415, 0.25), (0.128, 1.1), (0.085, 2.2)):
        v = full.copy()
        v[:, 2] = np.clip(v[:, 2], CAVITY_FLOOR + INSET, middle + slope * v[:, 0])
        v[:, 2] = np.clip(v[:, 2], CAVITY_FLOOR + INSET, LEVEL + 0.004)
        keys.append(v)
    empty = full.copy()
    empty[:, 2] = CAVITY_FLOOR + INSET + 0.02 * (full[:, 2] - full[:, 2].min())
    keys.append(empty)
    return np.stack(keys)


def stream() -> tuple[np.ndarray, np.ndarray]:
    """Keys (K, V, 3) and faces: a jet that leaves the lip, falls, thins out and breaks off.

    Frame: the glass's place in the world, +x the way from the bottle to the glass.
    """
    stations, around = 28, 14
    lip = np.array([-0.030, 0.0, 0.074])
    speed, fall = np.array([0.20, 0.0, -0.16]), np.array([0.0, 0.0, -9.81])

    def path(t: np.ndarray) -> np.ndarray:
        """Points (n, 3) at times t; before 0 still in the neck."""
        after = np.maximum(t, 0.0)[:, None]
        before = np.minimum(t, 0.0)[:, None]
        return lip + speed * after + 0.5 * fall * after**2 + 0.45 * before * [0.80, 0.0, -0.45]

    def tube(start: float, end: float, radius: float, floor: float) -> np.ndarray:
        t = np.linspace(start, end, stations)
        p = path(t)
        p[:, 2] = np.maximum(p[:, 2], floor)
        # A falling jet is thinner the faster it is; its ends are round.
        r = radius / (1 + 4.0 * np.maximum(t, 0)) ** 0.5
        ends = np.minimum(np.arange(stations), np.arange(stations)[::-1]) / 2.0
        r = r * np.sqrt(np.clip(1 - (1 - np.clip(ends, 0, 1)) ** 2, 0.02, 1))
        r = r * (1 + 0.10 * np.sin(180 * t + 1.0))
        along = np.gradient(p, axis=0) + 1e-9
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        side = np.tile([0.0, 1.0, 0.0], (stations, 1))
        up = np.cross(along, side)
        a = 2 * np.pi * np.arange(around) / around
        wide = side[:, None] * np.cos(a)[:, None] * 1.15 + up[:, None] * np.sin(a)[:, None]
        rings = p[:, None] + r[:, None, None] * wide
        return np.concatenate([rings.reshape(-1, 3), p[:1], p[-1:]])

    down = 0.092
    keys = [
        tube(-0.06, 0.004, 0.0070, 0.0), tube(-0.06, 0.055, 0.0085, 0.0),
        tube(-0.06, down, 0.0092, 0.021), tube(-0.06, down, 0.0088, 0.030),
        tube(-0.05, down - 0.004, 0.0055, 0.034), tube(0.035, down - 0.008, 0.0030, 0.036),
        tube(down - 0.016, down - 0.008, 0.0010, 0.036),
    ]  # fmt: skip
    i = np.arange(stations - 1)[:, None] * around
    k, kn = np.arange(around), (np.arange(around) + 1) % around
    a, b = i + k, i + kn
    n, last = stations * around, (stations - 1) * around
    faces = np.concatenate([
        np.stack([a, b, a + around], -1).reshape(-1, 3),
        np.stack([b, b + around, a + around], -1).reshape(-1, 3),
        np.stack([kn, k, np.full(around, n)], -1),
        np.stack([last + k, last + kn, np.full(around, n + 1)], -1),
    ])  # fmt: skip
    return np.stack(keys), outwards(keys[2], faces)


def in_glass() -> tuple[np.ndarray, np.ndarray]:
    """Keys (K, V, 3) and faces, the glass's frame: the level rises, dented where the jet falls in,
    and comes to rest."""
    wall = np.array(GLASS_INSIDE)[::-1]
    floor = GLASS_INSIDE[-1][1] + 0.0003
    rings, around = 10, 48
    a = 2 * np.pi * np.arange(around) / around
    keys = []
    # Level, radius that is covered, height of the waves on it.
    for level, spread, wave in ((0.0197, 0.25, 0.0), (0.0215, 1.0, 0.0008), (0.0290, 1.0, 0.0018),
                                (0.0360, 1.0, 0.0012), (0.0385, 1.0, 0.0)):  # fmt: skip
        edge = spread * (np.interp(level, wall[1:, 1], wall[1:, 0]) - 0.0004)
        r = np.linspace(1.0, 0.0, rings + 1)[:-1, None] * edge
        x, y = r * np.cos(a), r * np.sin(a)
        hit = np.hypot(x + 0.006, y)
        z = level + wave * np.cos(hit / 0.0042) * np.exp(-hit / 0.018)
        top = np.stack([x, y, np.maximum(z, floor + 0.0004)], -1).reshape(-1, 3)
        foot_edge = spread * (np.interp(floor, wall[1:, 1], wall[1:, 0]) - 0.0006)
        foot = np.stack([foot_edge * np.cos(a), foot_edge * np.sin(a), np.full(around, floor)], -1)
        keys.append(np.concatenate([top, foot, [[0, 0, top[-around:, 2].mean()], [0, 0, floor]]]))
    i = np.arange(rings - 1)[:, None] * around
    k, kn = np.arange(around), (np.arange(around) + 1) % around
    p, q = i + k, i + kn
    last, base = (rings - 1) * around, rings * around
    middle, under = base + around, base + around + 1
    faces = np.concatenate([
        np.stack([p, q, p + around], -1).reshape(-1, 3),
        np.stack([q, q + around, p + around], -1).reshape(-1, 3),
        np.stack([last + k, last + kn, np.full(around, middle)], -1),
        np.stack([base + k, base + kn, k], -1), np.stack([base + kn, kn, k], -1),
        np.stack([base + kn, base + k, np.full(around, under)], -1),
    ])  # fmt: skip
    return np.stack(keys), outwards(keys[3], faces)


def outwards(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The faces (F, 3), all looking out."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.fix_normals()
    assert mesh.is_watertight and mesh.volume > 0
    return np.asarray(mesh.faces)


def save_keys(name: str, vertices: np.ndarray, faces: np.ndarray) -> None:
    np.savez_compressed(
        HERE / f"{name}_keys.npz", vertices=vertices.astype(np.float32), faces=faces,
        colors=np.tile(np.float32(RED), (vertices.shape[1], 1)),
    )  # fmt: skip


def main() -> None:
    save_keys("in_bottle", in_bottle(), np.asarray(liquid().faces))
    save_keys("stream", *stream())
    save_keys("in_glass", *in_glass())
    for name, mesh in {"bottle": bottle(), "glass": glass(), "liquid": liquid()}.items():
        mesh.export(HERE / f"{name}.obj", digits=6)
        print(name, len(mesh.faces), "faces", mesh.extents.round(4), f"{mesh.volume * 1e6:.1f} cm3")


if __name__ == "__main__":
    main()
