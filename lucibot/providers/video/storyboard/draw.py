"""Draws a plan: moving shapes and hands over the first frame's own pixels, with soft shadows.

What has not moved yet keeps the first frame's pixels; what moves is drawn with colours fitted to
its appearance there; what it uncovers comes from the picture of the empty scene. The shadows of
everything are drawn from the same casters, so they move along.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lucibot.providers.video.storyboard.hand import HandMesh
from lucibot.providers.video.storyboard.morph import MorphPath
from lucibot.providers.video.storyboard.painting import FAR, draw_mesh
from lucibot.providers.video.storyboard.plan import CutPath, HandPath, Plan
from lucibot.providers.video.storyboard.scenery import OPENNESS, Scenery
from lucibot.providers.video.storyboard.shapes import (
    Shape,
    cut_by_plane,
    deform_piece,
    vertex_normals,
)

SAMPLES = 2
"""Samples a pixel and axis."""
MOVED_M = 4e-4
SKIN = (0.62, 0.31, 0.22)
HAND, EXTRA = "<hand>", "<extra>"
"""Owners of what belongs to no object."""


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


@dataclass
class _Item:
    """One mesh to draw in one frame."""

    owner: str
    """An object's name, `HAND` or `EXTRA`."""
    shape: Shape
    vertices: np.ndarray
    """(V, 3) [m, world]"""
    T: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    piece: str = ""
    """Its name where the object is drawn in pieces."""
    tint: np.ndarray | None = None
    caster: tuple[np.ndarray, np.ndarray] | None = None


