"""The fast renderer: a z-buffer with plain shading, for tests and machines without Mitsuba."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from einops import reduce
from pydantic import Field

from lucibot.core.camera import Camera
from lucibot.core.config import Config
from lucibot.core.progress import Progress, silent
from lucibot.core.schema import Count
from lucibot.providers.renderer.surfaces import (
    Surface,
    linear_to_srgb,
    look_through,
    srgb_to_linear,
    task_surfaces,
)
from lucibot.task import LightSpec, Task


@dataclass(frozen=True, kw_only=True)
class RasterRenderer(Config):
    """Rasterised triangles, lit by the sun without shadows and by the sky."""

    kind: Literal["raster"] = "raster"
    samples: Annotated[Count, Field(le=16)] = 2
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
        surfaces = task_surfaces(task, foreground=foreground)
        _, _, face = look_through(surfaces, fine)
        image = np.full((*face.shape, 3), task.spec.light.ambient, np.float32)
        first = 0
        for s in surfaces:
            hit = (face >= first) & (face < first + len(s.corners_m))
            image[hit] = _shade(s, face[hit] - first, _rays(fine, hit), fine, task.spec.light)
            first += len(s.corners_m)
        mean = reduce(image, "(h m) (w n) c -> h w c", "mean", m=n, n=n)
        return np.round(255 * linear_to_srgb(mean)).astype(np.uint8)


def _rays(camera: Camera, hit: np.ndarray) -> np.ndarray:
    """(P, 3) world directions through the centres of the pixels that are set in `hit` (H, W)."""
    v, u = np.nonzero(hit)
    d = np.stack([(u + 0.5 - camera.cx) / camera.fx, (v + 0.5 - camera.cy) / camera.fy,
                  np.ones(len(u))], -1)  # fmt: skip
    return d @ camera.T_world_cam[:3, :3].T


def _shade(
    s: Surface, face: np.ndarray, rays: np.ndarray, camera: Camera, light: LightSpec
) -> np.ndarray:
    """(P, 3) linear RGB of the points where `rays` (P, 3) meet the triangles `face` (P,)."""
    # The ray d from the eye e meets the triangle at e + t d = a w_a + b w_b + c w_c; the weights,
    # once scaled to sum to 1, are perspective-correct.
    corners = s.corners_m[face].astype(float) - camera.T_world_cam[:3, 3]
    a, b, c = np.moveaxis(corners, 1, 0)
    weights = np.stack(
        [np.einsum("pk,pk->p", rays, np.cross(p, q)) for p, q in ((b, c), (c, a), (a, b))], -1
    )
    weights /= weights.sum(-1, keepdims=True)
    normal = np.einsum("pc,pck->pk", weights, s.normals[face])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    base = np.einsum("pc,pck->pk", weights, s.colors[face])
    if s.texture is not None:
        base = _sample(s.texture, np.einsum("pc,pck->pk", weights, s.uv[face]))
    travel = np.asarray(light.direction, float) / np.linalg.norm(light.direction)
    sun = np.clip(-(normal @ travel), 0, None) * light.intensity / np.pi
    # A surface sees more of the sky the more it faces up.
    sky = light.ambient * (0.75 + 0.25 * normal[:, 2])
    return base * (sun + sky)[:, None]


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
