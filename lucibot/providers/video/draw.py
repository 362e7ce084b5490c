"""Draws a plan: moving shapes and hands over the first frame's own pixels, with soft shadows.

What has not moved yet keeps the first frame's pixels; what moves is drawn with colours fitted to
its appearance there; what it uncovers comes from the picture of the empty scene. The shadows of
everything are drawn from the same casters, so they move along.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from lucibot.core.scene_view import SceneView
from lucibot.providers.video.hand import HandMesh, make_hand
from lucibot.providers.video.light import Lights, surface_normals
from lucibot.providers.video.plan import CutPath, HandPath, Plan
from lucibot.providers.video.raster import FAR, draw_mesh
from lucibot.providers.video.shapes import Shape, cut_by_plane, deform_piece, object_shape, to_srgb
from lucibot.task import Task

SAMPLES = 2
"""Samples a pixel and axis."""
HAND_PART = 200
EXTRA_PART = 201
PIECE_PART = 100
"""Part numbers of pieces start here; below are the objects' labels."""
MOVED_M = 4e-4
OPENNESS = np.linspace(0, 0.55, 5)
SKIN = (0.62, 0.31, 0.22)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One frame and what was drawn in it."""

    rgb: np.ndarray
    """(H, W, 3) float32 sRGB in [0, 255], without light drift, blur and noise."""
    masks: np.ndarray
    """(N, H, W) bool, visible pixels of each object."""
    hand: np.ndarray
    """(H, W) bool"""
    pieces: dict[str, np.ndarray]
    """Piece name -> (H, W) bool."""
    contact: dict[tuple[str, str], bool]
    tips_m: np.ndarray
    """(5, 3) [m, world] of the first hand in the picture, NaN without one."""


class Stage:
    """What all candidates of one scene share: shapes, light, colours fitted to the first frame."""

    def __init__(self, task: Task, view: SceneView, *, cut: frozenset[str] = frozenset()):
        """`cut` names the objects that will be cut: their meshes are made finer."""
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
            [(self._world(n, self.rest[n]), s.faces) for n, s in self.shapes.items()]
        )
        _, self.rest_light = self.light_image(*self.surface["scene"], self.rest_maps)
        self._fit_shadows()
        self._fit_colors()
        self._hands: dict[tuple, list[tuple[HandMesh, HandMesh]]] = {}
        self._still: dict[frozenset[str], _Still] = {}

    def _world(self, name: str, T: np.ndarray, scale: float = 1.0) -> np.ndarray:
        return scale * self.shapes[name].vertices @ T[:3, :3].T + T[:3, 3]

    def _fit_shadows(self) -> None:
        """What the first frame's shadows have that the drawn ones have not, as a factor on the
        empty scene's pixels around each object."""
        points, normals = self.surface["empty"]
        total, reached = self.light_image(points, normals, self.rest_maps)
        drawn = self._factor(total, reached)
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

    def light_image(self, points: np.ndarray, normals: np.ndarray, maps):
        """Irradiance (h, w) without and with casters at points (h, w, 3) [m, world]; the sky's part
        is taken at half the resolution and smoothed, for it is coarsely sampled."""
        shape = points.shape[:2]
        sun = self.lights.sun.reaching(points.reshape(-1, 3), normals.reshape(-1, 3), maps[0])
        p, n = (np.ascontiguousarray(a[::2, ::2]) for a in (points, normals))
        sky, seen = self.lights.sky.reaching(p.reshape(-1, 3), n.reshape(-1, 3), maps[1])
        sky, seen = sky.reshape(p.shape[:2]), seen.reshape(p.shape[:2])
        open_ = cv2.GaussianBlur(seen / np.maximum(sky, 1e-6), (0, 0), 3.0)
        open_ = cv2.resize(open_, shape[::-1], interpolation=cv2.INTER_LINEAR)
        sky = cv2.resize(sky, shape[::-1], interpolation=cv2.INTER_NEAREST)
        return sun[0].reshape(shape) + sky, sun[1].reshape(shape) + sky * open_

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
            color = self._shade(shape, self.rest[name], self.rest_maps, np.ones(3), np.zeros(3))
            depth = np.full((h, w), FAR, np.float32)
            part = np.zeros((h, w), np.uint8)
            rgb = np.zeros((h, w, 3), np.float32)
            points = self._project(self._world(name, self.rest[name]), 1)
            draw_mesh(points, shape.faces, color[shape.faces], i + 1, 0, 0, depth, part, rgb)
            both = ((part == i + 1) & (self.view.labels == i + 1)).astype(np.uint8)
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

    def _shade(self, shape, T, maps, gain, offset, vertices=None, tint=None) -> np.ndarray:
        """(V, 3) float32 sRGB colour [0, 255] of each vertex under the light of `maps`."""
        world = vertices if vertices is not None else shape.vertices @ T[:3, :3].T + T[:3, 3]
        normals = shape.normals @ T[:3, :3].T
        _, light = self.lights.reaching(world + 0.002 * normals, normals, maps)
        # Light that comes back from table and walls keeps undersides from going black.
        bounce = 0.16 + 0.10 * normals[:, 2]
        linear = shape.albedo * (light + bounce)[:, None]
        srgb = 255 * to_srgb(linear * (1.0 if tint is None else tint))
        return np.clip(srgb * gain + offset, 0, 255).astype(np.float32)

    def _project(self, world: np.ndarray, samples: int) -> np.ndarray:
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
        half = cv2.resize(labels, self.half, interpolation=cv2.INTER_NEAREST) > 0
        scene_p, scene_n = self.surface["scene"]
        empty_p, empty_n = self.surface["empty"]
        points = np.where(half[..., None], scene_p, empty_p).astype(np.float32)
        normals = np.where(half[..., None], scene_n, empty_n).astype(np.float32)
        maps = self.lights.shadow_maps(
            [(self._world(n, self.rest[n]), self.shapes[n].faces) for n in sorted(names)]
        )
        total, _ = self.light_image(points, normals, maps)
        reference = np.where(half, np.maximum(self.rest_light, 0.05), total)
        remainder = np.where(half, 1.0, self.remainder ** cv2.GaussianBlur(keeps, (0, 0), 3))
        # One pixel around what stands still belongs to it, so that its edges stay as they were;
        # the first frame's pixels on that rim hold part of their own shadow already.
        near = cv2.dilate((labels > 0).astype(np.uint8), np.ones((3, 3))) > 0
        self._still[names] = _Still(
            labels=labels, picture=np.where(near[..., None], self.first, self.background),
            rim=near & ~(labels > 0), points=points, normals=normals, reference=reference,
            remainder=remainder.astype(np.float32), maps=maps,
        )  # fmt: skip
        return self._still[names]

    def base(self, still: _Still, maps) -> np.ndarray:
        """(H, W, 3) float32: the picture without what moves, under the present shadows."""
        _, reached = self.light_image(still.points, still.normals, maps)
        factor = self._factor(still.reference, reached) * still.remainder
        factor = cv2.GaussianBlur(factor.astype(np.float32), (0, 0), 1.0)
        full = cv2.resize(factor, still.labels.shape[::-1], interpolation=cv2.INTER_LINEAR)
        full[still.rim] = np.sqrt(np.minimum(full[still.rim], 1.0))
        return still.picture * full[..., None]

    def hand_meshes(self, path: HandPath) -> list[tuple[HandMesh, HandMesh]]:
        """Fine and coarse meshes for each step of openness."""
        s = path.spec
        key = (s.grip_radius_m, s.side, s.slant)
        if key not in self._hands:
            self._hands[key] = [
                tuple(
                    make_hand(
                        grip_radius_m=s.grip_radius_m, openness=float(o), right=s.side == "right",
                        slant=s.slant, cell_m=cell,
                    )
                    for cell in (0.0035, 0.007)
                )
                for o in OPENNESS
            ]  # fmt: skip
        return self._hands[key]


