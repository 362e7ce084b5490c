"""Makes the cabinet's meshes: `python make.py`. Lengths in metres.

All but the door are in the cabinet's frame: the origin in the middle of its front on the floor, x to
the right, y to the back, z up. The front plane is y = 0; doors lie before it.
door.obj: the left door in its own frame. The origin is the hinge's lower end: the hinge is the z
axis, the closed door spans x in [0, 0.290] and y in [-0.018, 0] with its handle before that.
Colours of the door are stored as vertex colours (sRGB); the rest is painted by task.toml.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

HERE = Path(__file__).resolve().parent

WIDTH, DEPTH, HEIGHT = 0.62, 0.26, 0.42
WALL = 0.016
STILE = 0.022
"""Width of the front frame's uprights and rails."""
DOOR = (0.290, 0.376)
DOOR_Z = 0.024
"""Height of the doors' lower edge."""
SLAB, RAISED = 0.011, 0.007
BORDER = 0.052
"""Width of a door's raised border."""

PAINT = (0.84, 0.79, 0.72)
PANEL = (0.80, 0.75, 0.68)
EDGE = (0.86, 0.72, 0.62)
STEEL = (0.90, 0.91, 0.92)


def box(x0, x1, y0, y1, z0, z1) -> trimesh.Trimesh:
    mesh = trimesh.creation.box(bounds=[[x0, y0, z0], [x1, y1, z1]])
    return mesh


def painted(mesh: trimesh.Trimesh, colour) -> trimesh.Trimesh:
    rgba = np.round(255 * np.array([*colour, 1.0])).astype(np.uint8)
    mesh.visual.vertex_colors = np.tile(rgba, (len(mesh.vertices), 1))
    return mesh


def joined(parts: list[trimesh.Trimesh]) -> trimesh.Trimesh:
    """One mesh of closed parts that touch but do not overlap."""
    mesh = trimesh.util.concatenate(parts)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    return mesh


def door_leaf(border=PAINT, panel=PANEL) -> list[trimesh.Trimesh]:
    """A panelled door: a slab with a raised border and a thin coloured edge around the panel."""
    w, h = DOOR
    b, front = BORDER, -SLAB - RAISED
    e = 0.004
    parts = [painted(box(0, w, -SLAB, 0, 0, h), panel)]
    raised = [(0, b, 0, h), (w - b, w, 0, h), (b, w - b, 0, b), (b, w - b, h - b, h)]
    parts += [painted(box(x0, x1, front, -SLAB, z0, z1), border) for x0, x1, z0, z1 in raised]
    bead = [(b, b + e, b, h - b), (w - b - e, w - b, b, h - b), (b + e, w - b - e, b, b + e),
            (b + e, w - b - e, h - b - e, h - b)]  # fmt: skip
    parts += [painted(box(x0, x1, -SLAB - 0.5 * RAISED, -SLAB, z0, z1), EDGE)
              for x0, x1, z0, z1 in bead]  # fmt: skip
    return parts


def handle(x: float, z: float, front: float) -> list[trimesh.Trimesh]:
    """An upright bar on two posts, its middle at (x, z), standing before the plane y = `front`."""
    bar = trimesh.creation.capsule(height=0.074, radius=0.0068, count=[12, 12])
    bar.apply_translation([x, front - 0.028, z - bar.bounds.mean(0)[2]])
    posts = []
    for dz in (-0.030, 0.030):
        post = trimesh.creation.cylinder(radius=0.0042, height=0.022, sections=12)
        post.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
        post.apply_translation([x, front - 0.011, z + dz])
        posts.append(post)
    return [bar, *posts]


def meshes() -> dict[str, trimesh.Trimesh]:
    half, t, s = WIDTH / 2, WALL, STILE
    w, front = DOOR[0], -SLAB - RAISED
    shell = [
        box(-half, -half + t, 0, DEPTH, 0, HEIGHT), box(half - t, half, 0, DEPTH, 0, HEIGHT),
        box(-half + t, half - t, 0, DEPTH, 0, t), box(-half + t, half - t, 0, DEPTH, HEIGHT - t, HEIGHT),
        box(-half + t, half - t, DEPTH - 0.008, DEPTH, t, HEIGHT - t),
        box(-s / 2, s / 2, 0, s, t + s, HEIGHT - t - s),
        box(-half + t, half - t, 0, s, HEIGHT - t - s, HEIGHT - t),
        box(-half + t, half - t, 0, s, t, t + s),
    ]  # fmt: skip
    lining, d = [], 0.002
    for x0, x1 in ((-half + t, -s / 2), (s / 2, half - t)):
        y0, y1, z0, z1 = s, DEPTH - 0.008, t, HEIGHT - t
        middle = 0.19
        lining += [
            box(x0, x0 + d, y0, y1 - d, z0 + d, z1 - d), box(x1 - d, x1, y0, y1 - d, z0 + d, z1 - d),
            box(x0, x1, y0, y1 - d, z0, z0 + d), box(x0, x1, y0, y1 - d, z1 - d, z1),
            box(x0, x1, y1 - d, y1, z0, z1),
            box(x0 + d, x1 - d, y0 + 0.03, y1 - d, middle, middle + 0.012),
        ]  # fmt: skip
    rim, e = [], 0.010
    rim += [box(-half, half, -0.004, e - 0.004, HEIGHT, HEIGHT + e),
            box(-half, half, DEPTH - e, DEPTH, HEIGHT, HEIGHT + e),
            box(-half, -half + e, e - 0.004, DEPTH - e, HEIGHT, HEIGHT + e),
            box(half - e, half, e - 0.004, DEPTH - e, HEIGHT, HEIGHT + e)]  # fmt: skip
    other = joined(door_leaf())
    other.apply_translation([0.006, 0, DOOR_Z])
    knob = joined(handle(0.006 + 0.026, DOOR_Z + 0.255, front))
    own = joined([*door_leaf(), *(painted(p, STEEL) for p in handle(w - 0.026, 0.255, front))])
    return {
        "door": own, "shell": joined(shell), "lining": joined(lining), "rim": joined(rim),
        "other_door": other, "other_handle": knob,
    }  # fmt: skip


def main() -> None:
    for name, mesh in meshes().items():
        mesh.export(HERE / f"{name}.obj", digits=6)
        print(name, len(mesh.faces), "faces", mesh.extents.round(4))


if __name__ == "__main__":
    main()
