"""Makes stick.obj, band.obj, and band_keys.npz, the imagined band over time: `python make.py`.

Both meshes are watertight [m]. The stick stands on z = 0: a post of rounded square section, wider at its
foot, its upper edge rounded off; bark-brown sides and a pale top with a knot (vertex colours, sRGB).
The band lies on z = 0 about the z axis: a ring of square section.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh
from scipy.spatial import ConvexHull

HERE = Path(__file__).resolve().parent

STICK_HALF = (0.0215, 0.0274)
STICK_HEIGHT = 0.0621
STICK_SQUARENESS = 3.0
"""Exponent of the section's superellipse."""
STICK_FOOT = 1.12
"""Size of the foot relative to the top."""
STICK_ROUNDING = 0.0085
"""Radius of the upper edge."""
PALE, BROWN, DARK = (0.90, 0.87, 0.80), (0.70, 0.63, 0.49), (0.45, 0.37, 0.26)

BAND_RADIUS = 0.0562
BAND_WIDTH, BAND_HEIGHT = 0.0068, 0.0060
BAND_COLOUR = (0.69, 0.545, 0.33)


def lathe(rings: np.ndarray, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Faces between rings (R, S, 3) of S points each; the last ring meets the first if `closed`."""
    R, S, _ = rings.shape
    k, kn = np.arange(S), (np.arange(S) + 1) % S
    i = np.arange(R if closed else R - 1)[:, None]
    a, b = i * S + k, i * S + kn
    c, d = (i + 1) % R * S + k, (i + 1) % R * S + kn
    faces = np.concatenate(
        [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)]
    )
    return rings.reshape(-1, 3), faces


def stick(segments: int = 96) -> trimesh.Trimesh:
    angle = 2 * np.pi * np.arange(segments) / segments
    c, s = np.cos(angle), np.sin(angle)
    power = 2 / STICK_SQUARENESS
    section = np.stack(
        [STICK_HALF[0] * np.sign(c) * np.abs(c) ** power,
         STICK_HALF[1] * np.sign(s) * np.abs(s) ** power], -1
    )  # fmt: skip
    straight = STICK_HEIGHT - STICK_ROUNDING
    heights = np.linspace(0, straight, 40)
    sizes = STICK_FOOT + (1 - STICK_FOOT) * heights / straight
    turn = np.linspace(0, np.pi / 2, 9)[1:]
    heights = np.r_[heights, straight + STICK_ROUNDING * np.sin(turn)]
    sizes = np.r_[sizes, 1 - STICK_ROUNDING / STICK_HALF[0] * (1 - np.cos(turn))]
    inner = sizes[-1] * np.array([0.75, 0.5, 0.25])
    heights, sizes = np.r_[heights, [STICK_HEIGHT] * 3], np.r_[sizes, inner]
    rings = np.concatenate(
        [section * sizes[:, None, None],
         np.broadcast_to(heights[:, None, None], (len(heights), segments, 1))], -1
    )  # fmt: skip
    points, faces = lathe(rings, closed=False)
    n, last = len(points), len(points) - segments
    k, kn = np.arange(segments), (np.arange(segments) + 1) % segments
    points = np.concatenate([points, [[0, 0, 0], [0, 0, STICK_HEIGHT]]])
    caps = [
        np.stack([kn, k, np.full(segments, n)], -1),
        np.stack([last + k, last + kn, np.full(segments, n + 1)], -1),
    ]
    mesh = trimesh.Trimesh(points, np.concatenate([faces, *caps]), process=False)
    mesh.visual.vertex_colors = rgba(stick_colours(points))
    assert mesh.is_watertight and mesh.volume > 0
    return mesh


def stick_colours(points: np.ndarray) -> np.ndarray:
    """(V, 3): bark in streaks along the stick, a pale top that runs down a little unevenly."""
    rng = np.random.default_rng(7)
    angle, z = np.arctan2(points[:, 1], points[:, 0]), points[:, 2]
    streaks = sum(
        np.cos(k * angle + rng.uniform(0, 7) + rng.normal(0, 60) * z) / k**0.5 for k in (3, 8, 17)
    )
    rings = np.sin(900 * z + 2.0 * np.cos(3 * angle)) * 0.35
    bark = np.clip(0.45 + 0.22 * (streaks + rings) + rng.normal(0, 0.10, len(z)), 0, 1)[:, None]
    side = np.array(DARK) + (np.array(BROWN) - np.array(DARK)) * bark
    edge = STICK_HEIGHT - STICK_ROUNDING * 0.65 + 0.002 * np.cos(5 * angle + 1) * (streaks > 0)
    pale = np.clip((z - edge) / 0.004, 0, 1)[:, None]
    colour = side * (1 - pale) + np.array(PALE) * pale
    knot = np.exp(-((np.hypot(points[:, 0], points[:, 1]) / 0.002) ** 2))[:, None] * pale
    return colour * (1 - 0.5 * knot)


def band(segments: int = 128) -> trimesh.Trimesh:
    angle = 2 * np.pi * np.arange(segments) / segments
    corner = np.array([[1, 0], [1, 1], [-1, 1], [-1, 0]]) * [BAND_WIDTH / 2, BAND_HEIGHT]
    radius, height = BAND_RADIUS + corner[:, 0], corner[:, 1]
    rings = np.stack(
        [radius * np.cos(angle)[:, None], radius * np.sin(angle)[:, None],
         np.broadcast_to(height, (segments, 4))], -1
    )  # fmt: skip
    mesh = trimesh.Trimesh(*lathe(rings, closed=True), process=False)
    mesh.fix_normals()
    colours = np.broadcast_to(BAND_COLOUR, (len(mesh.vertices), 3))
    mesh.visual.vertex_colors = rgba(colours)
    assert mesh.is_watertight and mesh.volume > 0
    return mesh


# The imagination: the band's middle line at some moments, swept with its section. World frame.

BAND_AT = np.array([-0.0153, -0.0913])
STICKS = ((-0.0393, -0.0890, 5.1), (0.0903, -0.0858, -20.3))
"""Where they stand (x, y [m]) and how they are turned [deg]."""
HELD_DEG = 44.0
"""The arc that the hand spreads, either way of its middle."""
GRIP_WAY = (
    (0.0, 0.0, 0.0), (0.006, 0.0, 0.045), (0.050, 0.004, 0.086), (0.096, 0.006, 0.086),
    (0.096, 0.006, 0.030), (0.094, 0.006, 0.014),
)  # fmt: skip
"""Offsets of the held arc [m] from where it lay, one key mesh each; the last mesh is let go."""
LINE_POINTS = 144


def line_keys() -> list[np.ndarray]:
    """Middle lines (S, 3) with the same point at the middle of the held arc first."""
    angle = 2 * np.pi * np.arange(LINE_POINTS) / LINE_POINTS
    circle = BAND_AT + BAND_RADIUS * np.stack([np.cos(angle), np.sin(angle)], -1)
    lines = [np.column_stack([circle, np.full(LINE_POINTS, BAND_HEIGHT / 2)])]
    held = np.deg2rad(np.linspace(-HELD_DEG, HELD_DEG, 40))
    arc = BAND_AT + BAND_RADIUS * np.stack([np.cos(held), np.sin(held)], -1)
    clear = BAND_WIDTH / 2 + 0.0015
    for x, y, z in GRIP_WAY[1:]:
        moved = arc + np.array([x, y])
        # What is not held: at first still the circle's far side, later taut around the stick.
        taut = min(x / 0.05, 1.0)
        far = circle[np.cos(angle) < 0.2] * (1 - taut) + taut * section_around(0, clear, angle)[
            np.cos(angle) < 0.2
        ]  # fmt: skip
        line = around(np.concatenate([moved, far]), LINE_POINTS)
        begin, end = STICKS[0][0], moved[:, 0].min()
        rise = np.clip((line[:, 0] - begin) / (end - begin), 0, 1) ** 1.3
        lines.append(np.column_stack([line, BAND_HEIGHT / 2 + z * rise]))
    line = around(np.concatenate([section_around(i, clear, angle) for i in range(2)]), LINE_POINTS)
    rise = np.clip((line[:, 0] - STICKS[0][0]) / (STICKS[1][0] - STICKS[0][0]), 0, 1)
    lines.append(np.column_stack([line, 0.005 + 0.010 * rise]))
    return lines


def section_around(i: int, clear: float, angle: np.ndarray) -> np.ndarray:
    """(S, 2) points `clear` outside of stick i's foot."""
    x, y, turn = STICKS[i]
    c, s = np.cos(angle), np.sin(angle)
    power = 2 / STICK_SQUARENESS
    a, b = (h * STICK_FOOT + clear for h in STICK_HALF)
    p = np.stack([a * np.sign(c) * np.abs(c) ** power, b * np.sign(s) * np.abs(s) ** power], -1)
    t = np.deg2rad(turn)
    return p @ np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]]) + [x, y]


