"""Makes the chest's meshes: `python make.py`. Lengths in metres.

The chest's frame: the origin in the middle of its front on the floor, x to the right, y to the back,
z up; the front plane is y = 0 and the drawers' fronts lie before it.
drawer.obj: the middle drawer in its own frame, whose origin is the middle of the front plane at the
lower edge of the drawer's front. The front spans x in [-0.166, 0.166], y in [-0.016, 0] and
z in [0, 0.170]; the box behind it reaches to y = 0.335. It slides out along -y.
Colours of the drawer are stored as vertex colours (sRGB); the rest is painted by task.toml.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

HERE = Path(__file__).resolve().parent

WIDTH, DEPTH, HEIGHT = 0.36, 0.38, 0.60
WALL = 0.014
FRONT = (0.332, 0.170)
FRONT_THICK = 0.016
GAP = 0.012
"""Between the drawers' fronts."""
LOWEST = 0.034
"""Height of the lowest front's lower edge."""
BOX = (0.300, 0.335, 0.120)
"""Outer width, depth and height of a drawer's box."""
BOX_WALL = 0.010
BOX_Z = 0.016
"""How much higher than the front's lower edge a drawer's box begins."""

CREAM = (0.93, 0.88, 0.80)
INSIDE = (0.95, 0.86, 0.72)
COPPER = (0.72, 0.43, 0.30)


def box(x0, x1, y0, y1, z0, z1) -> trimesh.Trimesh:
    return trimesh.creation.box(bounds=[[x0, y0, z0], [x1, y1, z1]])


def painted(mesh: trimesh.Trimesh, colour) -> trimesh.Trimesh:
    rgba = np.round(255 * np.array([*colour, 1.0])).astype(np.uint8)
    mesh.visual.vertex_colors = np.tile(rgba, (len(mesh.vertices), 1))
    return mesh


def joined(parts: list[trimesh.Trimesh]) -> trimesh.Trimesh:
    """One mesh of closed parts that touch but do not overlap."""
    mesh = trimesh.util.concatenate(parts)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    return mesh


def front_panel() -> trimesh.Trimesh:
    half, h = FRONT[0] / 2, FRONT[1]
    return box(-half, half, -FRONT_THICK, 0, 0, h)


def handle() -> list[trimesh.Trimesh]:
    """A level bar on two posts before the front."""
    bar = trimesh.creation.capsule(height=0.150, radius=0.0065, count=[12, 12])
    bar.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [0, 1, 0]))
    y, z = -FRONT_THICK - 0.030, 0.62 * FRONT[1]
    bar.apply_translation(np.array([0, y, z]) - bar.bounds.mean(0))
    parts = [bar]
    for x in (-0.060, 0.060):
        post = trimesh.creation.cylinder(radius=0.004, height=0.024, sections=12)
        post.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
        post.apply_translation([x, -FRONT_THICK - 0.012, z])
        parts.append(post)
    return parts


def tray() -> list[trimesh.Trimesh]:
    """The open box behind a front: a floor and three walls; the front itself is the fourth."""
    w, d, h = BOX
    x, t, z = w / 2, BOX_WALL, BOX_Z
    return [
        box(-x, x, 0, d, z, z + t), box(-x, -x + t, 0, d, z + t, z + h),
        box(x - t, x, 0, d, z + t, z + h), box(-x + t, x - t, d - t, d, z + t, z + h),
    ]  # fmt: skip


def meshes() -> dict[str, trimesh.Trimesh]:
    half, t = WIDTH / 2, WALL
    step = FRONT[1] + GAP
    shell = [
        box(-half, -half + t, 0, DEPTH, 0, HEIGHT), box(half - t, half, 0, DEPTH, 0, HEIGHT),
        box(-half + t, half - t, DEPTH - t, DEPTH, 0, HEIGHT),
        box(-half + t, half - t, 0, DEPTH - t, 0, 0.028),
    ]  # fmt: skip
    # Uprights beside the fronts and rails between them.
    frame = [box(-half, -FRONT[0] / 2 - 0.001, -0.008, 0, 0, HEIGHT),
             box(FRONT[0] / 2 + 0.001, half, -0.008, 0, 0, HEIGHT)]  # fmt: skip
    frame += [
        box(-half + t, half - t, 0, 0.02, LOWEST + k * step - GAP, LOWEST + k * step)
        for k in (1, 2)
    ]
    fronts, bars, trays = [], [], []
    for k in (0, 2):
        at = [0, 0, LOWEST + k * step]
        for parts, made in ((fronts, [front_panel()]), (bars, handle()), (trays, tray())):
            if parts is trays and k == 0:
                continue  # Nobody can see into the lowest.
            for part in made:
                part.apply_translation(at)
            parts += made
    own = [painted(front_panel(), CREAM), *(painted(p, INSIDE) for p in tray()),
           *(painted(p, COPPER) for p in handle())]  # fmt: skip
    return {
        "drawer": joined(own), "shell": joined(shell), "frame": joined(frame),
        "fronts": joined(fronts), "bars": joined(bars), "tray": joined(trays),
    }  # fmt: skip


def main() -> None:
    for name, mesh in meshes().items():
        mesh.export(HERE / f"{name}.obj", digits=6)
        print(name, len(mesh.faces), "faces", mesh.extents.round(4))


if __name__ == "__main__":
    main()
