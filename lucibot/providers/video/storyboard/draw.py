"""Draws a plan: moving shapes and hands over the first frame's own pixels, with soft shadows.

What has not moved yet keeps the first frame's pixels; what moves is drawn with colours fitted to
its appearance there; what it uncovers comes from the picture of the empty scene. The shadows of
everything are drawn from the same casters, so they move along.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from lucibot.providers.video.storyboard.hand import HandMesh
from lucibot.providers.video.storyboard.morph import MorphPath
from lucibot.providers.video.storyboard.painting import draw_faces, mark_corners, paint
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
        h, w = scenery.view.labels.shape
        self._depth = np.empty(h * w * SAMPLES**2, np.float32)
        self._face = np.empty(h * w * SAMPLES**2, np.int32)
        self._last: tuple | None = None
        self._standing: tuple | None = None

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
        if self._last is not None:
            (owners, vertices), before = self._last
            if owners == drawn[0] and _same(vertices, drawn[1]):
                # Nothing has moved since the last frame, so its picture is this one too.
                return replace(before, tips_m=tips)
        scenery = self.scenery
        still = scenery.still(frozenset(names))
        maps = self._shadow_maps(items, still.maps)
        out = self._composite(items, scenery.base(still, maps), still, maps, tips)
        self._last = (drawn, out)
        return out

    def _shadow_maps(self, items: list[_Item], onto: tuple) -> tuple:
        """Those of all items: what has not moved since the last frame is drawn once for all frames
        in which it does not."""
        before = self._last[0][1] if self._last else []
        stay = [any(np.array_equal(i.vertices, v) for v in before) for i in items]
        standing = [i for i, stays in zip(items, stay, strict=True) if stays]
        drawn = [*onto, *(i.vertices for i in standing)]
        if self._standing is None or not _same(self._standing[0], drawn):
            self._standing = drawn, self.scenery.lights.shadow_maps(_casters(standing), onto)
        moving = [i for i, stays in zip(items, stay, strict=True) if not stays]
        return self.scenery.lights.shadow_maps(_casters(moving), self._standing[1])

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

    def _composite(self, items, base, still, maps, tips) -> Drawn:
        scenery, s = self.scenery, SAMPLES
        masks, names = still.masks.copy(), self.plan.names
        h, w = masks.shape[1:]
        projected = [scenery.project(i.vertices, s) for i in items]
        window = _window(projected, w * s, h * s, s)
        hand = np.zeros((h, w), bool)
        pieces: dict[str, np.ndarray] = {}
        if window is not None:
            x0, y0, x1, y1 = window
            crop = np.s_[y0 // s : y1 // s, x0 // s : x1 // s]
            behind = still.depth_m[crop]
            fine = y1 - y0, x1 - x0
            depth, face = (a[: fine[0] * fine[1]].reshape(fine) for a in (self._depth, self._face))
            for k in range(s * s):
                depth[k // s :: s, k % s :: s] = behind
            face.fill(-1)
            points, ends = np.concatenate(projected), np.cumsum([len(p) for p in projected])
            faces = np.concatenate(
                [i.shape.faces + end - len(p) for i, end, p in zip(items, ends, projected, strict=True)],
                dtype=np.int32, casting="same_kind",
            )  # fmt: skip
            draw_faces(points, faces, x0, y0, depth, face)
            needed, color = np.zeros(len(points), bool), np.empty((len(points), 3), np.float32)
            mark_corners(face, faces, needed)
            for item, only, out in zip(
                items, np.split(needed, ends[:-1]), np.split(color, ends[:-1]), strict=True
            ):
                out[only] = scenery.shade(
                    item.shape, item.T, maps, item.gain, item.offset,
                    vertices=item.vertices, tint=item.tint, only=only,
                )  # fmt: skip
            counts = [len(i.shape.faces) for i in items]
            part_of = np.repeat(np.arange(len(items), dtype=np.uint8), counts)
            covered = np.empty(behind.shape, np.float32)
            shown = np.zeros((len(items), *behind.shape), bool)
            paint(points, faces, color, part_of, face, x0, y0, base[crop], covered, shown)
            masks[:, crop[0], crop[1]] &= covered < 0.5
            for item, seen in zip(items, shown, strict=True):
                if item.owner == HAND:
                    hand[crop] |= seen
                elif item.owner != EXTRA:
                    masks[names.index(item.owner)][crop] |= seen
                if item.piece:
                    pieces[item.piece] = np.zeros((h, w), bool)
                    pieces[item.piece][crop] = seen
        return Drawn(
            rgb=base, masks=masks, hand=hand, pieces=pieces, tips_m=tips,
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

    boxes = [_box([v for v, _ in parts]) for parts in (a, b)]
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
        # Off the box is what has all three corners off the same side.
        off = np.concatenate([vertices < low, vertices > high], axis=1)
        corners = vertices[faces[~(off[faces[:, 0]] & off[faces[:, 1]] & off[faces[:, 2]]).any(1)]]
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


def _box(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest coordinates (n,) of all points (P, n) of some lists."""
    # Along columns that lie in one piece this takes a tenth of the time.
    columns = [np.ascontiguousarray(p.T) for p in parts]
    return np.min([c.min(1) for c in columns], axis=0), np.max([c.max(1) for c in columns], axis=0)


def _casters(items: list[_Item]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [i.caster or (i.vertices, i.shape.faces) for i in items]


def _same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(map(np.array_equal, a, b))


def _window(projected: list[np.ndarray], w: int, h: int, s: int):
    """The even window (x0, y0, x1, y1) around all projected points inside the picture, or None."""
    if not any(len(p) for p in projected):
        return None
    low, high = _box([p[:, :2] for p in projected if len(p)])
    low, high = low - 2, high + 2
    x0, y0 = (int(max(v, 0)) // s * s for v in np.floor(low))
    x1, y1 = (
        int(min(v, limit)) // s * s for v, limit in zip(np.ceil(high) + s, (w, h), strict=True)
    )
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