def around(points: np.ndarray, count: int) -> np.ndarray:
    """(count, 2) evenly along the hull of points (N, 2), counter-clockwise from its rightmost."""
    hull = points[ConvexHull(points).vertices]
    dense = np.concatenate([hull, hull[:1]])
    length = np.r_[0, np.linalg.norm(np.diff(dense, axis=0), axis=1).cumsum()]
    # The first point is the middle of what lies farthest right.
    right = hull[:, 0] > hull[:, 0].max() - 1e-3
    middle = 0.5 * (length[:-1][right].min() + length[:-1][right].max())
    if np.ptp(length[:-1][right]) > 0.5 * length[-1]:
        middle += 0.5 * length[-1]
    at = (middle + length[-1] * np.arange(count) / count) % length[-1]
    line = np.stack([np.interp(at, length, dense[:, d]) for d in range(2)], -1)
    for _ in range(3):
        line = 0.5 * line + 0.25 * (np.roll(line, 1, 0) + np.roll(line, -1, 0))
    return line


def swept(line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of the band along a closed line (S, 3), its section upright."""
    along = np.roll(line, -1, 0) - np.roll(line, 1, 0)
    out = np.stack([along[:, 1], -along[:, 0]], -1)
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    corner = np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]]) * [BAND_WIDTH / 2, BAND_HEIGHT / 2]
    rings = np.repeat(line[:, None], 4, 1)
    rings[..., :2] += corner[:, 0][None, :, None] * out[:, None]
    rings[..., 2] += corner[:, 1]
    # Each face of the section has vertices of its own, so that its edges stay hard.
    S, i = len(line), np.arange(len(line))
    after, points, faces = (i + 1) % S, [], []
    for k in range(4):
        points.append(rings[:, [k, (k + 1) % 4]].reshape(-1, 3))
        a, c = 2 * (k * S + i), 2 * (k * S + after)
        faces += [np.stack([a, c, a + 1], -1), np.stack([a + 1, c, c + 1], -1)]
    return np.concatenate(points), np.concatenate(faces)


def rgba(colours: np.ndarray) -> np.ndarray:
    return np.round(255 * np.concatenate([colours, np.ones((len(colours), 1))], 1)).astype(np.uint8)


def main() -> None:
    for name, mesh in {"stick": stick(), "band": band()}.items():
        mesh.export(HERE / f"{name}.obj", digits=6)
        print(name, len(mesh.faces), "faces", mesh.extents.round(4), f"{mesh.volume * 1e6:.1f} cm3")
    keys = [swept(line) for line in line_keys()]
    np.savez_compressed(
        HERE / "band_keys.npz", vertices=np.stack([v for v, _ in keys]).astype(np.float32),
        faces=keys[0][1].astype(np.int32),
    )  # fmt: skip


if __name__ == "__main__":
    main()
