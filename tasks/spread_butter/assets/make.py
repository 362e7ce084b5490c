"""Makes knife.obj, bread.obj, crumb.obj, plate.obj, butter.obj, butter_keys.npz and the textures:
`python make.py`.

knife.obj: one watertight mesh [m]. Object frame: x runs from the handle to the tip, y across the
blade, z up from its flat. The origin is the middle of the blade, which spans x in [-0.040, 0.040]
and y in [-0.011, 0.011]; the handle is raised by 11 mm and ends at x = -0.150.
bread.obj, crumb.obj: the slice, its base at z = 0, and the toasted face that is laid on its top.
butter.obj: a pat, its base centred on the origin. butter_keys.npz: the pat; pressed; half spread;
spread towards -y. All in the pat's frame.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import trimesh

from lucibot.authoring.textures import octaves

HERE = Path(__file__).resolve().parent

STEEL = (0.78, 0.79, 0.80)
BUTTER = (0.96, 0.84, 0.42)
WOOD = (0.300, 0.185, 0.125)
BREAD = (0.112, 0.104, 0.014)
PAT = (0.036, 0.026, 0.016)
BLADE, NECK, END = 0.040, -0.056, -0.150


def knife() -> trimesh.Trimesh:
    """Rings of a rounded outline along x, capped at both ends."""
    x = np.r_[END + 0.007 * (1 - np.cos(np.linspace(0, np.pi / 2, 8))), np.linspace(-0.135, NECK, 16),
              np.linspace(NECK, -BLADE, 10)[1:], np.linspace(-BLADE, 0.026, 14)[1:],
              BLADE - 0.014 * (1 - np.sin(np.linspace(0, np.pi / 2, 9)))[1:]]  # fmt: skip
    at = [END, -0.140, -0.100, NECK, -0.046, -BLADE, -0.02, 0.026, BLADE]
    wide = np.interp(x, at, [0.0060, 0.0078, 0.0066, 0.0040, 0.0052, 0.0085, 0.011, 0.011, 0.011])
    thick = np.interp(
        x, at, [0.0038, 0.0050, 0.0046, 0.0034, 0.0022, 0.0015, 0.0015, 0.0015, 0.0015]
    )
    high = np.interp(x, at, [0.0125, 0.0122, 0.0115, 0.0085, 0.0030, 0.0, 0.0, 0.0, 0.0])
    wide *= np.sqrt(np.clip(1 - ((x - 0.026) / 0.0142).clip(0, 1) ** 2, 0.02, 1))
    end = np.sqrt(np.clip(1 - ((END + 0.007 - x) / 0.0071).clip(0, 1) ** 2, 0.04, 1))
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    c, s = (np.sign(f) * np.abs(f) ** 0.7 for f in (np.cos(turn), np.sin(turn)))
    rings = np.stack([
        np.broadcast_to(x[:, None], (len(x), 24)),
        (wide * end)[:, None] * c, high[:, None] + (thick * end)[:, None] * s,
    ], -1)  # fmt: skip
    n, m = rings.shape[:2]
    quads = [(i * m + j, i * m + (j + 1) % m, (i + 1) * m + (j + 1) % m, (i + 1) * m + j)
             for i in range(n - 1) for j in range(m)]  # fmt: skip
    faces = [t for a, b, c_, d in quads for t in ((a, b, c_), (a, c_, d))]
    ends = n * m + np.arange(2)
    for end_point, ring in zip(ends, (0, n - 1), strict=True):
        faces += [(end_point, ring * m + j, ring * m + (j + 1) % m) for j in range(m)]
        faces[-m:] = [f[::-1] for f in faces[-m:]] if ring == 0 else faces[-m:]
    points = np.concatenate([rings.reshape(-1, 3), rings[[0, -1]].mean(1)])
    return closed(points, np.array(faces), STEEL)


def slice_outline(inset: float) -> np.ndarray:
    """(n, 2) [m]: a square slice whose sides are a little hollow and whose corners are round."""
    turn = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    c, s = (np.sign(f) * np.abs(f) ** 0.36 for f in (np.cos(turn), np.sin(turn)))
    dent = 1 - 0.020 * np.cos(2 * turn) ** 2
    return np.stack([(BREAD[0] / 2 - inset) * c * dent, (BREAD[1] / 2 - inset) * s * dent], -1)


def prism(outlines: list[np.ndarray], heights: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Points and faces of stacked outlines (n, 2) at rising heights, capped by fans."""
    n, k = len(outlines[0]), len(outlines)
    points = [np.c_[o, np.full(n, z)] for o, z in zip(outlines, heights, strict=True)]
    points.append(np.array([[0, 0, heights[0]], [0, 0, heights[-1]]]))
    faces = []
    for i in range(n):
        j = (i + 1) % n
        for r in range(k - 1):
            a, b, c, d = r * n + i, r * n + j, (r + 1) * n + j, (r + 1) * n + i
            faces += [(a, b, c), (a, c, d)]
        faces += [(k * n, j, i), (k * n + 1, (k - 1) * n + i, (k - 1) * n + j)]
    return np.concatenate(points), np.array(faces)


