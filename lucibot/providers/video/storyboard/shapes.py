"""Meshes as the storyboard draws them: smooth where they are round, cut by planes, bulged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lucibot.providers.video.storyboard.painting import add_normals
from lucibot.task import Look, ObjectSpec, Task


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A mesh ready to draw, in its own frame. Vertices are doubled along creases."""

    vertices: np.ndarray
    """(V, 3) float64 [m]"""
    normals: np.ndarray
    """(V, 3) float64 unit"""
    faces: np.ndarray
    """(F, 3) int32"""
    albedo: np.ndarray
    """(V, 3) float32 linear RGB"""


def object_shape(task: Task, obj: ObjectSpec, *, finest_m: float | None = None) -> Shape:
    """The object's mesh with its colours; edges longer than `finest_m` are split."""
    import trimesh

    mesh = task.mesh(obj)
    color = vertex_albedo(task, mesh, obj.look)
    vertices, faces = np.asarray(mesh.vertices, float), np.asarray(mesh.faces)
    if finest_m is not None:
        joined = np.concatenate([vertices, color], axis=1)
        joined, faces = trimesh.remesh.subdivide_to_size(joined, faces, finest_m, max_iter=12)
        vertices, color = joined[:, :3], joined[:, 3:]
    return smooth(vertices, faces, color)


def vertex_albedo(task: Task, mesh, look: Look | None) -> np.ndarray:
    """(V, 3) linear RGB of each vertex, from the look, the mesh's texture or its vertex colours."""
    count = len(mesh.vertices)
    uv = getattr(mesh.visual, "uv", None)
    if look is not None and look.texture is not None and uv is not None:
        import cv2

        image = cv2.imread(str(task.path(look.texture)))[..., ::-1]
        at = np.asarray(uv) * look.texture_scale
        h, w = image.shape[:2]
        x, y = (at[:, 0] % 1 * (w - 1)).astype(int), ((1 - at[:, 1]) % 1 * (h - 1)).astype(int)
        return to_linear(image[y, x] / 255)
    if look is not None:
        return np.tile(np.asarray(look.color, float), (count, 1))
    if mesh.visual.kind == "texture":
        mesh.visual = mesh.visual.to_color()
    return to_linear(np.asarray(mesh.visual.vertex_colors)[:, :3] / 255)


