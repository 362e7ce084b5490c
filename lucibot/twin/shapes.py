"""Shapes that are fitted to an outline: a few lengths each, a closed mesh, and convex pieces.

Every shape stands on z = 0 of its own frame [m], its middle on the z axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import trimesh

SEGMENTS = 48
WEDGES = 12
"""Convex pieces of a vessel's wall."""
WIDE_MOUTH = 0.7
"""A mouth that is wider than this share of the inside has no neck inside."""
Sizes = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Size:
    """A length (or a number without unit) before anything was measured."""

    typical: float
    """[m]"""
    spread: float
    """Standard deviation of its logarithm."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One kind of thing that can be fitted."""

    name: str
    sizes: dict[str, Size]
    pieces: Callable[[Sizes], list[np.ndarray]]
    """Convex pieces (N, 3) [m] whose union is what is seen from outside."""
    mesh: Callable[[Sizes, float], trimesh.Trimesh]
    """The closed mesh, by its sizes and the thickness of its wall [m]."""
    collision: Callable[[Sizes, float], list[trimesh.Trimesh]] | None = None
    """Convex pieces for contact; its hull where there are none to be told."""
    turns: bool = False
    """Whether it looks another way when it is turned about z."""
    cavity: Callable[[Sizes, float], np.ndarray] | None = None
    """Its inside as a section (N, 2), radius and height from the floor up."""
    upright: bool = True
    """Whether it stands on a table; drawers and doors hang in a wall."""
    unitless: frozenset[str] = field(default_factory=frozenset)
    """Sizes that are no lengths."""

    def top_m(self, sizes: Sizes) -> float:
        """How high it reaches, and what stands on it begins."""
        return float(np.concatenate(self.pieces(sizes))[:, 2].max())


def revolved(section: np.ndarray) -> trimesh.Trimesh:
    """A closed surface of revolution from its section (N, 2), radius and z, which begins and ends on
    the axis, counter-clockwise seen with the radius to the right."""
    rings = np.asarray(section, float)[1:-1]
    n = SEGMENTS
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
    ends = [[0, 0, section[0][1]], [0, 0, section[-1][1]]]
    return closed(np.concatenate([points.reshape(-1, 3), ends]), faces)


def closed(points: np.ndarray, faces: np.ndarray) -> trimesh.Trimesh:
    """A mesh whose faces look outwards."""
    mesh = trimesh.Trimesh(points, faces, process=False)
    mesh.merge_vertices()
    mesh.update_faces(mesh.nondegenerate_faces())
    mesh.remove_unreferenced_vertices()
    mesh.fix_normals()
    return mesh


def _ring(radius: float, z: float) -> np.ndarray:
    angle = 2 * np.pi * np.arange(SEGMENTS) / SEGMENTS
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(SEGMENTS, z)], -1)


Profile = Callable[[Sizes], np.ndarray]
"""The outside (N, 2), radius and height, from the foot up."""


FLAT_M, MOST_LEVELS = 0.0015, 6
"""A wall is cut into levels within which its inside bulges by no more than this."""


def _levels(inside: np.ndarray, height: float) -> np.ndarray:
    """Heights at which a wall is cut, from 0 to its rim."""
    levels = [0.0, float(inside[0, 1]), height]
    for _ in range(MOST_LEVELS - 2):
        worst, at = FLAT_M, None
        for low, high in itertools.pairwise(levels):
            z = np.linspace(low, high, 17)
            r = np.interp(z, inside[:, 1], inside[:, 0])
            off = np.abs(r - np.interp(z, [low, high], r[[0, -1]]))
            if off.max() > worst:
                worst, at = off.max(), float(z[off.argmax()])
        if at is None:
            break
        levels = sorted([*levels, at])
    return np.array(levels)


