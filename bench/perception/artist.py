"""The second artist: draws a plan in a style of its own, and says what it drew.

Flat-shaded triangles in the light of a lamp of its own, patterns that crawl, shadows, one of which
nothing casts, arms that are chains of capsules with a gripper or a hand. It shares with the storyboard the
task's meshes and base colours and nothing else; soft things are surfaces around the simulation's
particles. The scene's first frame is drawn in the same style, so that a clip goes on from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numba
import numpy as np
import torch
import trimesh
from lucibot_kernels import Observer
from skimage.measure import marching_cubes

from lucibot.core.camera import Camera
from lucibot.core.progress import Progress, silent
from lucibot.providers.renderer.surfaces import Surface, linear_to_srgb, task_surfaces
from lucibot.task import Task

from .hands import Style, hand_parts
from .paths import Plan

SAMPLES = 2
"""Samples a pixel and axis."""
HAND, EXTRA = 251, 252
"""Labels of what belongs to no object."""
SHADOW_PX = 512
BIAS_M = 0.006


@dataclass
class Part:
    """Triangles of one label, in the world."""

    label: int
    vertices: np.ndarray
    """(V, 3) [m, world]"""
    faces: np.ndarray
    """(F, 3)"""
    colors: np.ndarray
    """(F, 3) linear RGB."""
    material: np.ndarray
    """(V, 3) [m] where a vertex lies in the thing's own pattern."""
    smooth: bool = False


@dataclass(frozen=True, kw_only=True)
class Drawing:
    rgb: np.ndarray
    """(H, W, 3) float32 in [0, 255]."""
    labels: np.ndarray
    """(H, W) uint8."""