def to_linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, None)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def smooth(
    vertices: np.ndarray, faces: np.ndarray, albedo: np.ndarray, *, crease_deg: float = 35.0
) -> Shape:
    """Vertex normals averaged over neighbours within `crease_deg`; sharper edges are split.

    At each corner the normals of the faces around the vertex that turn less than the crease angle
    against the corner's own face are averaged, then equal corners become one vertex again.
    """
    p = vertices[faces]
    weighted = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    area = np.linalg.norm(weighted, axis=1, keepdims=True)
    unit = weighted / np.maximum(area, 1e-18)
    _, merged = np.unique(np.round(vertices, 7), axis=0, return_inverse=True)
    corner_vertex = merged.ravel()[faces].ravel()
    corner_face = np.repeat(np.arange(len(faces)), 3)
    order = np.argsort(corner_vertex, kind="stable")
    starts = np.searchsorted(corner_vertex[order], np.arange(corner_vertex.max() + 2))
    degree = np.diff(starts)
    normals = np.zeros((len(corner_face), 3))
    cosine = np.cos(np.deg2rad(crease_deg))
    # Rotating the list of corners around each vertex pairs every corner with every other one.
    slot = np.empty(len(order), int)
    slot[order] = np.arange(len(order)) - starts[corner_vertex[order]]
    for step in range(int(degree.max())):
        live = degree[corner_vertex] > step
        other = order[
            starts[corner_vertex[live]] + (slot[live] + step) % degree[corner_vertex[live]]
        ]
        own, near = corner_face[live], corner_face[other]
        close = (unit[own] * unit[near]).sum(1) > cosine
        normals[live] += weighted[near] * close[:, None]
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-18)
    corners = np.concatenate(
        [vertices[faces].reshape(-1, 3), albedo[faces].reshape(-1, 3), np.round(normals, 3)], axis=1
    )
    _, first, inverse = np.unique(
        np.round(corners, 6), axis=0, return_index=True, return_inverse=True
    )
    return Shape(
        vertices=corners[first, :3], normals=normals[first],
        faces=inverse.reshape(-1, 3).astype(np.int32),
        albedo=corners[first, 3:6].astype(np.float32),
    )  # fmt: skip


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, the mean of the faces around each vertex by area; zero where they have
    none."""
    out = np.zeros_like(vertices)
    add_normals(vertices, faces, out)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-15)


def cut_by_plane(shape: Shape, point: np.ndarray, normal: np.ndarray, *, inside: float) -> Shape:
    """The part of `shape` on the side that `normal` points to, closed by a flat face.

    Args:
        point: (3,) [m] on the plane.
        normal: (3,) unit.
        inside: brightness of the cut face relative to the skin around it.
    """
    from trimesh.intersections import slice_faces_plane

    attributes = np.concatenate([shape.vertices, shape.albedo], axis=1)
    vertices, faces, _ = slice_faces_plane(shape.vertices, shape.faces, normal, point)
    # The slice keeps no attributes: each new vertex takes the albedo of the nearest old one.
    from scipy.spatial import cKDTree

    _, nearest = cKDTree(attributes[:, :3]).query(vertices)
    albedo = shape.albedo[nearest].astype(float)
    cap_points, cap_faces = _cap(vertices, faces, point, normal)
    if len(cap_faces) == 0:
        return smooth(vertices, faces, albedo)
    cap_albedo = np.tile(shape.albedo.mean(0) * inside, (len(cap_points), 1))
    return smooth(
        np.concatenate([vertices, cap_points]), np.concatenate([faces, cap_faces + len(vertices)]),
        np.concatenate([albedo, cap_albedo]),
    )  # fmt: skip


def _cap(vertices, faces, point, normal, rings: int = 8):
    """A fan of rings that closes the cut; sections are taken to be star-shaped."""
    # `smooth` doubled the vertices along creases, so edges are counted between merged positions.
    _, index, merged = np.unique(
        np.round(vertices, 6), axis=0, return_index=True, return_inverse=True
    )
    f = merged.ravel()[faces]
    edges = np.sort(np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]), axis=1)
    edges, count = np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0, return_counts=True)
    rim = np.unique(edges[count == 1])
    p = vertices[index[rim]]
    p = p[np.abs((p - point) @ normal) < 1e-5]
    if len(p) < 3:
        return np.zeros((0, 3)), np.zeros((0, 3), int)
    side = np.cross(normal, [0.0, 0.0, 1.0])
    if np.linalg.norm(side) < 1e-3:
        side = np.cross(normal, [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    up = np.cross(side, normal)
    centre = 0.5 * (p.min(0) + p.max(0))
    angle = np.arctan2((p - centre) @ up, (p - centre) @ side)
    p = p[np.argsort(angle)]
    n = len(p)
    points = np.concatenate([centre + (p - centre) * s for s in np.linspace(1, 1 / rings, rings)])
    points = np.concatenate([points, centre[None]])
    j, k = np.arange(n), (np.arange(n) + 1) % n
    out = []
    for r in range(rings - 1):
        a, b = r * n, (r + 1) * n
        out += [np.stack([a + j, a + k, b + j], -1), np.stack([b + j, a + k, b + k], -1)]
    out.append(np.stack([(rings - 1) * n + j, (rings - 1) * n + k, np.full(n, rings * n)], -1))
    out = np.concatenate(out)
    # The cap faces away from the kept side.
    a, b, c = points[out[0]]
    if np.cross(b - a, c - a) @ normal > 0:
        out = out[:, ::-1]
    return points, out


def deform_piece(
    shape: Shape, point: np.ndarray, normal: np.ndarray, key: np.ndarray, *,
    tool_edge_m: float, notch_m: float,
) -> np.ndarray:  # fmt: skip
    """Vertices (V, 3) [m, object frame] of one piece at one moment.

    Args:
        point, normal: the cut; `normal` (3,) is horizontal and points into this piece.
        key: (7,) along, out, up [m], turn, tilt [deg], bulge [m], sag.
        tool_edge_m: how low the tool has been; above it the notch is open.
        notch_m: full width of the notch.
    """
    from scipy.spatial.transform import Rotation

    along_m, out_m, up_m, turn, tilt, bulge, sag = key
    v = shape.vertices.copy()
    out_of_cut = (v - point) @ normal
    base, top = v[:, 2].min(), v[:, 2].max()
    height = (v[:, 2] - base) / (top - base)
    # The notch: material beside the blade's flanks gives way, most at the cut.
    passed = np.clip((v[:, 2] - tool_edge_m) / 0.006, 0, 1)
    v += normal * (0.5 * notch_m * passed * np.exp(-out_of_cut / 0.010))[:, None]
    # The bulge: sides swell at half height, the top sags towards the cut.
    middle = v.mean(0)
    outward = v[:, :2] - middle[:2]
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    away = np.clip(out_of_cut / 0.015, 0, 1)
    v[:, :2] += outward * (bulge * np.sin(np.pi * np.clip(height, 0, 1)) * away)[:, None]
    v[:, 2] -= sag * (top - base) * height * (0.4 + 0.6 * np.exp(-out_of_cut / 0.03))
    direction = np.cross([0.0, 0.0, 1.0], normal)
    pivot = np.array([middle[0], middle[1], base])
    R = Rotation.from_rotvec(np.deg2rad(turn) * np.array([0, 0, 1.0])).as_matrix()
    R = Rotation.from_rotvec(np.deg2rad(tilt) * direction).as_matrix() @ R
    v = (v - pivot) @ R.T + pivot
    return v + along_m * direction + out_m * normal + np.array([0, 0, up_m])


def box_shape(size_m: np.ndarray, color) -> Shape:
    import trimesh

    m = trimesh.creation.box(extents=size_m)
    m.apply_translation([0, 0, size_m[2] / 2])
    return smooth(np.asarray(m.vertices), np.asarray(m.faces), np.tile(color, (len(m.vertices), 1)))


def ball_shape(radius_m: float, color) -> Shape:
    import trimesh

    m = trimesh.creation.icosphere(subdivisions=3, radius=radius_m)
    m.apply_translation([0, 0, radius_m])
    return smooth(np.asarray(m.vertices), np.asarray(m.faces), np.tile(color, (len(m.vertices), 1)))