def _vessel(name: str, sizes: dict[str, Size], outside: Profile, unitless=()) -> Shape:
    """An open surface of revolution with a wall and an inside."""

    def inside(s: Sizes, wall_m: float) -> np.ndarray:
        section, floor = outside(s), wall_m
        height = section[-1, 1]
        z = np.unique(np.r_[np.linspace(floor, height, 12), section[section[:, 1] > floor, 1]])
        radius = np.interp(z, section[:, 1], section[:, 0])
        # The wall is as thick across itself, not across the axis.
        slope = np.gradient(radius, z)
        radius = np.maximum(radius - wall_m * np.sqrt(1 + slope**2), 0.002)
        if radius[-1] > WIDE_MOUTH * radius.max():
            # Behind a slight neck particles would stay that a thin wall does not hold back.
            radius = np.minimum.accumulate(radius[::-1])[::-1]
        return np.stack([radius, z], -1)

    def mesh(s: Sizes, wall_m: float) -> trimesh.Trimesh:
        out, into = outside(s), inside(s, wall_m)
        foot, floor = [[0.0, 0.0]], [[0.0, into[0, 1]]]
        return revolved(np.concatenate([foot, out, into[::-1], floor]))

    def pieces(s: Sizes) -> list[np.ndarray]:
        rings = [_ring(r, z) for r, z in outside(s)]
        return [np.concatenate(pair) for pair in itertools.pairwise(rings)]

    def collision(s: Sizes, wall_m: float) -> list[trimesh.Trimesh]:
        out, into = outside(s), inside(s, wall_m)
        step, found = 2 * np.pi / WEDGES, []
        for low, high in itertools.pairwise(_levels(into, out[-1, 1])):
            # A wedge is flat between its ends: it stands back by as much as the inside bulges.
            z = np.linspace(low, high, 9)
            ends = np.interp([low, high], into[:, 1], into[:, 0])
            back = np.max(np.interp(z, into[:, 1], into[:, 0]) - np.interp(z, [low, high], ends))
            for w in range(WEDGES):
                points = []
                for end, level in zip(ends, (low, high), strict=True):
                    outer = float(np.interp(level, out[:, 1], out[:, 0]))
                    inner = min((end + back) / np.cos(step / 2), outer - 5e-4)
                    for a in step * (w + np.array([-0.5, 0.5])):
                        points.append([inner * np.cos(a), inner * np.sin(a), level])
                    for a in step * (w + np.linspace(-0.5, 0.5, 3)):
                        points.append([outer * np.cos(a), outer * np.sin(a), level])
                found.append(trimesh.convex.convex_hull(np.array(points)))
        floor = np.concatenate([_ring(out[0, 0], 0.0), _ring(into[0, 0], into[0, 1])])
        return [*found, trimesh.convex.convex_hull(floor)]

    return Shape(name=name, sizes=sizes, pieces=pieces, mesh=mesh, collision=collision,
                 cavity=inside, unitless=frozenset(unitless))  # fmt: skip


def _can(s: Sizes) -> np.ndarray:
    h, r = s["height"], s["diameter"] / 2
    return np.array([
        [0.78 * r, 0.0], [0.97 * r, 0.045 * h], [r, 0.075 * h], [r, 0.86 * h], [0.95 * r, 0.91 * h],
        [0.83 * r, 0.97 * h], [0.83 * r, h],
    ])  # fmt: skip


def _cup(s: Sizes) -> np.ndarray:
    z = np.linspace(0, 1, 6)
    radius = (s["foot"] + (s["top"] - s["foot"]) * z) / 2
    return np.stack([radius, z * s["height"]], -1)


def _bowl(s: Sizes) -> np.ndarray:
    z = np.r_[0, 0.02, 0.06, 0.12, np.linspace(0.2, 1, 9)]
    radius = (s["foot"] + (s["top"] - s["foot"]) * z ** s["bulge"]) / 2
    return np.stack([radius, z * s["height"]], -1)


def _bottle(s: Sizes) -> np.ndarray:
    h, r, neck = s["height"], s["diameter"] / 2, s["neck"] / 2
    shoulder = min(s["shoulder"], 0.9)
    z = np.r_[0, 0.02, shoulder, np.linspace(shoulder, 0.5 + 0.5 * shoulder, 5)[1:], 1.0]
    bend = np.clip((z - shoulder) / (0.5 - 0.5 * shoulder), 0, 1)
    radius = neck + (r - neck) * 0.5 * (1 + np.cos(np.pi * bend))
    radius[0] *= 0.92
    return np.stack([radius, z * h], -1)


def _block(s: Sizes) -> np.ndarray:
    x, y, z = s["length"] / 2, s["width"] / 2, s["height"]
    return np.array([[a, b, c] for a in (-x, x) for b in (-y, y) for c in (0, z)])