def bread() -> trimesh.Trimesh:
    high = BREAD[2]
    return closed(*prism([slice_outline(0.0015), slice_outline(0.0), slice_outline(0.0),
                          slice_outline(0.0012)], [0.0, 0.002, high - 0.0015, high]), None)  # fmt: skip


def crumb() -> trimesh.Trimesh:
    return closed(*prism([slice_outline(0.0016), slice_outline(0.0020)], [0.0, 0.0004]), None)


def plate() -> trimesh.Trimesh:
    """A surface of revolution."""
    r = [0.0, 0.050, 0.060, 0.070, 0.090, 0.092, 0.0905, 0.070, 0.056, 0.0]
    z = [0.0055, 0.0055, 0.0062, 0.0085, 0.0120, 0.0115, 0.0100, 0.0050, 0.0, 0.0]
    mesh = trimesh.creation.revolve(np.c_[r, z][::-1], sections=96)
    return closed(np.asarray(mesh.vertices), np.asarray(mesh.faces), None)


def sheet(outline, top) -> tuple[np.ndarray, np.ndarray]:
    """A flat body over the unit square: `outline(u, v)` gives x, y [m], `top(u, v)` the height [m];
    u and v run over [-1, 1]."""
    n = 33
    line = np.sin(np.linspace(-np.pi / 2, np.pi / 2, n))
    u, v = np.meshgrid(line, line, indexing="ij")
    x, y = outline(u, v)
    upper = np.stack([x, y, top(u, v)], -1).reshape(-1, 3)
    lower = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1].ravel(), i[1:, :-1].ravel(), i[1:, 1:].ravel(), i[:-1, 1:].ravel()
    faces = [np.c_[a, b, c], np.c_[a, c, d]]
    faces += [f[:, ::-1] + n * n for f in faces]
    rim = np.r_[i[:-1, 0], i[-1, :-1], i[:0:-1, -1], i[0, :0:-1]]
    after, low = np.roll(rim, -1), n * n
    faces += [np.c_[rim, rim + low, after + low], np.c_[rim, after + low, after]]
    return np.concatenate([upper, lower]), np.concatenate(faces)


def pat() -> tuple[np.ndarray, np.ndarray]:
    bevel = 0.0015

    def outline(u, v):
        return PAT[0] / 2 * u, PAT[1] / 2 * v

    def top(u, v):
        edge = np.minimum((1 - np.abs(u)) * PAT[0] / 2, (1 - np.abs(v)) * PAT[1] / 2)
        return PAT[2] - np.clip(bevel - edge, 0, None)

    return sheet(outline, top)


def smear(reach: float, rng_seed: int = 3) -> np.ndarray:
    """(V, 3) [m]: butter drawn out by `reach` [m] towards -y, of the pat's volume."""
    rng = np.random.default_rng(rng_seed)
    phase = rng.uniform(0, 2 * np.pi, 4)
    drawn = np.clip(reach / 0.045, 0, 1)

    def outline(u, v):
        # v = -1 is the drawn end. Corners round off, edges wave.
        back, front = PAT[1] / 2 + 0.002 * drawn, -PAT[1] / 2 - reach
        half = PAT[0] / 2 + 0.0045 * drawn
        half = half * (
            1 + 0.05 * drawn * np.sin(4 * v + phase[0]) + 0.03 * drawn * np.sin(9 * v + phase[1])
        )
        y = back + (front - back) * (1 - v) / 2
        y = (
            y
            + 0.003
            * drawn
            * (np.sin(3 * u + phase[2]) + 0.5 * np.sin(7 * u + phase[3]))
            * (1 - v)
            / 2
        )
        x = u * half * (1 - 0.22 * drawn * np.abs(v) ** 6)
        return x, y * (1 - 0.06 * drawn * np.abs(u) ** 6)

    def top(u, v):
        edge = np.minimum(1 - np.abs(u), 1 - np.abs(v))
        round_ = np.clip(edge / (0.08 + 0.25 * drawn), 0, 1) ** 0.5
        ridge = 0.12 * drawn * np.sin(11 * u + 2 * np.sin(2 * v))
        return 0.0008 + round_ * (1 + ridge + 0.25 * drawn * v)

    points, faces = sheet(outline, top)
    body = trimesh.Trimesh(points, faces, process=False)
    n = len(points) // 2
    # Heights above the rim are scaled to the pat's volume.
    volume = trimesh.Trimesh(*pat(), process=False).volume
    for _ in range(20):
        factor = volume / body.volume
        points[:n, 2] *= factor
        body = trimesh.Trimesh(points, faces, process=False)
    return points