class Drawer:
    """Draws one plan on a scenery."""

    def __init__(self, scenery: Scenery, plan: Plan):
        self.scenery, self.plan = scenery, plan
        self.pieces = {c.spec.object: self._cut(c) for c in plan.cuts}
        self.lowest = {c.spec.object: np.inf for c in plan.cuts}
        self._last: tuple | None = None

    def _cut(self, cut: CutPath) -> dict[str, tuple[Shape, np.ndarray]]:
        normal = cut.normal * [1, 1, 0]
        normal /= np.linalg.norm(normal)
        shape = self.scenery.shapes[cut.spec.object]
        return {
            name: (cut_by_plane(shape, cut.point, s * normal, inside=1.03), s * normal)
            for name, s in (("plus", 1.0), ("minus", -1.0))
        }

    def frame(self, t: int) -> Drawn:
        """Frame `t`; frames of one plan are drawn in order (a notch never closes again)."""
        items, names = self._objects(t)
        hands, tips = self._hands(t)
        items += hands + self._extra(t)
        drawn = [(i.owner, i.piece) for i in items], [i.vertices for i in items]
        if self._last is not None and _same(self._last[0], drawn):
            # Nothing has moved since the last frame, so its picture is this one too.
            return replace(self._last[1], tips_m=tips)
        scenery = self.scenery
        still = scenery.still(frozenset(names))
        maps = scenery.lights.shadow_maps(
            [i.caster or (i.vertices, i.shape.faces) for i in items], still.maps
        )
        out = self._composite(t, items, scenery.base(still, maps), still, maps, tips)
        self._last = (drawn, out)
        return out

    def _objects(self, t: int) -> tuple[list[_Item], set[str]]:
        """What of the objects is drawn anew, and the names of those that have not moved."""
        scenery, plan = self.scenery, self.plan
        items, still = [], set()
        cut_now = {c.spec.object: c for c in plan.cuts if t >= c.begins}
        morphed = {m.spec.object for m in plan.morphs if m.shown[: t + 1].any()}
        poses = dict(zip(plan.names, plan.T_world_object[t], strict=True))
        for i, name in enumerate(plan.names):
            T, scale = poses[name], plan.scale[t, i]
            if name in morphed:
                parts = [m for m in plan.morphs if m.spec.object == name and m.shown[t]]
                items += [self._morph_item(m, m.vertices(t, poses)) for m in parts]
            elif name in cut_now:
                items += self._piece_items(t, cut_now[name], T, scale)
            else:
                v = scenery.world(name, T, scale)
                if np.abs(v - scenery.world(name, scenery.rest[name])).max() < MOVED_M:
                    still.add(name)
                else:
                    items.append(_Item(name, scenery.shapes[name], v, T, *scenery.gain[name]))
        return items, still

    def _morph_item(self, morph: MorphPath, vertices: np.ndarray) -> _Item:
        name, faces = morph.spec.object, morph.meshes.faces
        albedo = morph.albedo
        if albedo is None:
            mean = self.scenery.shapes[name].albedo.mean(0)
            albedo = np.tile(mean, (len(vertices), 1))
        shape = Shape(
            vertices=vertices, normals=vertex_normals(vertices, faces), faces=faces, albedo=albedo
        )
        return _Item(name, shape, vertices, np.eye(4), *self.scenery.gain[name], piece=morph.name)

    def _piece_items(self, t: int, cut: CutPath, T: np.ndarray, scale: float) -> Iterator[_Item]:
        scenery, plan, name = self.scenery, self.plan, cut.spec.object
        self.lowest[name] = min(self.lowest[name], self._tool_edge(t, cut, T))
        tip = T[:3, :3].T @ plan.T_world_object[t, plan.names.index(cut.spec.tool), :3, 0]
        for piece, (shape, normal) in self.pieces[name].items():
            key = cut.keys[piece][t].copy()
            # Both pieces open towards the tool's tip.
            key[3] *= np.sign(np.cross(normal, tip)[2]) or 1.0
            local = deform_piece(
                shape, cut.point, normal, key, tool_edge_m=self.lowest[name],
                notch_m=cut.spec.notch_m,
            )  # fmt: skip
            v = scale * local @ T[:3, :3].T + T[:3, 3]
            yield _Item(name, shape, v, T, *scenery.gain[name], piece=piece)

    def _hands(self, t: int) -> tuple[list[_Item], np.ndarray]:
        """The hands in the picture, and the finger tips (5, 3) [m, world] of the first."""
        items, tips = [], np.full((5, 3), np.nan)
        for h in self.plan.hands:
            if not h.present[t]:
                continue
            step = int(np.abs(OPENNESS - h.openness[t]).argmin())
            fine, coarse = self.scenery.hand_meshes(h)[step]
            T = h.T_world_hand[t].copy()
            T[:3, :3] *= h.size
            items.append(self._hand_item(fine, coarse, T, h))
            if np.isnan(tips).all():
                tips = fine.tips @ T[:3, :3].T + T[:3, 3]
        return items, tips

    def _extra(self, t: int) -> list[_Item]:
        extra = self.plan.extra
        if "object" not in extra or t < extra["appears"]:
            return []
        shape, T = extra["object"]
        v = shape.vertices @ T[:3, :3].T + T[:3, 3]
        return [_Item(EXTRA, shape, v, T, np.full(3, self.scenery.exposure), np.zeros(3))]

    def _hand_item(self, fine: HandMesh, coarse: HandMesh, T: np.ndarray, h: HandPath) -> _Item:
        elbow = np.array(h.spec.elbow_m)
        v = fine.posed(T, elbow)
        shape = Shape(
            vertices=v, normals=vertex_normals(v, fine.faces), faces=fine.faces.astype(np.int32),
            albedo=np.tile(np.float32(SKIN), (len(v), 1)),
        )  # fmt: skip
        exposure = np.full(3, self.scenery.exposure)
        return _Item(
            HAND, shape, v, np.eye(4), exposure, np.zeros(3), tint=fine.tint,
            caster=(coarse.posed(T, elbow), coarse.faces.astype(np.int32)),
        )  # fmt: skip

    def _tool_edge(self, t: int, cut: CutPath, T_object: np.ndarray) -> float:
        """The lowest point of the tool inside the object's sides, in the object's frame [m]."""
        plan, scenery = self.plan, self.scenery
        tool = scenery.world(cut.spec.tool, plan.T_world_object[t, plan.names.index(cut.spec.tool)])
        local = (tool - T_object[:3, 3]) @ T_object[:3, :3]
        v = scenery.shapes[cut.spec.object].vertices
        inside = ((local[:, :2] > v[:, :2].min(0)) & (local[:, :2] < v[:, :2].max(0))).all(1)
        return float(local[inside, 2].min()) if inside.any() else np.inf

    def _composite(self, t, items, base, still, maps, tips) -> Drawn:
        scenery, plan, s = self.scenery, self.plan, SAMPLES
        h, w = still.labels.shape
        projected = [scenery.project(i.vertices, s) for i in items]
        window = _window(projected, w * s, h * s, s)
        names = plan.names
        masks = np.stack([still.labels == i + 1 for i in range(len(names))])
        hand = np.zeros((h, w), bool)
        pieces: dict[str, np.ndarray] = {}
        rgb = base
        if window is not None:
            x0, y0, x1, y1 = window
            crop = np.s_[y0 // s : y1 // s, x0 // s : x1 // s]
            depth = still.depth_m[crop].astype(np.float32).repeat(s, 0).repeat(s, 1)
            depth = np.where(np.isfinite(depth), depth, FAR)
            part = np.zeros(depth.shape, np.uint8)
            drawn = np.zeros((*depth.shape, 3), np.float32)
            for number, (item, points) in enumerate(zip(items, projected, strict=True), 1):
                color = scenery.shade(
                    item.shape, item.T, maps, item.gain, item.offset, item.vertices, item.tint
                )
                faces = item.shape.faces
                draw_mesh(points, faces, color[faces], number, x0, y0, depth, part, drawn)
            covered = part > 0
            alpha = _mean(covered.astype(np.float32), s)[..., None]
            over = _mean(drawn, s)
            rgb = base.copy()
            rgb[crop] = rgb[crop] * (1 - alpha) + over
            masks[:, crop[0], crop[1]] &= alpha[..., 0] < 0.5
            for number, item in enumerate(items, 1):
                seen = _mean((part == number).astype(np.float32), s) >= 0.5
                if item.owner == HAND:
                    hand[crop] |= seen
                elif item.owner != EXTRA:
                    masks[names.index(item.owner)][crop] |= seen
                if item.piece:
                    pieces[item.piece] = np.zeros((h, w), bool)
                    pieces[item.piece][crop] = seen
        return Drawn(
            rgb=rgb, masks=masks, hand=hand, pieces=pieces, tips_m=tips,
            contact=self._contacts(items),
        )  # fmt: skip

    def _contacts(self, items: list[_Item]) -> dict[tuple[str, str], bool]:
        """Which actuators' surfaces come within the task's `contact_m` of which targets'."""
        scenery = self.scenery
        within_m = scenery.task.spec.contact_m
        drawn: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for item in items:
            drawn.setdefault(item.owner, []).append((item.vertices, item.shape.faces))

        def surfaces(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
            at_rest = scenery.world(name, scenery.rest[name]), scenery.shapes[name].faces
            return drawn.get(name, [at_rest])

        return {
            (a.name, b.name): surfaces_touch(surfaces(a.name), surfaces(b.name), within_m)
            for a in scenery.task.actuators for b in scenery.task.targets if a.name != b.name
        }  # fmt: skip


def surfaces_touch(a: list, b: list, within_m: float) -> bool:
    """Whether the triangles of two lists of (vertices, faces) come within `within_m`."""
    from scipy.spatial import cKDTree

    boxes = [
        (np.min([v.min(0) for v, _ in parts], axis=0), np.max([v.max(0) for v, _ in parts], axis=0))
        for parts in (a, b)
    ]
    low = np.maximum(boxes[0][0], boxes[1][0]) - within_m
    high = np.minimum(boxes[0][1], boxes[1][1]) + within_m
    if (low > high).any():
        return False
    near_a, near_b = (_points_within(parts, low, high, within_m / 2) for parts in (a, b))
    if not len(near_a) or not len(near_b):
        return False
    gap, _ = cKDTree(near_b).query(near_a, distance_upper_bound=within_m)
    return bool(np.isfinite(gap).any())


def _points_within(parts: list, low: np.ndarray, high: np.ndarray, apart_m: float) -> np.ndarray:
    """(P, 3) of the surfaces of (vertices, faces) inside a box, at most `apart_m` apart."""
    points = [np.zeros((0, 3))]
    for vertices, faces in parts:
        corners = vertices[faces]
        corners = corners[((corners.max(1) >= low) & (corners.min(1) <= high)).all(1)]
        longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
        steps = np.maximum(np.ceil(longest / apart_m), 1).astype(int)
        for n in np.unique(steps):
            i, j = np.nonzero(np.add.outer(np.arange(n + 1), np.arange(n + 1)) <= n)
            weights = np.stack([i, j, n - i - j], 1) / n
            p = (weights @ corners[steps == n]).reshape(-1, 3)
            points.append(p[((p >= low) & (p <= high)).all(1)])
    # Slender triangles are sampled far more densely across than along.
    points = np.concatenate(points)
    cell = ((points - low) / (apart_m / 2)).astype(np.int64) @ [1, 1 << 20, 1 << 40]
    return points[np.unique(cell, return_index=True)[1]]


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
