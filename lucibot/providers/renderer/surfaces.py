"""A task's surfaces as triangles with normals, texture coordinates and colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lucibot.core.camera import Camera
from lucibot.task import CREASE_DEG, BackgroundSpec, Look, ObjectSpec, Task


@dataclass(frozen=True, kw_only=True)
class Surface:
    """One object as a soup of F triangles, in the world frame."""

    name: str
    label: int
    """Index into the task's objects + 1; 0 for background."""
    corners_m: np.ndarray
    """(F, 3, 3) float32 [m]."""
    normals: np.ndarray
    """(F, 3, 3) float32, smooth within creases."""
    uv: np.ndarray
    """(F, 3, 2) float32; v grows upwards in the image. Zeros without a texture."""
    colors: np.ndarray
    """(F, 3, 3) float32 linear RGB."""
    texture: Path | None
    roughness: float
    metallic: float


def task_surfaces(task: Task, *, foreground: bool) -> list[Surface]:
    """Background first, then the foreground objects (if asked for) at their initial poses."""
    found = [_surface(task, b, 0) for b in task.spec.background]
    if foreground:
        found += [_surface(task, o, i + 1) for i, o in enumerate(task.objects)]
    return found


def look_through(
    surfaces: list[Surface], camera: Camera
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a camera sees at its pixel centres, by the simulator's own observer.

    Returns:
        labels (H, W) uint8, depth (H, W) float32 [m] along the optical axis (inf where nothing is)
        and the index (H, W) int32 of the triangle seen, counted through all surfaces, -1 for none.
    """
    import torch
    from lucibot_kernels import Observer

    count = [len(s.corners_m) for s in surfaces]
    vertices = np.concatenate([s.corners_m for s in surfaces]).reshape(-1, 3)
    body = np.repeat(np.arange(len(surfaces)), np.array(count) * 3)
    i32 = {"dtype": torch.int32}
    observer = Observer(
        width=camera.width, height=camera.height, fx=camera.fx, fy=camera.fy, cx=camera.cx,
        cy=camera.cy, T_cam_world=camera.T_cam_world, vertices_m=torch.from_numpy(vertices),
        faces=torch.arange(len(vertices), **i32).view(-1, 3),
        vertex_body=torch.as_tensor(body, **i32),
        body_label=torch.tensor([s.label for s in surfaces], **i32),
    )  # fmt: skip
    at_origin = torch.zeros(1, len(surfaces), 3)
    upright = torch.tensor([1.0, 0, 0, 0]).repeat(1, len(surfaces), 1)
    seen = observer.observe(at_origin, upright, with_face=True)
    return (
        seen.label[0].numpy().astype(np.uint8), seen.depth[0].numpy().copy(),
        seen.face[0].numpy().copy(),
    )  # fmt: skip


def _surface(task: Task, spec: ObjectSpec | BackgroundSpec, label: int) -> Surface:
    mesh = task.mesh(spec)
    faces = np.asarray(mesh.faces)
    look = spec.look or Look()
    T = spec.T_world_object
    corners = np.asarray(mesh.vertices)[faces] @ T[:3, :3].T + T[:3, 3]
    normals = corner_normals(mesh) @ T[:3, :3].T
    texture = task.path(look.texture) if look.texture is not None else None
    colors = np.broadcast_to(np.asarray(look.color, float), corners.shape)
    if not look.has_color and mesh.visual.kind == "vertex":
        colors = srgb_to_linear(np.asarray(mesh.visual.vertex_colors)[faces][..., :3] / 255)
    uv = np.zeros((*corners.shape[:2], 2))
    if texture is not None:
        if mesh.visual.kind == "texture" and mesh.visual.uv is not None:
            uv = np.asarray(mesh.visual.uv)[faces] * look.texture_scale
        else:
            uv = _box_uv(np.asarray(mesh.vertices)[faces], texture, look.texture_scale)
    return Surface(
        name=spec.name, label=label, texture=texture,
        corners_m=corners.astype(np.float32), normals=normals.astype(np.float32),
        uv=uv.astype(np.float32), colors=colors.astype(np.float32),
        roughness=look.roughness, metallic=look.metallic,
    )  # fmt: skip


def _box_uv(corners: np.ndarray, texture: Path, width_m: float) -> np.ndarray:
    """(F, 3, 2): the image laid flat on each face along the axis it faces most, centred on the
    object's origin; one image width covers `width_m` metres and then repeats."""
    import cv2

    image = cv2.imread(str(texture))
    aspect = image.shape[1] / image.shape[0]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    axis = np.abs(cross).argmax(1)
    across = np.array([[1, 2], [0, 2], [0, 1]])[axis]
    flat = np.take_along_axis(corners, across[:, None, :], axis=2)
    return 0.5 + flat / width_m * [1.0, aspect]


def corner_normals(mesh) -> np.ndarray:
    """(F, 3, 3): at each corner the area-weighted mean normal of the faces around that vertex which
    make less than `CREASE_DEG` with the corner's own face."""
    faces, area = np.asarray(mesh.faces), np.asarray(mesh.area_faces)
    own = np.asarray(mesh.face_normals)
    around = np.asarray(mesh.vertex_faces)[faces]
    n = own[around]
    near = np.einsum("fcdk,fk->fcd", n, own) > np.cos(np.deg2rad(CREASE_DEG))
    weight = (near & (around >= 0)) * area[around]
    mean = np.einsum("fcd,fcdk->fck", weight, n)
    length = np.linalg.norm(mean, axis=-1, keepdims=True)
    return np.where(length > 1e-12, mean / np.maximum(length, 1e-12), own[:, None])


def srgb_to_linear(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, float)
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
