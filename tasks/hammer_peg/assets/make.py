"""Makes hammer.obj, peg.obj, block.obj, their collision pieces and planks.jpg: `python make.py`.

Lengths in metres. Colours are stored as vertex colours (sRGB).
hammer.obj: the origin is the middle of the head, z runs along the head from the striking face at
z = -0.036 to the other one, x from the head along the handle to its end at x = 0.205.
peg.obj: the origin is the middle of the head's underside, which meets the block when the peg is all
in; the shaft runs down to z = -0.072.
block.obj: a cube with bevelled edges, its base centred on the origin. It has no hole: the peg hangs
on it and the two do not collide.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import trimesh

HERE = Path(__file__).resolve().parent

BLOCK, BEVEL = 0.100, 0.002
PEG_HEAD, PEG_HEAD_HIGH = 0.0150, 0.011
PEG_SHAFT, PEG_LENGTH = 0.0070, 0.072
FACE, FACE_HALF = 0.0170, 0.036
"""Radius of the hammer's faces, and half the length of its head."""
HANDLE_END = 0.205

IRON = (0.13, 0.135, 0.15)
ASH = (0.93, 0.80, 0.52)
STEEL = (0.43, 0.45, 0.49)
OAK = (0.80, 0.61, 0.33)
MAHOGANY = (0.44, 0.265, 0.18)


def painted(mesh: trimesh.Trimesh, colour) -> trimesh.Trimesh:
    rgba = np.round(255 * np.array([*colour, 1.0])).astype(np.uint8)
    mesh.visual.vertex_colors = np.tile(rgba, (len(mesh.vertices), 1))
    return mesh


def turned(profile: list[tuple[float, float]], sides: int, phase: float = 0.0) -> trimesh.Trimesh:
    """The closed surface of revolution of (radius, z) from the lower end to the upper one."""
    rings = np.array(profile)
    angle = phase + 2 * np.pi * np.arange(sides) / sides
    points = np.stack([rings[:, :1] * np.cos(angle), rings[:, :1] * np.sin(angle),
                       np.repeat(rings[:, 1:], sides, 1)], -1).reshape(-1, 3)  # fmt: skip
    points = np.concatenate([points, [[0, 0, rings[0, 1]], [0, 0, rings[-1, 1]]]])
    k, kn = np.arange(sides), (np.arange(sides) + 1) % sides
    faces, last = [], (len(rings) - 1) * sides
    for i in range(len(rings) - 1):
        a, b = i * sides, (i + 1) * sides
        faces += [np.stack([a + k, a + kn, b + k], -1), np.stack([a + kn, b + kn, b + k], -1)]
    faces.append(np.stack([kn, k, np.full(sides, len(points) - 2)], -1))
    faces.append(np.stack([last + k, last + kn, np.full(sides, len(points) - 1)], -1))
    mesh = trimesh.Trimesh(points, np.concatenate(faces), process=False)
    assert mesh.is_watertight and mesh.volume > 0
    return mesh


def hammer() -> tuple[trimesh.Trimesh, dict[str, trimesh.Trimesh]]:
    """The hammer and its two convex pieces."""
    h, f, edge = FACE_HALF, FACE, 0.0022
    waist = 0.0165
    profile = [(f - edge, -h), (f, -h + edge), (f, -h + 0.014), (waist, -h + 0.020),
               (waist, h - 0.020), (f, h - 0.014), (f, h - edge), (f - edge, h)]  # fmt: skip
    head = turned(profile, 16, np.pi / 16)
    x0, x1 = waist - 0.002, HANDLE_END
    shape = [(0.0095, x0), (0.0090, 0.06), (0.0100, 0.12), (0.0115, 0.17), (0.0118, x1 - 0.006),
             (0.0100, x1)]  # fmt: skip
    handle = turned(shape, 16)
    # Along x, and flatter across than along the head.
    handle.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [0, 1, 0]))
    handle.apply_scale([1.0, 0.8, 1.0])
    whole = trimesh.util.concatenate([painted(head, IRON), painted(handle, ASH)])
    return whole, {"hammer_head": head.convex_hull, "hammer_handle": handle.convex_hull}


def peg() -> tuple[trimesh.Trimesh, dict[str, trimesh.Trimesh]]:
    r, s, edge = PEG_HEAD, PEG_SHAFT, 0.0015
    profile = [
        (s - 0.0015, -PEG_LENGTH), (s, -PEG_LENGTH + 0.002), (s, -0.0005), (s + 0.0005, 0.0),
        (r - 0.0005, 0.0), (r, 0.0005), (r, PEG_HEAD_HIGH - edge), (r - edge, PEG_HEAD_HIGH),
    ]  # fmt: skip
    whole = painted(turned(profile, 32), STEEL)
    head = turned([(r, 0.0), (r, PEG_HEAD_HIGH)], 16)
    shaft = turned([(s, -PEG_LENGTH), (s, 0.0)], 12)
    return whole, {"peg_head": head, "peg_shaft": shaft}


def block() -> trimesh.Trimesh:
    half, b = BLOCK / 2, BEVEL
    corners = []
    for axis in range(3):
        for signs in np.ndindex(2, 2, 2):
            p = (half - b) * (2 * np.array(signs) - 1.0)
            p[axis] += b * np.sign(p[axis])
            corners.append(p)
    mesh = trimesh.convex.convex_hull(np.array(corners))
    mesh.apply_translation([0, 0, half])
    return painted(mesh, OAK)


def noise(shape: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (H, W) in [0, 1] with about `cells` features, tileable."""
    tiled = np.pad(rng.random(cells).astype(np.float32), 2, mode="wrap")
    scale = (shape[0] / cells[0], shape[1] / cells[1])
    big = cv2.resize(tiled, None, fx=scale[1], fy=scale[0], interpolation=cv2.INTER_CUBIC)
    y, x = round(2 * scale[0]), round(2 * scale[1])
    return np.clip(big[y : y + shape[0], x : x + shape[1]], 0, 1)


def planks(rng: np.random.Generator) -> np.ndarray:
    """Mahogany planks, the grain along u, (768, 1024, 3) sRGB in [0, 1]."""
    h, w, rows = 768, 1024, 4
    grain = sum(noise((h, w), (96 * 2**k, 3 * 2**k), rng) / 2**k for k in range(3)) / 1.75
    cloud = sum(noise((h, w), (8 * 2**k, 3 * 2**k), rng) / 2**k for k in range(3)) / 1.75
    y = np.arange(h)[:, None]
    tone = rng.normal(0, 0.04, rows)[y * rows // h]
    seam = np.minimum(y % (h // rows), -y % (h // rows))
    shade = 0.90 + 0.5 * (grain - 0.5) + 0.45 * (cloud - 0.5) + tone
    shade = shade * (1 - 0.5 * np.exp(-((seam / 1.6) ** 2)))
    return np.clip(shade[..., None] * np.array(MAHOGANY), 0, 1)


def main() -> None:
    meshes = {"block": block()}
    for name, made in {"hammer": hammer(), "peg": peg()}.items():
        meshes[name], pieces = made
        meshes |= pieces
    for name, mesh in meshes.items():
        assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0, name
        mesh.export(HERE / f"{name}.obj", digits=6)
        print(name, len(mesh.faces), "faces", mesh.extents.round(4), f"{mesh.volume * 1e6:.1f} cm3")
    bgr = np.round(255 * planks(np.random.default_rng(9))[..., ::-1]).astype(np.uint8)
    cv2.imwrite(str(HERE / "planks.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
