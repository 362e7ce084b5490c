"""The fast renderer: a z-buffer with plain shading, for tests and machines without Mitsuba."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lucibot.core.camera import Camera
from lucibot.core.progress import Progress, silent
from lucibot.providers.renderer.surfaces import (
    Surface,
    linear_to_srgb,
    srgb_to_linear,
    task_surfaces,
)
from lucibot.task import LightSpec, Task

NEAR_M = 0.02


@dataclass(frozen=True, kw_only=True)
class RasterRenderer:
    """Rasterised triangles, lit by the sun without shadows and by the sky."""

    kind: Literal["raster"] = "raster"
    samples: int = 2
    """Samples a pixel and axis."""

    def create(self) -> Rasterizer:
        return Rasterizer(self)


@dataclass
class Rasterizer:
    config: RasterRenderer
    notes: list[str] = field(default_factory=list)

    def render(self, task: Task, *, foreground: bool, progress: Progress = silent) -> np.ndarray:
        """(H, W, 3) uint8 sRGB picture of the initial scene through the task's camera."""
        progress(f"drawing {task.name}")
        n, camera = self.config.samples, task.camera
        fine = camera.resized(camera.width * n, camera.height * n)
        image = np.full((fine.height, fine.width, 3), task.spec.light.ambient, np.float32)
        z = np.full(image.shape[:2], np.inf, np.float32)
        for surface in task_surfaces(task, foreground=foreground):
            _draw(surface, fine, task.spec.light, image, z)
        mean = image.reshape(camera.height, n, camera.width, n, 3).mean((1, 3))
        return np.round(255 * linear_to_srgb(mean)).astype(np.uint8)


def surface_depth(surfaces: list[Surface], camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Labels (H, W) uint8 and depth (H, W) float32 [m] along the optical axis at pixel centres; inf
    where nothing is."""
    z = np.full((camera.height, camera.width), np.inf, np.float32)
    labels = np.zeros(z.shape, np.uint8)
    for s in surfaces:
        corners, _ = clip_near(_to_camera(s.corners_m, camera), [])
        triangle, _ = _rasterize(corners, camera, z)
        labels[triangle >= 0] = s.label
    return labels, z


def _draw(s: Surface, camera: Camera, light: LightSpec, image: np.ndarray, z: np.ndarray) -> None:
    corners = _to_camera(s.corners_m, camera)
    corners, (normals, uv, colors) = clip_near(corners, [s.normals, s.uv, s.colors])
    triangle, weights = _rasterize(corners, camera, z)
    hit = triangle >= 0
    t, b = triangle[hit], weights[hit]
    normal = np.einsum("pc,pck->pk", b, normals[t])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    base = np.einsum("pc,pck->pk", b, colors[t])
    if s.texture is not None:
        base = _sample(s.texture, np.einsum("pc,pck->pk", b, uv[t]))
    travel = np.asarray(light.direction, float) / np.linalg.norm(light.direction)
    sun = np.clip(-(normal @ travel), 0, None) * light.intensity / np.pi
    # A surface sees more of the sky the more it faces up.
    sky = light.ambient * (0.75 + 0.25 * normal[:, 2])
    image[hit] = base * (sun + sky)[:, None]


def _to_camera(corners_m: np.ndarray, camera: Camera) -> np.ndarray:
    T = camera.T_cam_world
    return corners_m.astype(np.float64) @ T[:3, :3].T + T[:3, 3]


def clip_near(corners: np.ndarray, attributes: list[np.ndarray]):
    """Cut triangles (F, 3, 3) in camera coordinates, and their corner attributes, at z = NEAR_M.

    A triangle with one corner behind becomes two, one with two corners behind a smaller one.
    """
    kept = [np.concatenate([corners, *attributes], axis=-1)]
    behind = (corners[..., 2] < NEAR_M).sum(1)
    data = kept.pop()
    out = [data[behind == 0]]
    for k in (1, 2):
        some = data[behind == k]
        if not len(some):
            continue
        # Turn each triangle so that the odd corner out comes first.
        odd = (some[..., 2] < NEAR_M) == (k == 1)
        order = (odd.argmax(1)[:, None] + np.arange(3)) % 3
        a, b, c = np.moveaxis(np.take_along_axis(some, order[..., None], axis=1), 1, 0)
        ab, ac = (_cross(a, p) for p in (b, c))
        if k == 1:
            out += [np.stack([ab, b, c], 1), np.stack([ab, c, ac], 1)]
        else:
            out.append(np.stack([a, ab, ac], 1))
    data = np.concatenate(out)
    splits = np.cumsum([3, *[a.shape[-1] for a in attributes]])[:-1]
    corners, *rest = np.split(data, splits, axis=-1)
    return corners, rest


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    t = (NEAR_M - a[:, 2:3]) / (b[:, 2:3] - a[:, 2:3])
    return a + t * (b - a)


def _rasterize(corners: np.ndarray, camera: Camera, z: np.ndarray):
    """Draw into `z` (H, W); return the index (H, W) int32 of the triangle that is now in front, -1
    elsewhere, and perspective-correct corner weights (H, W, 3)."""
    from lucibot.providers.renderer._fill import fill

    w = 1 / corners[..., 2]
    screen = np.stack(
        [camera.fx * corners[..., 0] * w + camera.cx, camera.fy * corners[..., 1] * w + camera.cy, w],
        -1,
    )
    triangle = np.full(z.shape, -1, np.int32)
    weights = np.zeros((*z.shape, 3), np.float32)
    fill(np.ascontiguousarray(screen), z, triangle, weights)
    return triangle, weights


def _sample(texture, uv: np.ndarray) -> np.ndarray:
    """(P, 3) linear RGB at (P, 2) texture coordinates, repeated, bilinear."""
    import cv2

    image = cv2.imread(str(texture))[..., ::-1]
    linear = srgb_to_linear(image / 255).astype(np.float32)
    h, w = image.shape[:2]
    x, y = uv[:, 0] * w - 0.5, (1 - uv[:, 1]) * h - 0.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]

    def at(i, j):
        return linear[i % h, j % w]

    top = at(y0, x0) * (1 - fx) + at(y0, x0 + 1) * fx
    bottom = at(y0 + 1, x0) * (1 - fx) + at(y0 + 1, x0 + 1) * fx
    return top * (1 - fy) + bottom * fy
