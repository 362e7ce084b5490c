"""Makes red_cup.obj, yellow_cup.obj and their collision pieces: `python make.py`.

A cup is a watertight surface of revolution with an inside [m]: z is its axis, the base lies at
z = 0. Coloured outside, white inside and at the rim (vertex colours, sRGB).
For rigid contact the wall is cut into convex wedges (wall_<i>.obj) over a floor (floor.obj). The
inner faces of the wedges touch the inner cone from outside and their outer faces follow the outer
cone, so a cup nests as deep as the round walls would let it. The rim's bead takes no part.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

HERE = Path(__file__).resolve().parent

HEIGHT = 0.12
BASE_RADIUS = 0.0313
RIM_RADIUS = 0.0481
BEAD_OVER, BEAD_HIGH = 0.0035, 0.0065
WALL = 0.0025
FLOOR = 0.003
SEGMENTS = 64
WEDGES = 10

WHITE = (0.97, 0.97, 0.97)
OUTSIDE = {"red_cup": (0.90, 0.0, 0.05), "yellow_cup": (0.90, 0.78, 0.22)}


def outer_radius(z: float) -> float:
    """Of the wall, without the bead."""
    return BASE_RADIUS + (RIM_RADIUS - BEAD_OVER - BASE_RADIUS) * z / HEIGHT


def profile() -> tuple[np.ndarray, np.ndarray]:
    """The section (N, 2) as (radius, z) from the base's centre round to the floor's centre, and
    whether each point is white (N,)."""
    under = HEIGHT - BEAD_HIGH
    turn = np.deg2rad([-60, -25, 10, 45, 80])
    r = BEAD_HIGH / 2
    bead = [(RIM_RADIUS - r + r * np.cos(a), HEIGHT - r + r * np.sin(a)) for a in turn]
    top_in = (outer_radius(HEIGHT) - WALL, HEIGHT - 0.0012)
    groove = 0.0005
    grooves = []
    for z in (0.094, 0.101):
        grooves += [(outer_radius(z - 0.0012), z - 0.0012), (outer_radius(z) - groove, z),
                    (outer_radius(z + 0.0012), z + 0.0012)]  # fmt: skip
    coloured = [(0.0, 0.0), (BASE_RADIUS - 0.0015, 0.0), (BASE_RADIUS, 0.0015), *grooves,
                (outer_radius(under) - 1e-5, under - 0.0002)]  # fmt: skip
    white = [(outer_radius(under), under), *bead, top_in,
             (outer_radius(FLOOR + 0.004) - WALL, FLOOR + 0.004),
             (outer_radius(FLOOR) - WALL - 0.003, FLOOR), (0.0, FLOOR)]  # fmt: skip
    points = np.array(coloured + white)
    return points, np.arange(len(points)) >= len(coloured)


def cup(outside: tuple[float, float, float]) -> trimesh.Trimesh:
    section, white = profile()
    angle = 2 * np.pi * np.arange(SEGMENTS) / SEGMENTS
    rings = section[1:-1]
    points = np.stack([rings[:, :1] * np.cos(angle), rings[:, :1] * np.sin(angle),
                       np.repeat(rings[:, 1:], SEGMENTS, 1)], -1).reshape(-1, 3)  # fmt: skip
    k, kn = np.arange(SEGMENTS), (np.arange(SEGMENTS) + 1) % SEGMENTS
    i = np.arange(len(rings) - 1)[:, None] * SEGMENTS
    a, b = i + k, i + kn
    above = a + SEGMENTS
    faces = np.concatenate([
        np.stack([a, b, above], -1).reshape(-1, 3),
        np.stack([b, b + SEGMENTS, above], -1).reshape(-1, 3),
    ])  # fmt: skip
    n = len(points)
    last = (len(rings) - 1) * SEGMENTS
    caps = [np.stack([kn, k, np.full(SEGMENTS, n)], -1),
            np.stack([last + k, last + kn, np.full(SEGMENTS, n + 1)], -1)]  # fmt: skip
    points = np.concatenate([points, [[0, 0, section[0, 1]], [0, 0, section[-1, 1]]]])
    mesh = trimesh.Trimesh(points, np.concatenate([faces, *caps]), process=False)
    is_white = np.concatenate([np.repeat(white[1:-1], SEGMENTS), [False, True]])
    rgb = np.where(is_white[:, None], WHITE, outside)
    rgba = np.concatenate([rgb, np.ones((len(rgb), 1))], 1)
    mesh.visual.vertex_colors = np.round(255 * rgba).astype(np.uint8)
    mesh.fix_normals()
    assert mesh.is_watertight and mesh.volume > 0
    return mesh


def collision_pieces() -> dict[str, trimesh.Trimesh]:
    """Convex pieces: the floor, and `WEDGES` pieces of the wall."""
    step = 2 * np.pi / WEDGES
    pieces = {}
    for w in range(WEDGES):
        centre = w * step
        points = []
        for z in (0.0, HEIGHT):
            inner = (outer_radius(z) - WALL) / np.cos(step / 2)
            for a in centre + step * np.array([-0.5, 0.5]):
                points.append([inner * np.cos(a), inner * np.sin(a), z])
            for a in centre + step * np.linspace(-0.5, 0.5, 4):
                points.append([outer_radius(z) * np.cos(a), outer_radius(z) * np.sin(a), z])
        pieces[f"wall_{w}"] = trimesh.convex.convex_hull(np.array(points))
    angle = 2 * np.pi * np.arange(20) / 20
    disc = [[r * np.cos(a), r * np.sin(a), z] for a in angle
            for r, z in ((BASE_RADIUS, 0.0), (outer_radius(FLOOR) - WALL / 2, FLOOR))]  # fmt: skip
    pieces["floor"] = trimesh.convex.convex_hull(np.array(disc))
    return pieces


def main() -> None:
    for name, colour in OUTSIDE.items():
        mesh = cup(colour)
        mesh.export(HERE / f"{name}.obj", digits=6)
        print(name, len(mesh.faces), "faces", mesh.extents.round(4), f"{mesh.volume * 1e6:.1f} cm3")
    for name, mesh in collision_pieces().items():
        mesh.export(HERE / f"{name}.obj", digits=6)


if __name__ == "__main__":
    main()