def closed(points: np.ndarray, faces: np.ndarray, colour) -> trimesh.Trimesh:
    """A watertight mesh with merged vertices and outward normals."""
    mesh = trimesh.Trimesh(points, faces, process=False)
    if colour is not None:
        rgba = np.tile([*colour, 1.0], (len(points), 1))
        mesh.visual.vertex_colors = np.round(255 * rgba).astype(np.uint8)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.update_faces(mesh.nondegenerate_faces())
    mesh.remove_unreferenced_vertices()
    mesh.fix_normals()
    assert mesh.is_watertight and mesh.volume > 0
    return mesh


def toast(rng: np.random.Generator, size: int = 512) -> np.ndarray:
    """The slice's face: pale near the crust, toasted towards the middle, pores everywhere."""
    line = np.linspace(-1, 1, size)
    x, y = np.meshgrid(line, line)
    rim = (np.abs(x) ** 5 + np.abs(y) ** 5) ** (1 / 5)
    toasted = np.clip((0.92 - rim) / 0.30, 0, 1) * (
        0.45 + 0.8 * octaves((size, size), (5, 5), rng, 4)
    )
    pale, brown, crust = (np.array(c) for c in
                          ((0.86, 0.78, 0.64), (0.66, 0.42, 0.24), (0.47, 0.27, 0.14)))  # fmt: skip
    rgb = pale + np.clip(toasted, 0, 1)[..., None] * (brown - pale)
    edge = np.clip((rim - 0.95) / 0.05, 0, 1)[..., None]
    rgb = rgb + edge * (crust - rgb)
    pores = octaves((size, size), (48, 48), rng, 3, 0.7)
    return np.clip(rgb * (0.80 + 0.40 * pores)[..., None], 0, 1)


def wood(rng: np.random.Generator, size: int = 1024, planks: int = 6) -> np.ndarray:
    """Dark brown planks, the grain along u, sRGB (size, size, 3) in [0, 1]."""
    v = np.arange(size) / size * planks
    fibre = octaves((size, size), (96, 3), rng, 3)
    cloud = octaves((size, size), (10, 3), rng, 4)
    shade = 0.72 + 0.5 * cloud * (0.6 + 0.8 * fibre)
    shade *= (0.90 + 0.2 * rng.random(planks))[np.floor(v).astype(int)][:, None]
    joint = np.abs(v - np.round(v))[:, None] * size / planks
    shade *= 1 - 0.55 * np.exp(-((joint / 1.6) ** 2))
    return np.clip(shade[..., None] * np.array(WOOD), 0, 1)


def plaster(rng: np.random.Generator, size: int = 512) -> np.ndarray:
    """Light rough plaster, lit from the side."""
    height = octaves((size, size), (40, 40), rng, 3, 0.6)
    slope = np.roll(height, -2, 0) - np.roll(height, 2, 0)
    return np.clip(0.68 + 0.9 * slope[..., None] * np.ones(3), 0, 1)


def main() -> None:
    points, faces = pat()
    meshes = {"knife": knife(), "bread": bread(), "crumb": crumb(), "plate": plate(),
              "butter": closed(points, faces, BUTTER)}  # fmt: skip
    for name, mesh in meshes.items():
        mesh.export(HERE / f"{name}.obj", digits=6)
        size = (mesh.bounds[1] - mesh.bounds[0]).round(4).tolist()
        print(name, len(mesh.faces), "faces", size, f"{mesh.volume * 1e6:.1f} cm3")
    keys = np.stack([points, *(smear(r) for r in (0.004, 0.024, 0.045))])
    np.savez_compressed(
        HERE / "butter_keys.npz", vertices=keys.astype(np.float32), faces=faces.astype(np.int32),
        colors=np.tile(np.float32(BUTTER), (len(points), 1)),
    )  # fmt: skip
    images = {"toast": toast(np.random.default_rng(5)), "wood": wood(np.random.default_rng(4)),
              "plaster": plaster(np.random.default_rng(9))}  # fmt: skip
    for name, image in images.items():
        bgr = np.round(255 * image[..., ::-1]).astype(np.uint8)
        cv2.imwrite(str(HERE / f"{name}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 86])


if __name__ == "__main__":
    main()
