"""What the scripts that make a task's meshes share."""

from __future__ import annotations

import numpy as np
import trimesh


def loft(rings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rings (S, R, 3), all counter-clockwise seen against the sweep, to a closed surface: points
    (S * R + 2, 3) and faces (F, 3)."""
    s, r, _ = rings.shape
    i = np.arange(s - 1)[:, None] * r
    a, b = i + np.arange(r), i + (np.arange(r) + 1) % r
    sides = np.concatenate([np.stack([a, b, a + r], -1), np.stack([b, b + r, a + r], -1)])
    points = np.concatenate([rings.reshape(-1, 3), rings[:1].mean(1), rings[-1:].mean(1)])
    k, kn, last = np.arange(r), (np.arange(r) + 1) % r, (s - 1) * r
    first_cap = np.stack([kn, k, np.full(r, s * r)], -1)
    last_cap = np.stack([last + k, last + kn, np.full(r, s * r + 1)], -1)
    return points, np.concatenate([sides.reshape(-1, 3), first_cap, last_cap])


def closed(points: np.ndarray, faces: np.ndarray, colours: np.ndarray) -> trimesh.Trimesh:
    """A watertight mesh with merged vertices, outward normals and vertex colours (V, 3) sRGB in
    [0, 1]."""
    mesh = trimesh.Trimesh(points, faces, process=False)
    rgba = np.concatenate([np.asarray(colours), np.ones((len(points), 1))], 1)
    mesh.visual.vertex_colors = np.round(255 * rgba).astype(np.uint8)
    mesh.merge_vertices(merge_tex=False, merge_norm=True)
    mesh.update_faces(mesh.nondegenerate_faces())
    mesh.remove_unreferenced_vertices()
    mesh.fix_normals()
    assert mesh.is_watertight and mesh.volume > 0
    return mesh
