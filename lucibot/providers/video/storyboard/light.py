"""Light and soft shadows of the storyboard: one sun disc and a sky, each a few directions."""

from __future__ import annotations

import numpy as np

from lucibot.core.camera import Camera
from lucibot.providers.video.storyboard.painting import draw_height, light_reaching
from lucibot.task import LightSpec

REGION_M = 0.96
"""Side of the square around the objects in which shadows are cast."""
BIAS_M = 0.006
SUN_SAMPLES = 7
SKY_SAMPLES = 16


class Lights:
    """The task's light as weighted directions with a shadow map each.

    Maps of casters are pairs (sun, sky): the sky's are coarser, for its shadows are soft.
    """

    def __init__(self, spec: LightSpec, centre_m: np.ndarray):
        sun = -np.asarray(spec.direction, float)
        sun /= np.linalg.norm(sun)
        radius = 1.3 * np.tan(np.deg2rad(spec.angular_diameter_deg) / 2)
        side, up = _basis(sun)
        golden = np.pi * (3 - np.sqrt(5))
        share = spec.intensity / (spec.intensity + np.pi * spec.ambient)
        disc, dome = [], []
        for k in range(SUN_SAMPLES):
            r, a = radius * np.sqrt((k + 0.5) / SUN_SAMPLES), k * golden
            disc.append(sun + r * (np.cos(a) * side + np.sin(a) * up))
        for k in range(SKY_SAMPLES):
            z, a = 1 - (k + 0.5) / SKY_SAMPLES * 0.7, k * golden + 0.4
            dome.append([np.sqrt(1 - z * z) * np.cos(a), np.sqrt(1 - z * z) * np.sin(a), z])
        # A level surface receives 1 in all: `share` from the sun, the rest from the sky.
        self.sun = _Group(np.asarray(disc), share / SUN_SAMPLES / sun[2], centre_m, 0.005)
        self.sky = _Group(np.asarray(dome), (1 - share) / SKY_SAMPLES / 0.65, centre_m, 0.010)

    def shadow_maps(self, casters: list[tuple[np.ndarray, np.ndarray]], onto=None):
        """Height maps of meshes given as vertices (V, 3) [m, world] and faces (F, 3) int32, added
        to the maps `onto` of other casters (which stay as they are)."""
        casters = [(v.astype(np.float32), f) for v, f in casters]
        groups = (self.sun, self.sky)
        onto = onto or tuple(g.empty for g in groups)
        return tuple(g.shadow_maps(casters, o) for g, o in zip(groups, onto, strict=True))

    def reaching(self, points: np.ndarray, normals: np.ndarray, maps):
        """Irradiance (n,) without and with casters at points (n, 3) [m, world]."""
        sun = self.sun.reaching(points, normals, maps[0])
        sky = self.sky.reaching(points, normals, maps[1])
        return sun[0] + sky[0], sun[1] + sky[1]


class _Group:
    """Directions of equal weight."""

    def __init__(self, directions: np.ndarray, weight: float, centre_m: np.ndarray, cell_m: float):
        d = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        self.cell, size = cell_m, round(REGION_M / cell_m)
        self.axes = np.stack([np.stack([*_basis(v), v]) for v in d]).astype(np.float32)
        self.weights = np.full(len(d), weight, np.float32)
        middle = np.einsum("lij,j->li", self.axes[:, :2], np.asarray(centre_m, np.float32))
        self.origin = (middle - 0.5 * REGION_M).astype(np.float32)
        self.empty = np.full((len(d), size, size), -10.0, np.float32)

    def shadow_maps(self, casters, onto: np.ndarray) -> np.ndarray:
        """(L, s, s) float32 [m]"""
        maps = onto.copy()
        for v, faces in casters:
            for k, axes in enumerate(self.axes):
                p = v @ axes.T
                p[:, :2] = (p[:, :2] - self.origin[k]) / self.cell
                draw_height(p, faces, maps[k])
        return maps

    def reaching(self, points: np.ndarray, normals: np.ndarray, maps: np.ndarray):
        total, reached = (np.empty(len(points), np.float32) for _ in range(2))
        light_reaching(
            np.ascontiguousarray(points, np.float32), np.ascontiguousarray(normals, np.float32),
            self.axes, self.weights, maps, self.origin, np.float32(self.cell), np.float32(BIAS_M),
            total, reached,
        )  # fmt: skip
        return total, reached


def _basis(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors square to `v`."""
    v = np.asarray(v, float) / np.linalg.norm(v)
    side = np.cross(v, [1.0, 0, 0] if abs(v[0]) < 0.9 else [0, 1.0, 0])
    side /= np.linalg.norm(side)
    return side, np.cross(v, side)


def surface_normals(camera: Camera, depth_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points and unit normals (H, W, 3) [m, world] of a depth image, normals towards the camera."""
    points = camera.unproject(depth_m)
    # The flatter of the two one-sided differences, so that an edge in depth tilts no normal.
    normal = np.cross(_difference(points, depth_m, 1), _difference(points, depth_m, 0))
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    towards = camera.T_world_cam[:3, 3] - points
    normal *= np.where((normal * towards).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    return points, normal


def _difference(points: np.ndarray, depth: np.ndarray, axis: int) -> np.ndarray:
    step = np.diff(points, axis=axis)
    jump = np.abs(np.diff(depth, axis=axis))
    pad = [(0, 0)] * 3
    pad[axis] = (0, 1)
    ahead, ahead_jump = np.pad(step, pad, "edge"), np.pad(jump, pad[:2], "edge")
    pad[axis] = (1, 0)
    behind, behind_jump = np.pad(step, pad, "edge"), np.pad(jump, pad[:2], "edge")
    return np.where((ahead_jump <= behind_jump)[..., None], ahead, behind)