def _box_mesh(s: Sizes, wall_m: float) -> trimesh.Trimesh:
    mesh = trimesh.creation.box(extents=[s["length"], s["width"], s["height"]])
    mesh.apply_translation([0, 0, s["height"] / 2])
    return mesh


def _rounded(length: float, width: float, height: float, power: float) -> tuple[np.ndarray, ...]:
    """A body along x with elliptic sections whose ends are round (2) or blunt (larger): rings."""
    t = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 17)[1:-1])
    share = (1 - np.abs(t) ** power) ** (1 / power)
    angle = 2 * np.pi * np.arange(24) / 24
    rings = np.stack([
        np.broadcast_to((t * length / 2)[:, None], (len(t), 24)),
        share[:, None] * width / 2 * np.cos(angle),
        height / 2 + share[:, None] * height / 2 * np.sin(angle),
    ], -1)  # fmt: skip
    return rings


def _lump(power: float, equal: bool) -> tuple[Callable, Callable]:
    def rings(s: Sizes) -> np.ndarray:
        width = s["diameter"] if equal else s["width"]
        height = s["diameter"] if equal else s["height"]
        return _rounded(s["length"], width, height, power)

    def mesh(s: Sizes, wall_m: float) -> trimesh.Trimesh:
        return trimesh.convex.convex_hull(rings(s).reshape(-1, 3))

    return (lambda s: [rings(s).reshape(-1, 3)]), mesh


def _solid(name: str, sizes: dict[str, Size], pieces, mesh) -> Shape:
    return Shape(name=name, sizes=sizes, pieces=pieces, mesh=mesh, turns=True)


def of_mesh(name: str, mesh: trimesh.Trimesh) -> Shape:
    """The shape of a user's mesh: its size alone is fitted, about the one that it has."""
    low, high = mesh.bounds
    placed = mesh.copy()
    placed.apply_translation(-np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]))
    triangles = np.asarray(placed.triangles)

    def scaled(s: Sizes, wall_m: float) -> trimesh.Trimesh:
        out = placed.copy()
        out.apply_scale(s["scale"])
        return out

    return Shape(
        name=name, sizes={"scale": Size(typical=1.0, spread=0.3)}, turns=True, mesh=scaled,
        pieces=lambda s: list(triangles * s["scale"]),
    )  # fmt: skip


BOARD_M, SIDE_M, FLOOR_M = 0.02, 0.013, 0.008
"""Thickness of a drawer's front, of its other sides, and of its floor."""
DRAWER_M = 0.45
"""How far a drawer reaches into its cabinet."""


def _slabs(*boxes: tuple[float, float, float, float, float, float]) -> list[np.ndarray]:
    """Boxes x0 x1 y0 y1 z0 z1 as corners."""
    return [
        np.array([[x, y, z] for x in b[:2] for y in b[2:4] for z in b[4:]], float) for b in boxes
    ]


def _drawer_pieces(s: Sizes) -> list[np.ndarray]:
    """The front, and of the tray what has come out of its cabinet."""
    w, h, inner = s["width"] / 2, s["height"], s["width"] / 2 * min(s["inner"], 1.0)
    rim = h * min(s["rim"], 1.0)
    return _slabs((-w, w, -BOARD_M, 0, 0, h), (-inner, inner, 0, s["opening"], 0.15 * h, rim))


def _drawer(s: Sizes, wall_m: float) -> trimesh.Trimesh:
    """One closed surface: a front, on which a tray hangs that is open at the top."""
    w, h, inner = s["width"] / 2, s["height"], s["width"] / 2 * min(s["inner"], 1.0)
    rim, foot, far = h * min(s["rim"], 0.999), 0.15 * h, DRAWER_M
    # A grid of cells, full or empty, whose outer faces are the surface.
    xs = np.array([-w, -inner, -inner + SIDE_M, inner - SIDE_M, inner, w])
    ys = np.array([-BOARD_M, 0, far - SIDE_M, far])
    zs = np.array([0, foot, foot + FLOOR_M, rim, h])
    full = np.zeros((5, 3, 4), bool)
    full[:, 0, :] = True
    full[1:4, 1:, 1] = True
    full[[1, 3], 1:, 2] = True
    full[1:4, 2, 2] = True
    return _cells(full, xs, ys, zs)