@dataclass
class Artist:
    """Draws one task's plans; also a `Renderer` of its first moment, for `build_view`."""

    task: Task
    seed: int
    plan: Plan | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 5])
        c = self.task.camera
        self.camera = c.resized(c.width * SAMPLES, c.height * SAMPLES)
        angle = rng.uniform(0, 2 * np.pi)
        # From above and from a side of its own.
        self.sun = np.array([0.55 * np.cos(angle), 0.55 * np.sin(angle), -1.0])
        self.sun /= np.linalg.norm(self.sun)
        self.sun_rgb = np.array([1.02, 0.98, 0.9]) * rng.uniform(0.75, 0.9)
        self.sky_rgb = np.array([0.42, 0.45, 0.5]) * rng.uniform(0.9, 1.1)
        self.style = Style.of(self.seed)
        surfaces = task_surfaces(self.task, foreground=True)
        self.background = [
            self._still(s, k) for k, s in enumerate(s for s in surfaces if s.label == 0)
        ]
        self.looks = {s.label: _mean_colors(s) for s in surfaces if s.label}
        self.meshes = {o.name: self.task.mesh(o) for o in self.task.objects}
        self.middle = np.mean([o.position_m for o in self.task.objects], axis=0)
        self._shadow_camera()
        self._surfacing: dict[str, float] = {}
        self._scene: tuple | None = None
        rate = 1.0 + rng.uniform(0, 1)
        self._blob = rng.uniform(0.2, 0.8, 2), rng.uniform(-0.25, 0.25, 2), rate

    # -- the scene's first moment ----------------------------------------------------------------

    def render(self, task: Task, *, foreground: bool, progress: Progress = silent) -> np.ndarray:
        """(H, W, 3) uint8. Without the foreground it is a plate with small errors, as a plate that a
        model filled in has them: a little beside, a little lighter, in patches."""
        progress(f"drawing {task.name}")
        parts = self._first_parts() if foreground else []
        rgb = self._drawn(parts, t=0, blob=0.0).rgb
        if not foreground:
            rng = np.random.default_rng([self.seed, 6])
            h, w = rgb.shape[:2]
            patches = rng.normal(size=(6, 8, 3)).astype(np.float32) * 2.0
            rgb = rgb * rng.uniform(0.98, 1.02, 3) + cv2.resize(
                patches, (w, h), interpolation=cv2.INTER_CUBIC
            )
            shift = np.float32([[1, 0, rng.uniform(-0.7, 0.7)], [0, 1, rng.uniform(-0.7, 0.7)]])
            rgb = cv2.warpAffine(
                rgb.astype(np.float32), shift, (w, h), borderMode=cv2.BORDER_REPLICATE
            )
        return np.clip(np.round(rgb), 0, 255).astype(np.uint8)

    def _first_parts(self) -> list[Part]:
        return self._objects(0, crawl=0.0)

    # -- frames ----------------------------------------------------------------------------------

    def frame(self, t: int) -> Drawing:
        parts = self._objects(t, crawl=0.003 * t / self.plan.fps)
        for h in self.plan.hands:
            if h.present[t]:
                for mesh, color in hand_parts(
                    self.style, h.T_world_hand[t], h.opening_m[t], h.shoulder_m
                ):
                    parts.append(_plain(HAND, mesh, color))
        if t >= self.plan.extra.get("appears", np.inf):
            place, radius, color = self.plan.extra["new"]
            ball = trimesh.creation.icosphere(subdivisions=2, radius=radius)
            ball.apply_translation([*place[:2], place[2] + radius])
            parts.append(_plain(EXTRA, ball, color))
        seconds = t / self.plan.fps
        return self._drawn(parts, t=t, blob=float(np.clip(seconds - 0.8, 0, 1)))

    def _objects(self, t: int, crawl: float) -> list[Part]:
        parts = []
        for o in self.task.objects:
            label, plan = self.task.label(o.name), self.plan
            s, p = plan.scale[o.name][t], plan.pivot[o.name][t]
            if o.is_rigid:
                mesh = self.meshes[o.name]
                T = plan.poses[o.name][t]
                own = np.asarray(mesh.vertices, float)
                v = own @ T[:3, :3].T + T[:3, 3]
                part = Part(label, v, np.asarray(mesh.faces), self.looks[label], own + crawl)
            else:
                part = self._soft(o, label, t, crawl)
            part.vertices = p + s * (part.vertices - p)
            parts.append(part)
        return parts

    def _soft(self, o, label: int, t: int, crawl: float) -> Part:
        """The surface around particles: where their density is as high as at first at the surface."""
        first, now = self.plan.clouds[o.name][0], self.plan.clouds[o.name][t]
        size = o.material.particle_size_m
        if o.name not in self._surfacing:
            self._surfacing[o.name] = _level(self.meshes[o.name], first, size)
        vertices, faces = _surface(now, size, self._surfacing[o.name])
        from scipy.spatial import cKDTree

        near = cKDTree(now).query(vertices)[1]
        color = np.tile(self.looks[label].mean(0), (len(faces), 1))
        material = first[near] + 0.5 * (vertices - now[near]) + crawl
        if o.material.kind == "sand":
            material = material * 3.0
        return Part(label, vertices, faces, color, material, smooth=True)

    def _still(self, s: Surface, k: int) -> Part:
        v = s.corners_m.reshape(-1, 3).astype(float)
        return Part(0, v, np.arange(len(v)).reshape(-1, 3), _mean_colors(s), v + 0.37 * k)

    def _shadow_camera(self) -> None:
        away = self.middle - 3.0 * self.sun
        up = (0.0, 1.0, 0.0) if abs(self.sun[1]) < 0.7 else (1.0, 0.0, 0.0)
        self.lamp = Camera.look_at(
            position=tuple(away), target=tuple(self.middle), up=up, vertical_fov_deg=20.0,
            width=SHADOW_PX, height=SHADOW_PX,
        )  # fmt: skip

    def _drawn(self, parts: list[Part], *, t: int, blob: float) -> Drawing:
        if self._scene is None:
            self._scene = self._empty()
        bare, points, normal, depth = self._scene
        _, lit_from, _ = _look(self.lamp, self.background + parts)
        lamp = _lamp(self.lamp)
        linear = (
            bare[..., :3] + bare[..., 3:] * _lit_picture(points, normal, lit_from, lamp)[..., None]
        )
        labels = np.zeros(linear.shape[:2], np.uint8)
        if parts:
            label, _, face = _look(self.camera, parts, behind=depth)
            n = SAMPLES
            rows, columns = (np.flatnonzero((face >= 0).any(k)) // n for k in (1, 0))
            if len(rows):
                crop = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                fine = tuple(slice(c.start * n, c.stop * n) for c in crop)
                window = linear[crop].repeat(n, 0).repeat(n, 1)
                _shade(
                    window, face[fine], self.camera.rays[fine], self.camera.T_world_cam[:3, 3],
                    *_packed(parts), self.sun, self.sun_rgb, self.sky_rgb, _LATTICE, lit_from, *lamp,
                )  # fmt: skip
                h, w = window.shape[:2]
                linear[crop] = cv2.resize(window, (w // n, h // n), interpolation=cv2.INTER_AREA)
                labels[crop] = label[fine][n // 2 :: n, n // 2 :: n]
        linear *= self._invented_shadow(t, blob, linear.shape[:2])[..., None]
        at = np.clip(linear * (len(_SRGB) - 1), 0, len(_SRGB) - 1).astype(np.int32)
        return Drawing(rgb=_SRGB[at], labels=labels)

    def _empty(self):
        """The scene without its objects, at one sample a pixel: (H, W, 6) what the sky and what the
        lamp give it, places (H, W, 3), normals (H, W, 3); and depth at all samples."""
        c = self.task.camera
        _, fine, _ = _look(self.camera, self.background)
        _, depth, face = _look(c, self.background)
        h, w = depth.shape
        full = np.zeros((h, w, 3), np.float32)
        shadowless = np.full((1, 1), np.inf, np.float32)
        lamp = _lamp(self.lamp)
        packed = _packed(self.background)
        sky, both = full.copy(), full.copy()
        sky[:] = both[:] = self.sky_rgb
        eye = c.T_world_cam[:3, 3]
        _shade(
            sky,
            face,
            c.rays,
            eye,
            *packed,
            self.sun,
            0 * self.sun_rgb,
            self.sky_rgb,
            _LATTICE,
            shadowless,
            *lamp,
        )
        _shade(
            both,
            face,
            c.rays,
            eye,
            *packed,
            self.sun,
            self.sun_rgb,
            self.sky_rgb,
            _LATTICE,
            shadowless,
            *lamp,
        )
        points = (eye + c.rays * np.where(np.isfinite(depth), depth, 100.0)[..., None]).astype(
            np.float32
        )
        v, f = packed[0], packed[1]
        n = np.cross(v[f[:, 1]] - v[f[:, 0]], v[f[:, 2]] - v[f[:, 0]])
        n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)
        normal = n[np.maximum(face, 0)].astype(np.float32)
        return np.concatenate([sky, both - sky], -1).astype(np.float32), points, normal, fine

    def _invented_shadow(self, t: int, strength: float, shape) -> np.ndarray:
        """(H, W) what is left of the light where a shadow drifts that nothing casts."""
        h, w = shape
        start, way, rate = self._blob
        along = 0.0 if self.plan is None else t / max(1, len(self.plan) - 1)
        x, y = (start + way * np.sin(rate * np.pi * along)) * [w, h]
        across = np.exp(-(((np.arange(w, dtype=np.float32) - x) / (0.13 * w)) ** 2))
        down = np.exp(-(((np.arange(h, dtype=np.float32) - y) / (0.09 * h)) ** 2))
        return 1 - np.float32(0.28 * strength) * down[:, None] * across


class Finish:
    """What comes between the drawing and the file: a light that drifts, blur, grain."""

    def __init__(self, seed: int, frames: int):
        rng = np.random.default_rng([seed, 7])
        t = np.linspace(0, 1, frames)
        self.gain = 1 + 0.035 * rng.uniform(-1, 1, 3) * np.sin(
            np.pi * t[:, None] * rng.uniform(0.5, 1.2)
        )
        self.gain *= 1 + rng.uniform(-0.03, 0.03) * t[:, None]
        self.rng = rng

    def __call__(self, rgb: np.ndarray, t: int) -> np.ndarray:
        out = cv2.GaussianBlur(rgb * self.gain[t].astype(np.float32), (0, 0), 0.5)
        out += self.rng.normal(size=out.shape).astype(np.float32) * 1.8
        return np.clip(np.round(out), 0, 255).astype(np.uint8)


def _plain(label: int, mesh: trimesh.Trimesh, color) -> Part:
    v = np.asarray(mesh.vertices, float)
    return Part(
        label, v, np.asarray(mesh.faces), np.tile(color, (len(mesh.faces), 1)), v * 0.0 + 0.5
    )


def _mean_colors(s: Surface) -> np.ndarray:
    """(F, 3) one linear colour a triangle: flat, a texture's mean where it has one."""
    if s.texture is None:
        return s.colors.mean(1).astype(float)
    image = cv2.imread(str(s.texture))[..., ::-1] / 255.0
    mean = (image**2.2).mean((0, 1))
    return np.tile(mean, (len(s.corners_m), 1))


def _look(camera: Camera, parts: list[Part], behind: np.ndarray | None = None):
    """Labels, depth and index of the triangle (H, W) that a camera sees, counted through all parts.

    Args:
        behind: (H, W) depth [m] of what stands behind them.
    """
    vertices = np.concatenate([p.vertices for p in parts]).astype(np.float32)
    offset = np.cumsum([0] + [len(p.vertices) for p in parts])
    faces = np.concatenate([p.faces + o for p, o in zip(parts, offset, strict=False)]).astype(
        np.int32
    )
    body = np.repeat(np.arange(len(parts)), np.diff(offset)).astype(np.int32)
    labels = np.array([p.label for p in parts], np.int32)
    far = None if behind is None else torch.from_numpy(behind)
    observer = Observer(
        width=camera.width, height=camera.height, fx=camera.fx, fy=camera.fy, cx=camera.cx, cy=camera.cy,
        T_cam_world=camera.T_cam_world, vertices_m=torch.from_numpy(vertices),
        faces=torch.from_numpy(faces), vertex_body=torch.from_numpy(body),
        body_label=torch.from_numpy(labels), background_depth_m=far,
    )  # fmt: skip
    still = torch.zeros(1, len(parts), 3), torch.tensor([1.0, 0, 0, 0]).repeat(1, len(parts), 1)
    seen = observer.observe(*still, with_face=True)
    return (
        seen.label[0].numpy().astype(np.uint8),
        seen.depth[0].numpy().copy(),
        seen.face[0].numpy().copy(),
    )


def _packed(parts: list[Part]):
    """Vertices (V, 3), faces (F, 3), normals (V, 3), which faces are smooth (F,), colours (F, 3) and
    places in the pattern (V, 3) of all parts."""
    offset = np.cumsum([0] + [len(p.vertices) for p in parts])
    v = np.concatenate([p.vertices for p in parts])
    f = np.concatenate([p.faces + o for p, o in zip(parts, offset, strict=False)])
    normals = []
    for p in parts:
        n = np.zeros_like(p.vertices)
        if p.smooth:
            a, b, c = (p.vertices[p.faces[:, k]] for k in range(3))
            whole = np.cross(b - a, c - a)
            for k in range(3):
                np.add.at(n, p.faces[:, k], whole)
        normals.append(n)
    return (
        v, f, np.concatenate(normals),
        np.concatenate([np.full(len(p.faces), p.smooth) for p in parts]),
        np.concatenate([p.colors for p in parts]).astype(float),
        np.concatenate([p.material for p in parts]),
    )  # fmt: skip


def _lamp(lamp: Camera):
    return lamp.T_cam_world, np.array([lamp.fx, lamp.fy, lamp.cx, lamp.cy])


_SRGB = (255 * linear_to_srgb(np.linspace(0, 1, 1 << 14))).astype(np.float32)
_LATTICE = np.random.default_rng(77).uniform(-1, 1, (64, 64, 64)).astype(np.float32)


@numba.njit(cache=True)
def _noise(lattice, x, y, z):
    """In about [-1, 1], smooth."""
    i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    a, b, c = x - i, y - j, z - k
    out = 0.0
    for n in range(8):
        di, dj, dk = n & 1, (n >> 1) & 1, (n >> 2) & 1
        w = (a if di else 1 - a) * (b if dj else 1 - b) * (c if dk else 1 - c)
        out += w * lattice[(i + di) & 63, (j + dj) & 63, (k + dk) & 63]
    return out


@numba.njit(cache=True)
def _lit(x, y, z, lit_from, T, K):
    """How much of the lamp reaches a point: a few looks around it."""
    size = lit_from.shape[0]
    if size == 1:
        return 1.0
    depth = T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3]
    u = K[0] * (T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3]) / depth + K[2]
    v = K[1] * (T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3]) / depth + K[3]
    if u < 4 or v < 4 or u > size - 4 or v > size - 4:
        return 1.0
    out = 0.0
    for n in range(9):
        du, dv = 1.7 * (n % 3 - 1), 1.7 * (n // 3 - 1)
        out += depth < lit_from[int(v + dv), int(u + du)] + BIAS_M
    return out / 9


@numba.njit(cache=True)
def _lit_picture(points, normals, lit_from, lamp):
    T, K = lamp
    out = np.empty(points.shape[:2], np.float32)
    for v in range(out.shape[0]):
        for u in range(out.shape[1]):
            p, n = points[v, u], normals[v, u]
            out[v, u] = _lit(
                p[0] + 0.004 * n[0], p[1] + 0.004 * n[1], p[2] + 0.004 * n[2], lit_from, T, K
            )
    return out


@numba.njit(cache=True)
def _shade(
    out,
    face,
    rays,
    eye,
    v,
    f,
    vn,
    smooth,
    colors,
    m,
    sun,
    sun_rgb,
    sky_rgb,
    lattice,
    lit_from,
    T,
    K,
):
    """Light, linear RGB, of each pixel (H, W, 3) that a triangle is seen in."""
    d, e1, e2, n, q = np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            k = face[row, col]
            if k < 0:
                continue
            i0, i1, i2 = f[k, 0], f[k, 1], f[k, 2]
            for c in range(3):
                e1[c], e2[c] = v[i1, c] - v[i0, c], v[i2, c] - v[i0, c]
            for c in range(3):
                a, b = (c + 1) % 3, (c + 2) % 3
                n[c] = e1[a] * e2[b] - e1[b] * e2[a]
            area = n[0] ** 2 + n[1] ** 2 + n[2] ** 2
            along, to = 0.0, 0.0
            for c in range(3):
                along += n[c] * rays[row, col, c]
                to += n[c] * (v[i0, c] - eye[c])
            if area < 1e-24 or abs(along) < 1e-15:
                continue
            for c in range(3):
                d[c] = eye[c] + rays[row, col, c] * to / along - v[i0, c]
            w1, w2 = 0.0, 0.0
            for c in range(3):
                a, b = (c + 1) % 3, (c + 2) % 3
                w1 += (d[a] * e2[b] - d[b] * e2[a]) * n[c]
                w2 += (e1[a] * d[b] - e1[b] * d[a]) * n[c]
            w1, w2 = min(max(w1 / area, 0.0), 1.0), min(max(w2 / area, 0.0), 1.0)
            w0 = 1 - w1 - w2
            if smooth[k]:
                for c in range(3):
                    n[c] = w0 * vn[i0, c] + w1 * vn[i1, c] + w2 * vn[i2, c]
            length = np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2) + 1e-15
            side = -1.0 if along > 0 else 1.0
            facing = 0.0
            for c in range(3):
                n[c] *= side / length
                facing -= n[c] * sun[c]
                q[c] = w0 * m[i0, c] + w1 * m[i1, c] + w2 * m[i2, c]
            light = 0.0
            if facing > 0:
                light = facing * _lit(
                    d[0] + v[i0, 0] + 0.004 * n[0], d[1] + v[i0, 1] + 0.004 * n[1],
                    d[2] + v[i0, 2] + 0.004 * n[2], lit_from, T, K,
                )  # fmt: skip
            pattern = 1 + 0.16 * _noise(lattice, 38 * q[0], 38 * q[1], 38 * q[2])
            pattern += 0.10 * _noise(lattice, 140 * q[0], 140 * q[1], 140 * q[2])
            for c in range(3):
                got = light * sun_rgb[c] + (0.75 + 0.25 * n[2]) * sky_rgb[c]
                out[row, col, c] = colors[k, c] * pattern * got