@dataclass(frozen=True, kw_only=True)
class _Still:
    """What the picture without the moving things is made of, while the same things stand still."""

    labels: np.ndarray
    picture: np.ndarray
    rim: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    reference: np.ndarray
    remainder: np.ndarray
    maps: tuple


@dataclass
class _Item:
    """One mesh to draw in one frame."""

    part: int
    shape: Shape
    vertices: np.ndarray
    T: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    tint: np.ndarray | None = None
    caster: tuple[np.ndarray, np.ndarray] | None = None


class Drawer:
    """Draws one plan on a stage."""

    def __init__(self, stage: Stage, plan: Plan):
        self.stage, self.plan = stage, plan
        self.pieces = {c.spec.object: self._cut(c) for c in plan.cuts}
        self.lowest = {c.spec.object: np.inf for c in plan.cuts}
        self._last: tuple | None = None

    def _cut(self, cut: CutPath) -> dict[str, tuple[Shape, np.ndarray]]:
        normal = cut.normal * [1, 1, 0]
        normal /= np.linalg.norm(normal)
        shape = self.stage.shapes[cut.spec.object]
        return {
            name: (cut_by_plane(shape, cut.point, s * normal, inside=1.03), s * normal)
            for name, s in (("plus", 1.0), ("minus", -1.0))
        }

    def frame(self, t: int) -> Drawn:
        """Frame `t`; frames of one plan are drawn in order (a notch never closes again)."""
        items, names, tips = self._items(t)
        drawn = [i.part for i in items], [i.vertices for i in items]
        if self._last is not None and _same(self._last[0], drawn):
            # Nothing has moved since the last frame, so its picture is this one too.
            return replace(self._last[1], tips_m=tips)
        stage = self.stage
        still = stage.still(frozenset(names))
        maps = stage.lights.shadow_maps(
            [i.caster or (i.vertices, i.shape.faces) for i in items], still.maps
        )
        out = self._composite(t, items, stage.base(still, maps), still.labels, maps, tips)
        self._last = (drawn, out)
        return out

    def _items(self, t: int):
        stage, plan = self.stage, self.plan
        items, still = [], set()
        cut_now = {c.spec.object: c for c in plan.cuts if t >= c.begins}
        for i, name in enumerate(plan.names):
            T, scale = plan.T_world_object[t, i], plan.scale[t, i]
            gain, offset = stage.gain[name]
            if name in cut_now:
                cut = cut_now[name]
                edge = self._tool_edge(t, cut, T)
                self.lowest[name] = min(self.lowest[name], edge)
                for k, (piece, (shape, normal)) in enumerate(self.pieces[name].items()):
                    tip = (
                        T[:3, :3].T @ plan.T_world_object[t, plan.names.index(cut.spec.tool), :3, 0]
                    )
                    key = cut.keys[piece][t].copy()
                    # Both pieces open towards the tool's tip.
                    key[3] *= np.sign(np.cross(normal, tip)[2]) or 1.0
                    local = deform_piece(
                        shape,
                        cut.point,
                        normal,
                        key,
                        tool_edge_m=self.lowest[name],
                        notch_m=cut.spec.notch_m,
                    )
                    v = scale * local @ T[:3, :3].T + T[:3, 3]
                    items.append(_Item(PIECE_PART + 10 * i + k, shape, v, T, gain, offset))
                continue
            moved = np.abs(
                stage._world(name, T, scale) - stage._world(name, stage.rest[name])
            ).max()
            if moved < MOVED_M:
                still.add(name)
                continue
            items.append(
                _Item(i + 1, stage.shapes[name], stage._world(name, T, scale), T, gain, offset)
            )
        tips = np.full((5, 3), np.nan)
        for h in plan.hands:
            if not h.present[t]:
                continue
            step = int(np.abs(OPENNESS - h.openness[t]).argmin())
            fine, coarse = stage.hand_meshes(h)[step]
            T = h.T_world_hand[t].copy()
            T[:3, :3] *= h.size
            items.append(self._hand_item(fine, coarse, T, h))
            if np.isnan(tips).all():
                tips = fine.tips @ T[:3, :3].T + T[:3, 3]
        if "object" in plan.extra and t >= plan.extra["appears"]:
            shape, T = plan.extra["object"]
            v = shape.vertices @ T[:3, :3].T + T[:3, 3]
            gain = np.full(3, stage.exposure)
            items.append(_Item(EXTRA_PART, shape, v, T, gain, np.zeros(3)))
        return items, still, tips

    def _hand_item(self, fine: HandMesh, coarse: HandMesh, T: np.ndarray, h: HandPath) -> _Item:
        elbow = np.array(h.spec.elbow_m)
        v = fine.posed(T, elbow)
        n = np.cross(
            v[fine.faces[:, 1]] - v[fine.faces[:, 0]], v[fine.faces[:, 2]] - v[fine.faces[:, 0]]
        )
        normals = np.stack(
            [np.bincount(fine.faces.ravel(), np.repeat(n[:, k], 3), len(v)) for k in range(3)], 1
        )
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-15)
        shape = Shape(
            vertices=v, normals=normals, faces=fine.faces.astype(np.int32),
            albedo=np.tile(np.float32(SKIN), (len(v), 1)),
        )  # fmt: skip
        exposure = np.full(3, self.stage.exposure)
        return _Item(
            HAND_PART, shape, v, np.eye(4), exposure, np.zeros(3), tint=fine.tint,
            caster=(coarse.posed(T, elbow), coarse.faces.astype(np.int32)),
        )  # fmt: skip

    def _tool_edge(self, t: int, cut: CutPath, T_object: np.ndarray) -> float:
        """The lowest point of the tool inside the object's sides, in the object's frame [m]."""
        plan, stage = self.plan, self.stage
        tool = stage._world(cut.spec.tool, plan.T_world_object[t, plan.names.index(cut.spec.tool)])
        local = (tool - T_object[:3, 3]) @ T_object[:3, :3]
        v = stage.shapes[cut.spec.object].vertices
        inside = ((local[:, :2] > v[:, :2].min(0)) & (local[:, :2] < v[:, :2].max(0))).all(1)
        return float(local[inside, 2].min()) if inside.any() else np.inf

    def _composite(self, t, items, base, static_labels, maps, tips) -> Drawn:
        stage, plan, s = self.stage, self.plan, SAMPLES
        h, w = static_labels.shape
        projected = [stage._project(i.vertices, s) for i in items]
        window = _window(projected, w * s, h * s, s)
        names = plan.names
        masks = np.stack([static_labels == i + 1 for i in range(len(names))])
        hand = np.zeros((h, w), bool)
        pieces: dict[str, np.ndarray] = {}
        rgb = base
        if window is not None:
            x0, y0, x1, y1 = window
            static_depth = np.where(
                static_labels > 0, stage.view.depth_m, stage.view.background_depth_m
            )
            crop = np.s_[y0 // s : y1 // s, x0 // s : x1 // s]
            depth = static_depth[crop].astype(np.float32).repeat(s, 0).repeat(s, 1)
            depth = np.where(np.isfinite(depth), depth, FAR)
            part = np.zeros(depth.shape, np.uint8)
            drawn = np.zeros((*depth.shape, 3), np.float32)
            for item, points in zip(items, projected, strict=True):
                color = stage._shade(
                    item.shape, item.T, maps, item.gain, item.offset, item.vertices, item.tint
                )
                faces = item.shape.faces
                draw_mesh(points, faces, color[faces], item.part, x0, y0, depth, part, drawn)
            covered = part > 0
            alpha = _mean(covered.astype(np.float32), s)[..., None]
            over = _mean(drawn, s)
            rgb = base.copy()
            rgb[crop] = rgb[crop] * (1 - alpha) + over
            masks[:, crop[0], crop[1]] &= alpha[..., 0] < 0.5
            for p in np.unique(part[covered]):
                seen = _mean((part == p).astype(np.float32), s) >= 0.5
                if p == HAND_PART:
                    hand[crop] |= seen
                elif p < PIECE_PART:
                    masks[p - 1][crop] |= seen
                elif p < HAND_PART:
                    i, k = divmod(int(p) - PIECE_PART, 10)
                    masks[i][crop] |= seen
                    mask = pieces.setdefault(("plus", "minus")[k], np.zeros((h, w), bool))
                    mask[crop] = seen
        return Drawn(
            rgb=rgb, masks=masks, hand=hand, pieces=pieces, tips_m=tips,
            contact=self._contacts(t, items),
        )  # fmt: skip

    def _contacts(self, t: int, items: list[_Item]) -> dict[tuple[str, str], bool]:
        """Which actuators are within 3 mm of which targets, by vertices and depth below the top."""
        from scipy.spatial import cKDTree

        stage, plan = self.stage, self.plan
        drawn: dict[str, list[np.ndarray]] = {}
        for item in items:
            if item.part < HAND_PART:
                i = (item.part - PIECE_PART) // 10 if item.part >= PIECE_PART else item.part - 1
                drawn.setdefault(plan.names[i], []).append(item.vertices)
        out = {}
        for a in stage.task.actuators:
            for b in stage.task.targets:
                if a.name == b.name:
                    continue
                va, vb = (
                    np.concatenate(drawn[n]) if n in drawn else stage._world(n, stage.rest[n])
                    for n in (a.name, b.name)
                )
                if ((va.min(0) - 0.004 > vb.max(0)) | (vb.min(0) - 0.004 > va.max(0))).any():
                    out[a.name, b.name] = False
                    continue
                gap, _ = cKDTree(vb).query(va, distance_upper_bound=0.004)
                out[a.name, b.name] = bool(np.isfinite(gap).any())
        return out


def _same(a: tuple, b: tuple) -> bool:
    """Whether two lists of parts have the same vertices."""
    return a[0] == b[0] and all(np.array_equal(u, v) for u, v in zip(a[1], b[1], strict=True))


def _window(projected: list[np.ndarray], w: int, h: int, s: int):
    """The even window (x0, y0, x1, y1) around all projected points inside the picture, or None."""
    boxes = [(p[:, :2].min(0), p[:, :2].max(0)) for p in projected if len(p)]
    if not boxes:
        return None
    low = np.min([b[0] for b in boxes], axis=0) - 2
    high = np.max([b[1] for b in boxes], axis=0) + 2
    x0, y0 = (int(max(v, 0)) // s * s for v in np.floor(low))
    x1, y1 = (
        int(min(v, limit)) // s * s for v, limit in zip(np.ceil(high) + s, (w, h), strict=True)
    )
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _mean(image: np.ndarray, s: int) -> np.ndarray:
    h, w = image.shape[:2]
    return cv2.resize(image, (w // s, h // s), interpolation=cv2.INTER_AREA)