def _cells(full: np.ndarray, xs, ys, zs) -> trimesh.Trimesh:
    """The surface of the cells (X, Y, Z) of a grid that are full."""
    n = np.array([len(xs), len(ys), len(zs)])
    grid = np.stack(np.meshgrid(xs, ys, zs, indexing="ij"), -1).reshape(-1, 3)
    padded, faces = np.pad(full, 1), []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for side in (0, 1):
            beyond = np.roll(padded, 1 if side == 0 else -1, axis)[1:-1, 1:-1, 1:-1]
            for cell in np.argwhere(full & ~beyond):
                at = cell.copy()
                at[axis] += side
                corner = [at + du * np.eye(3, dtype=int)[u] + dv * np.eye(3, dtype=int)[v]
                          for du, dv in ((0, 0), (1, 0), (1, 1), (0, 1))]  # fmt: skip
                a, b, c, d = (int(p @ [n[1] * n[2], n[2], 1]) for p in corner)
                faces += [[a, b, c], [a, c, d]] if side else [[c, b, a], [d, c, a]]
    return closed(grid, np.array(faces))


def _door_pieces(s: Sizes) -> list[np.ndarray]:
    w, h = s["width"] / 2, s["height"]
    return _slabs((-w, w, -BOARD_M, 0, 0, h))


def _door(s: Sizes, wall_m: float) -> trimesh.Trimesh:
    return trimesh.convex.convex_hull(_door_pieces(s)[0])


_lumps, _rolls = _lump(2.4, False), _lump(5.0, True)
SHAPES: dict[str, Shape] = {
    s.name: s
    for s in (
        _vessel("can", {"height": Size(typical=0.122, spread=0.06),
                        "diameter": Size(typical=0.066, spread=0.06)}, _can),
        _vessel("cup", {"height": Size(typical=0.11, spread=0.3), "top": Size(typical=0.085, spread=0.3),
                        "foot": Size(typical=0.06, spread=0.35)}, _cup),
        _vessel("bowl", {"height": Size(typical=0.065, spread=0.35),
                         "top": Size(typical=0.15, spread=0.35), "foot": Size(typical=0.07, spread=0.35),
                         "bulge": Size(typical=0.5, spread=0.3)}, _bowl, ("bulge",)),
        _vessel("plate", {"height": Size(typical=0.018, spread=0.3),
                          "top": Size(typical=0.24, spread=0.3), "foot": Size(typical=0.2, spread=0.3),
                          "bulge": Size(typical=1.0, spread=0.15)}, _bowl, ("bulge",)),
        _vessel("bottle", {"height": Size(typical=0.22, spread=0.3),
                           "diameter": Size(typical=0.07, spread=0.3),
                           "neck": Size(typical=0.028, spread=0.3),
                           "shoulder": Size(typical=0.62, spread=0.15)}, _bottle, ("shoulder",)),
        _solid("box", {"length": Size(typical=0.12, spread=0.7), "width": Size(typical=0.08, spread=0.7),
                       "height": Size(typical=0.08, spread=0.7)}, lambda s: [_block(s)], _box_mesh),
        _solid("slab", {"length": Size(typical=0.15, spread=0.7), "width": Size(typical=0.1, spread=0.7),
                        "height": Size(typical=0.02, spread=0.4)}, lambda s: [_block(s)], _box_mesh),
        _solid("lump", {"length": Size(typical=0.1, spread=0.6), "width": Size(typical=0.08, spread=0.6),
                        "height": Size(typical=0.05, spread=0.4)}, *_lumps),
        _solid("roll", {"length": Size(typical=0.12, spread=0.6),
                        "diameter": Size(typical=0.05, spread=0.6)}, *_rolls),
        Shape(name="drawer", upright=False, unitless=frozenset({"inner", "rim"}), sizes={
            "width": Size(typical=0.38, spread=0.3), "height": Size(typical=0.14, spread=0.3),
            "opening": Size(typical=0.08, spread=1.0), "inner": Size(typical=0.87, spread=0.08),
            "rim": Size(typical=0.8, spread=0.12),
        }, pieces=_drawer_pieces, mesh=_drawer),
        Shape(name="door", upright=False, sizes={
            "width": Size(typical=0.4, spread=0.3), "height": Size(typical=0.6, spread=0.4),
        }, pieces=_door_pieces, mesh=_door),
    )
}  # fmt: skip