def _density(points: np.ndarray, size: float):
    """A grid of how many particles are near, its first node, and its cell [m]."""
    from scipy.ndimage import gaussian_filter

    cell = 0.6 * size
    lower = points.min(0) - 4 * size
    shape = np.ceil((points.max(0) + 4 * size - lower) / cell).astype(int) + 1
    # A thing torn far apart is drawn on a coarser grid.
    while np.prod(shape) > 3_000_000:
        cell *= 1.4
        shape = np.ceil((points.max(0) + 4 * size - lower) / cell).astype(int) + 1
    grid = np.zeros(tuple(shape), np.float32)
    at = (points - lower) / cell
    low = np.floor(at).astype(int)
    part = at - low
    for corner in np.ndindex(2, 2, 2):
        w = np.prod(np.where(corner, part, 1 - part), axis=1)
        np.add.at(grid, tuple((low + corner).T), w)
    return gaussian_filter(grid, 0.62 * size / cell) * (size / cell) ** 3, lower, cell


def _level(mesh: trimesh.Trimesh, first: np.ndarray, size: float) -> float:
    """The density at which the surface around the first particles holds as much as the mesh does."""
    grid, _, cell = _density(first, size)
    wanted = abs(mesh.volume) / cell**3
    levels = np.sort(grid[grid > 1e-4 * grid.max()])[::-1]
    return float(
        np.clip(levels[min(int(wanted), len(levels) - 1)], 0.08 * grid.max(), 0.6 * grid.max())
    )


def _surface(points: np.ndarray, size: float, level: float):
    grid, lower, cell = _density(points, size)
    v, f, _, _ = marching_cubes(grid, min(level, 0.9 * float(grid.max())))
    # scikit-image turns its triangles the other way round.
    return v * cell + lower, np.ascontiguousarray(f[:, ::-1])
