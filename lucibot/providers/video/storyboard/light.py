"""Light and soft shadows of the storyboard: one sun disc and a sky, each a few directions."""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.core.camera import Camera
from lucibot.providers.video.storyboard.painting import (
    cells_of,
    draw_heights,
    light_reaching,
    mark_touched,
)
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
        self.cell, size = np.float32(cell_m), round(REGION_M / cell_m)
        self.axes = np.stack([np.stack([*_basis(v), v]) for v in d]).astype(np.float32)
        self.weights = np.full(len(d), weight, np.float32)
        middle = np.einsum("lij,j->li", self.axes[:, :2], np.asarray(centre_m, np.float32))
        self.origin = (middle - 0.5 * REGION_M).astype(np.float32)
        self.empty = np.full((len(d), size, size), -10.0, np.float32)

    def shadow_maps(self, casters, onto: np.ndarray) -> np.ndarray:
        """(L, s, s) float32 [m]"""
        maps = onto.copy()
        for v, faces in casters:
            along = (v @ self.axes.reshape(-1, 3).T).reshape(len(v), -1, 3)
            draw_heights(along, faces, self.origin, self.cell, maps)
        return maps

    def reaching(self, points: np.ndarray, normals: np.ndarray, maps: np.ndarray):
        total, reached = (np.empty(len(points), np.float32) for _ in range(2))
        points, normals = (np.ascontiguousarray(a, np.float32) for a in (points, normals))
        self.reach(points, normals, maps, np.ones(len(points), bool), total, reached)
        return total, reached

    def reach(self, points, normals, maps, wanted, total, reached) -> None:
        light_reaching(
            points, normals, self.axes, self.weights, maps, self.origin, self.cell,
            np.float32(BIAS_M), wanted, total, reached,
        )  # fmt: skip


class Resting:
    """The light of one group on points that stay, while casters come to those in its maps."""

    def __init__(self, group: _Group, points: np.ndarray, normals: np.ndarray, maps: np.ndarray):
        """
        Args:
            points, normals: (n, 3) float32 [m, world].
            maps: (L, s, s) float32 [m] of the casters that stay, too.
        """
        self.group, self.points, self.normals, self.maps = group, points, normals, maps
        self.total, self.reached = group.reaching(points, normals, maps)
        """(n,) float32: without and with the casters that stay."""
        self._cells = np.empty((len(points), len(maps)), np.int32)
        cells_of(points, group.axes, group.origin, group.cell, maps.shape[1], self._cells)

    def under(self, maps: np.ndarray) -> np.ndarray:
        """(n,) float32: what reaches the points under maps that hold more casters."""
        touched = np.empty(len(self.points), bool)
        mark_touched(self._cells, maps, self.maps, touched)
        reached = self.reached.copy()
        self.group.reach(self.points, self.normals, maps, touched, self.total, reached)
        return reached


class LitImage:
    """The light on the surfaces that an image shows: the sky's part is taken at half the resolution
    and smoothed, for it is coarsely sampled."""

    def __init__(self, lights: Lights, points: np.ndarray, normals: np.ndarray, maps):
        """
        Args:
            points, normals: (h, w, 3) [m, world].
            maps: of the casters that stay.
        """
        fine, coarse = (
            [np.ascontiguousarray(a[::s, ::s], np.float32) for a in (points, normals)]
            for s in (1, 2)
        )
        self._shape, self._coarse = fine[0].shape[:2], coarse[0].shape[:2]
        self._sun = Resting(lights.sun, *(a.reshape(-1, 3) for a in fine), maps[0])
        self._sky = Resting(lights.sky, *(a.reshape(-1, 3) for a in coarse), maps[1])
        self._bright = self._sky.total.reshape(self._coarse)
        self._sky_total = cv2.resize(
            self._bright, self._shape[::-1], interpolation=cv2.INTER_NEAREST
        )
        self.total = self._sun.total.reshape(self._shape) + self._sky_total
        """(h, w) irradiance without casters."""

    def under(self, maps) -> np.ndarray:
        """(h, w) irradiance under maps that hold the casters that stay, and maybe more."""
        seen = self._sky.under(maps[1]).reshape(self._coarse)
        open_ = cv2.GaussianBlur(seen / np.maximum(self._bright, 1e-6), (0, 0), 3.0)
        open_ = cv2.resize(open_, self._shape[::-1], interpolation=cv2.INTER_LINEAR)
        return self._sun.under(maps[0]).reshape(self._shape) + self._sky_total * open_


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
