"""What all candidates of one scene share: shapes, light, colours fitted to the first frame.

What has not moved yet keeps the first frame's pixels; what it uncovers comes from the picture of
the empty scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lucibot.core.errors import UserError
from lucibot.core.scene_view import SceneView
from lucibot.providers.video.storyboard.hand import HandMesh, make_hand
from lucibot.providers.video.storyboard.light import Lights, LitImage, surface_normals
from lucibot.providers.video.storyboard.painting import FAR, draw_faces, paint
from lucibot.providers.video.storyboard.plan import HandPath
from lucibot.providers.video.storyboard.shapes import object_shape, to_srgb
from lucibot.task import Task

OPENNESS = np.linspace(0, 0.55, 5)


class Scenery:
    """The scene of one task as the storyboard draws it."""

    def __init__(self, task: Task, view: SceneView, *, cut: frozenset[str] = frozenset()):
        """`cut` names the objects that will be cut: their meshes are made finer.

        Raises:
            UserError: there is no picture of the scene without its objects.
        """
        if view.background_frame is None:
            raise UserError(
                f"the storyboard needs a picture of {task.name!r} without its objects: name one as "
                "photo_background in its [camera], or give a --video"
            )
        self.task, self.view, self.camera = task, view, task.camera
        self.first = view.first_frame.astype(np.float32)
        self.background = view.background_frame.astype(np.float32)
        self.shapes = {
            o.name: object_shape(task, o, finest_m=0.007 if o.name in cut else None)
            for o in task.objects
        }
        self.rest = {o.name: o.T_world_object for o in task.objects}
        centre = np.mean([T[:3, 3] for T in self.rest.values()], axis=0)
        half = (self.camera.width // 2, self.camera.height // 2)
        self.half = half
        small = self.camera.resized(*half)
        scene_depth = cv2.resize(view.depth_m, half, interpolation=cv2.INTER_NEAREST)
        empty_depth = cv2.resize(view.background_depth_m, half, interpolation=cv2.INTER_NEAREST)
        self.surface = {
            "scene": surface_normals(small, scene_depth),
            "empty": surface_normals(small, empty_depth),
        }
        self.half_labels = cv2.resize(view.labels, half, interpolation=cv2.INTER_NEAREST)
        self.lights = Lights(task.spec.light, centre)
        self.rest_maps = self.lights.shadow_maps(
            [(self.world(n, self.rest[n]), s.faces) for n, s in self.shapes.items()]
        )
        scene = LitImage(self.lights, *self.surface["scene"], self.rest_maps)
        self.rest_light = scene.under(self.rest_maps)
        self._fit_shadows()
        self._fit_colors()
        self._hands: dict[tuple, list[tuple[HandMesh, HandMesh]]] = {}
        self._still: dict[frozenset[str], _Still] = {}

    def world(self, name: str, T: np.ndarray, scale: float = 1.0) -> np.ndarray:
        return scale * self.shapes[name].vertices @ T[:3, :3].T + T[:3, 3]

    def _fit_shadows(self) -> None:
        """What the first frame's shadows have that the drawn ones have not, as a factor on the
        empty scene's pixels around each object."""
        empty = LitImage(self.lights, *self.surface["empty"], self.rest_maps)
        drawn = self._factor(empty.total, empty.under(self.rest_maps))
        seen = cv2.resize(
            (self.first + 2).sum(-1) / (self.background + 2).sum(-1), self.half,
            interpolation=cv2.INTER_AREA,
        )  # fmt: skip
        inside = cv2.dilate((self.half_labels > 0).astype(np.uint8), np.ones((5, 5))) > 0
        ratio = np.where(inside, 1.0, np.clip(seen / drawn, 0.6, 1.6)).astype(np.float32)
        weight = (~inside).astype(np.float32)
        blurred = cv2.GaussianBlur(ratio * weight, (0, 0), 4) / np.maximum(
            cv2.GaussianBlur(weight, (0, 0), 4), 1e-3
        )
        ratio = np.where(inside, blurred, ratio)
        # Each pixel's remainder belongs to the nearest object and goes when that object goes.
        distance = np.stack([
            cv2.distanceTransform((self.half_labels != i + 1).astype(np.uint8), cv2.DIST_L2, 3)
            for i in range(len(self.task.objects))
        ])  # fmt: skip
        self.remainder, self.remainder_of = ratio, distance.argmin(0)

    @staticmethod
    def _factor(total: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """The factor on an sRGB value for that share of linear light."""
        return np.power(np.clip(reached / np.maximum(total, 1e-6), 0.02, 4.0), 1 / 2.2)

    def _fit_colors(self) -> None:
        """Gain and offset per object and channel from drawn to seen in the first frame."""
        self.gain: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        w, h = self.camera.width, self.camera.height
        exposures = []
        for i, (name, shape) in enumerate(self.shapes.items()):
            color = self.shade(shape, self.rest[name], self.rest_maps, np.ones(3), np.zeros(3))
            depth = np.full((h, w), FAR, np.float32)
            rgb = np.zeros((h, w, 3), np.float32)
            drawn = self._draw(name, color, depth, rgb)
            both = (drawn & (self.view.labels == i + 1)).astype(np.uint8)
            inner = cv2.erode(both, np.ones((3, 3))) > 0
            inner = inner if inner.sum() > 30 else both > 0
            if inner.sum() < 10:
                self.gain[name] = (np.ones(3), np.zeros(3))
                continue
            x, y = rgb[inner], self.first[inner]
            mean_x, mean_y = x.mean(0), y.mean(0)
            covariance = ((x - mean_x) * (y - mean_y)).mean(0)
            # A slope is only as sure as the drawn contrast; the prior is the ratio of the means.
            prior, weight = mean_y / np.maximum(mean_x, 8), 150.0
            slope = (covariance + weight * prior) / (x.var(0) + weight)
            slope = np.clip(slope, 0.35, 2.2)
            self.gain[name] = (slope, mean_y - slope * mean_x)
            exposures.append(mean_y.mean() / max(mean_x.mean(), 8))
        self.exposure = float(np.median(exposures)) if exposures else 1.0

    def _draw(self, name: str, color: np.ndarray, depth: np.ndarray, rgb: np.ndarray) -> np.ndarray:
        """Draw an object at rest where it is nearest; (H, W) bool, where that is.

        Args:
            color: (V, 3) float32 sRGB [0, 255].
            depth, rgb: (H, W) float32 [m] and (H, W, 3) float32, updated.
        """
        faces, seen = self.shapes[name].faces, np.full(depth.shape, -1, np.int32)
        points = self.project(self.world(name, self.rest[name]), 1)
        draw_faces(points, faces, 0, 0, depth, seen)
        shown = np.zeros((1, *depth.shape), bool)
        whole = np.zeros(len(faces), np.uint8)
        paint(points, faces, color, whole, seen, 0, 0, rgb, np.empty_like(depth), shown)
        return shown[0]

    def shade(
        self, shape, T, maps, gain, offset, *, vertices=None, tint=None, only=slice(None)
    ) -> np.ndarray:
        """(V, 3) float32 sRGB colour [0, 255] of each vertex, or of `only` those, under the light of
        `maps`."""
        world = vertices if vertices is not None else shape.vertices @ T[:3, :3].T + T[:3, 3]
        world, normals = world[only], (shape.normals @ T[:3, :3].T)[only]
        _, light = self.lights.reaching(world + 0.002 * normals, normals, maps)
        # Light that comes back from table and walls keeps undersides from going black.
        bounce = 0.16 + 0.10 * normals[:, 2]
        linear = shape.albedo[only] * (light + bounce)[:, None]
        srgb = 255 * to_srgb(linear * (1.0 if tint is None else tint[only]))
        return np.clip(srgb * gain + offset, 0, 255).astype(np.float32)

    def project(self, world: np.ndarray, samples: int) -> np.ndarray:
        uv, z = self.camera.project(world)
        return np.concatenate([uv * samples, z[:, None]], axis=1).astype(np.float32)

    def still(self, names: frozenset[str]) -> _Still:
        """Everything of the picture that holds while exactly these objects have not moved."""
        if names in self._still:
            return self._still[names]
        view = self.view
        labels = np.zeros_like(view.labels)
        keeps = np.zeros_like(self.remainder)
        for i, name in enumerate(view.names):
            if name in names:
                labels[view.labels == i + 1] = i + 1
                keeps[self.remainder_of == i] = 1.0
        maps = self.lights.shadow_maps(
            [(self.world(n, self.rest[n]), self.shapes[n].faces) for n in sorted(names)]
        )
        half = cv2.resize(labels, self.half, interpolation=cv2.INTER_NEAREST) > 0
        # One pixel around what stands still belongs to it, so that its edges stay as they were;
        # the first frame's pixels on that rim hold part of their own shadow already.
        near = cv2.dilate((labels > 0).astype(np.uint8), np.ones((3, 3))) > 0
        picture = np.where(near[..., None], self.first, self.background)
        depth = np.where(labels > 0, view.depth_m, view.background_depth_m)
        bare, bare_color, bare_depth = self._uncovered(names, maps)
        rim = near & ~(labels > 0) & (bare == 0)
        labels[bare > 0] = bare[bare > 0]
        picture[bare > 0], depth[bare > 0] = bare_color[bare > 0], bare_depth[bare > 0]
        fresh = cv2.resize(bare, self.half, interpolation=cv2.INTER_NEAREST) > 0
        own = surface_normals(
            self.camera.resized(*self.half),
            cv2.resize(depth, self.half, interpolation=cv2.INTER_NEAREST),
        )
        points, normals = (
            np.where(fresh[..., None], o, np.where(half[..., None], s, e)).astype(np.float32)
            for o, s, e in zip(own, self.surface["scene"], self.surface["empty"], strict=True)
        )
        light = LitImage(self.lights, points, normals, maps)
        total, reached = light.total, light.under(maps)
        reference = np.where(half, np.maximum(self.rest_light, 0.05), total)
        reference = np.where(fresh, np.maximum(reached, 0.05), reference)
        remainder = np.where(
            half | fresh, 1.0, self.remainder ** cv2.GaussianBlur(keeps, (0, 0), 3)
        )
        self._still[names] = _Still(
            masks=np.stack([labels == i + 1 for i in range(len(view.names))]), picture=picture,
            depth_m=np.where(np.isfinite(depth), depth, FAR).astype(np.float32), rim=rim,
            light=light, reference=reference, remainder=remainder.astype(np.float32), maps=maps,
        )  # fmt: skip
        return self._still[names]

    def _uncovered(self, names: frozenset[str], maps) -> tuple[np.ndarray, ...]:
        """What `names` show where something that has moved stood before them in the first frame:
        label (H, W), 0 elsewhere, sRGB colour (H, W, 3) and depth (H, W) [m]."""
        w, h = self.camera.width, self.camera.height
        depth, part = np.full((h, w), FAR, np.float32), np.zeros((h, w), np.uint8)
        color = np.zeros((h, w, 3), np.float32)
        moved = self.view.labels > 0
        for i, name in enumerate(self.view.names):
            if name not in names:
                continue
            moved &= self.view.labels != i + 1
            shaded = self.shade(self.shapes[name], self.rest[name], maps, *self.gain[name])
            part[self._draw(name, shaded, depth, color)] = i + 1
        part[~moved | (depth > self.view.background_depth_m)] = 0
        return part, color, depth

    def base(self, still: _Still, maps) -> np.ndarray:
        """(H, W, 3) float32: the picture without what moves, under the present shadows."""
        factor = self._factor(still.reference, still.light.under(maps)) * still.remainder
        factor = cv2.GaussianBlur(factor.astype(np.float32), (0, 0), 1.0)
        full = cv2.resize(factor, still.rim.shape[::-1], interpolation=cv2.INTER_LINEAR)
        full[still.rim] = np.sqrt(np.minimum(full[still.rim], 1.0))
        return still.picture * cv2.merge([full] * 3)

    def hand_meshes(self, path: HandPath) -> list[tuple[HandMesh, HandMesh]]:
        """Fine and coarse meshes for each step of openness."""
        s = path.spec
        key = (s.grip_radius_m, s.side, s.slant, s.forearm_m)
        if key not in self._hands:
            self._hands[key] = [
                tuple(
                    make_hand(
                        grip_radius_m=s.grip_radius_m, openness=float(o), right=s.side == "right",
                        slant=s.slant, forearm_m=s.forearm_m, cell_m=cell,
                    )
                    for cell in (0.0035, 0.007)
                )
                for o in OPENNESS
            ]  # fmt: skip
        return self._hands[key]


@dataclass(frozen=True, kw_only=True)
class _Still:
    """What the picture without the moving things is made of, while the same things stand still."""

    masks: np.ndarray
    picture: np.ndarray
    depth_m: np.ndarray
    rim: np.ndarray
    light: LitImage
    reference: np.ndarray
    remainder: np.ndarray
    maps: tuple
