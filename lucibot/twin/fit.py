"""Camera, sizes and places by the objects' outlines, all at once (paper, section 4.3).

What is compared is the support function of an outline: how far it reaches each way. It needs no
drawing, and a start that is off by half an object still leads there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from scipy.optimize import least_squares, minimize

from lucibot.core.camera import Camera
from lucibot.twin import lines
from lucibot.twin.shapes import Shape, Size

WAYS = 90
"""Directions in which outlines are compared."""
SIGMA = 0.0016
"""By how much an outline is off [share of the picture's width]."""
TOLD = 0.004
"""Spread of the logarithm of a length that the user has measured."""
LONGEST = "longest"
"""What a user may tell of any shape: its longest side."""
LONGER = 0.02
"""Spread of the logarithm by which a width may be larger than its length, which is the longer side."""
FEW = 30
"""Steps after which starts are compared."""
CLOSE = 0.01
"""Nearer than this share of its width to the picture's border or another object, an outline does not
tell where the object ends."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be fitted to one mask."""

    name: str
    shape: Shape
    mask: np.ndarray
    """(H, W) bool."""
    told: dict[str, float] = field(default_factory=dict)
    """Sizes that are known [m], `LONGEST` among them."""
    measured: dict[str, Size] = field(default_factory=dict)
    """Sizes that a depth map has measured, in place of typical ones."""
    on: str | None = None
    """What it stands on, one that is wanted before it; the table otherwise."""

    def expected(self, size: str) -> Size:
        """What a size is likely to be."""
        if size in self.told:
            return Size(typical=self.told[size], spread=TOLD)
        return self.measured.get(size, self.shape.sizes[size])

    @property
    def typical(self) -> dict[str, float]:
        """Its likely sizes."""
        return {k: self.expected(k).typical for k in self.shape.sizes}


def likely_top_m(wanted: Mapping[str, Wanted], name: str | None) -> float:
    """Height of what stands on the table as it is likely to be; of the table for None."""
    if name is None:
        return 0.0
    w = wanted[name]
    return likely_top_m(wanted, w.on) + w.shape.top_m(w.typical)


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where something stands, and how large it is."""

    x_m: float
    y_m: float
    z_m: float
    yaw_deg: float
    sizes: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class View:
    """The camera above a table z = 0, at x = y = 0, looking towards +y."""

    fov_deg: float
    pitch_deg: float
    roll_deg: float
    height_m: float
    yaw_deg: float = 0.0
    """Of the room's edges, see `lines.Gaze`."""

    def camera(self, shape: tuple[int, int], principal=(0.5, 0.5)) -> Camera:
        h, w = shape
        f = 0.5 * h / np.tan(np.deg2rad(self.fov_deg) / 2)
        T = np.eye(4)
        T[:3, :3], T[2, 3] = lines.rotation(self.pitch_deg, self.roll_deg), self.height_m
        return Camera(width=w, height=h, fx=f, fy=f, cx=principal[0] * w, cy=principal[1] * h,
                      T_world_cam=T)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fitted:
    view: View
    placed: dict[str, Placed]
    spread: dict[str, float]
    """Standard deviations, by what the outlines and the typical sizes leave open: fov_deg, pitch_deg,
    height (of its logarithm), and NAME.SIZE likewise."""


def transform(placed: Placed) -> np.ndarray:
    """(4, 4) world from object."""
    a = np.deg2rad(placed.yaw_deg)
    T = np.eye(4)
    T[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    T[:3, 3] = placed.x_m, placed.y_m, placed.z_m
    return T


def silhouette(pieces: list[np.ndarray], T: np.ndarray, camera: Camera) -> np.ndarray:
    """(H, W) bool: the union of convex pieces (N, 3) [m] at a pose, drawn without anything before it."""
    out = np.zeros((camera.height, camera.width), np.uint8)
    for piece in pieces:
        uv, z = camera.project(piece @ T[:3, :3].T + T[:3, 3])
        if (z <= 0.01).any():
            continue
        # Pixel (u, v) covers [u, u + 1); OpenCV's points are pixel centres, in 16ths of a pixel.
        hull = cv2.convexHull(np.clip((uv - 0.5) * 16, -3e5, 3e5).round().astype(np.int32))
        cv2.fillConvexPoly(out, hull, 1, lineType=cv2.LINE_8, shift=4)
    return out > 0


class _Outline:
    """A mask's reach each way, and which of it can be trusted."""

    def __init__(self, mask: np.ndarray, others: np.ndarray):
        found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        # Pixel centres lie half a pixel inside of the outline.
        points = np.concatenate(found)[:, 0].astype(float) + 0.5
        angle = 2 * np.pi * np.arange(WAYS) / WAYS
        self.ways = np.stack([np.cos(angle), np.sin(angle)], -1)
        reach = points @ self.ways.T
        self.reach, best = reach.max(0) + 0.5, points[reach.argmax(0)]
        h, w = mask.shape
        near = CLOSE * w
        free = (best > near).all(1) & (best < np.array([w, h]) - near).all(1)
        if others.any():
            away = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, 3)
            at = best.astype(int)
            free &= away[at[:, 1].clip(0, h - 1), at[:, 0].clip(0, w - 1)] > near
        self.weight = free / np.sqrt(WAYS / 14)
        self.box = points.min(0), points.max(0)
        self.points = points


def fit(
    wanted: list[Wanted], shape: tuple[int, int], *, segments: np.ndarray, fov_deg: float | None,
    view: View | None = None, principal=(0.5, 0.5),
) -> Fitted:  # fmt: skip
    """Fit camera and objects.

    Args:
        shape: (H, W) of the photo.
        segments: straight edges (N, 4) [pixels].
        fov_deg: the field of view where it is known.
        view: the camera above the table where it is known, as from a depth map.
    """
    outlines = []
    for w in wanted:
        others = np.any([o.mask for o in wanted if o is not w], axis=0) if len(wanted) > 1 else None
        outlines.append(_Outline(w.mask, np.zeros(shape, bool) if others is None else others))
    seen = lines.gaze(segments, shape, fov_deg, principal) if view is None else None
    starts = [view] if view else _starts(seen, fov_deg)
    problems = [
        _Problem(wanted, outlines, shape, segments, fov_deg, start, view is not None, principal)
        for start in starts
    ]
    # The start that leads furthest in a few steps is followed to the end.
    problem, found = min(((p, p.begun()) for p in problems), key=lambda t: t[1].cost)
    found = problem.solved(found.x, steps=80)
    view_, placed = problem.unpack(found.x)
    spread = problem.spread(found.jac)
    camera, polished = view_.camera(shape, principal), {}
    for w in wanted:
        start = placed[w.name]
        if w.shape.upright:
            start = replace(start, z_m=problem.support_m(w, polished))
        polished[w.name] = _polished(w, start, camera, wanted)
    return Fitted(view=view_, placed=polished, spread=spread)


def _starts(seen: lines.Gaze | None, fov_deg: float | None) -> list[View]:
    fov = fov_deg or lines.FOV_DEG
    pitches = [25.0, 40.0, 55.0, 75.0]
    found = [View(fov_deg=fov, pitch_deg=p, roll_deg=0, height_m=0.5) for p in pitches]
    if seen is not None:
        told = View(fov_deg=seen.vertical_fov_deg, pitch_deg=seen.pitch_deg, roll_deg=seen.roll_deg,
                    height_m=0.5, yaw_deg=seen.yaw_deg)  # fmt: skip
        # Edges along two axes settle the pitch, edges along one do not.
        settled = sorted(seen.support)[1] > 0.2
        found = [told] if settled else [told, *found]
    return found


class _Problem:
    """The unknowns: the view (fov, pitch, roll, yaw of the room, height), then for each object x and y
    over the height, yaw, z over the height, and the logarithms of its sizes over the typical ones. What
    stands has the height of what it stands on; what hangs in a wall has the room's yaw."""

    VIEW, PLACE = 5, 4

    def __init__(
        self, wanted, outlines, shape, segments, fov_deg, start: View, known: bool, principal
    ):
        self.wanted, self.outlines, self.shape = wanted, outlines, shape
        self.by_name = {w.name: w for w in wanted}
        self.fov_deg, self.start, self.known, self.principal = fov_deg, start, known, principal
        self.ends = lines.from_axis(segments, shape, principal)
        length = np.linalg.norm(self.ends[:, 1] - self.ends[:, 0], axis=1)
        self.edge_weight = np.sqrt(length / max(length.sum(), 1e-9) * min(30.0, 3.0 * len(length)))
        self.standing = any(w.shape.upright for w in wanted)
        self.x0, self.x_scale = self._initial()

    def _initial(self) -> tuple[np.ndarray, np.ndarray]:
        camera, s = self.start.camera(self.shape, self.principal), self.start
        guesses = [
            _guess(o, w, camera, likely_top_m(self.by_name, w.on))
            for w, o in zip(self.wanted, self.outlines, strict=True)
        ]
        standing = [g[-1] for w, g in zip(self.wanted, guesses, strict=True) if w.shape.upright]
        # The camera's height carries the scale of all that stands below it.
        shift = 0.0 if self.known or not standing else float(np.median(standing))
        x = [np.log(s.fov_deg / lines.FOV_DEG), s.pitch_deg, s.roll_deg, s.yaw_deg,
             np.log(s.height_m) - shift]  # fmt: skip
        scale = [0.1, 3.0, 1.0, 3.0, 0.2]
        for w, (xyz, yaw, ratio) in zip(self.wanted, guesses, strict=True):
            x += [*(xyz[:2] / s.height_m), yaw, xyz[2] / s.height_m]
            scale += [0.02, 0.02, 5.0, 0.02]
            for k in w.shape.sizes:
                fixed = k in w.shape.unitless or not w.shape.upright
                x.append(np.log(w.expected(k).typical / w.shape.sizes[k].typical))
                x[-1] += 0.0 if fixed else ratio - shift
                scale.append(0.1)
        return np.array(x), np.array(scale)

    def unpack(self, x) -> tuple[View, dict[str, Placed]]:
        if self.known:
            view = self.start
        else:
            view = View(
                fov_deg=self.fov_deg or float(np.clip(lines.FOV_DEG * np.exp(x[0]), 10, 120)),
                pitch_deg=float(np.clip(x[1], 1, 90)), roll_deg=float(x[2]), yaw_deg=float(x[3]),
                height_m=float(np.exp(x[4])),
            )  # fmt: skip
        placed, i = {}, self.VIEW
        for w in self.wanted:
            sizes = {
                k: s.typical * float(np.exp(np.clip(x[i + self.PLACE + n], -4, 4)))
                for n, (k, s) in enumerate(w.shape.sizes.items())
            }
            upright = w.shape.upright
            placed[w.name] = Placed(
                x_m=float(x[i] * view.height_m), y_m=float(x[i + 1] * view.height_m),
                z_m=self.support_m(w, placed) if upright else float(x[i + 3] * view.height_m),
                yaw_deg=_yaw(w, float(x[i + 2]), view), sizes=sizes,
            )  # fmt: skip
            i += self.PLACE + len(sizes)
        return view, placed

    def support_m(self, w: Wanted, placed: Mapping[str, Placed]) -> float:
        """Height of what it stands on, which is placed."""
        if w.on is None:
            return 0.0
        below = placed[w.on]
        return below.z_m + self.by_name[w.on].shape.top_m(below.sizes)

    def solved(self, x, steps: int):
        return least_squares(
            self.residuals, x, loss="soft_l1", f_scale=2.0, max_nfev=steps, x_scale=self.x_scale
        )

    def begun(self):
        """A few steps from the start, with each thing the way round that leads further: its outline
        does not tell which side is the longer one, for what is high looks long away from the viewer."""
        x0, found, i = self.x0, self.solved(self.x0, steps=FEW), self.VIEW
        for w in self.wanted:
            if w.shape.turns and w.shape.upright:
                turned = x0.copy()
                turned[i + 2] += 90.0
                other = self.solved(turned, steps=FEW)
                if other.cost < found.cost:
                    x0, found = turned, other
            i += self.PLACE + len(w.shape.sizes)
        return found

    def residuals(self, x) -> np.ndarray:
        view, placed = self.unpack(x)
        camera, w_px = view.camera(self.shape, self.principal), self.shape[1]
        out = []
        for w, o in zip(self.wanted, self.outlines, strict=True):
            p = placed[w.name]
            T = transform(p)
            points = np.concatenate(w.shape.pieces(p.sizes)) @ T[:3, :3].T + T[:3, 3]
            uv, z = camera.project(points)
            uv = np.where(z[:, None] > 1e-3, uv, 1e4)
            off = (uv @ o.ways.T).max(0) - o.reach
            out.append(o.weight * np.clip(off, -3 * w_px, 3 * w_px) / (SIGMA * w_px))
            out.append(_prior(w, p, points))
        if not self.known:
            out.append(np.array([
                0.0 if self.fov_deg else x[0] / lines.FOV_SPREAD, view.roll_deg / lines.ROLL_SPREAD_DEG,
                0.02 * view.yaw_deg, 0.01 * (view.pitch_deg - 45),
                0.0 if self.standing else np.log(view.height_m / self.start.height_m) / 0.01,
            ]))  # fmt: skip
            if len(self.ends):
                error = lines.errors(
                    self.ends, view.fov_deg, view.pitch_deg, view.roll_deg, view.yaw_deg
                )
                capped = np.minimum(error[:, 0].min(-1), 4) / lines.TOLERANCE_DEG
                out.append(self.edge_weight * np.sqrt(np.log1p(capped**2)))
        return np.concatenate(out)

    def spread(self, jacobian: np.ndarray) -> dict[str, float]:
        """Standard deviations; a direction that nothing settles gets a large one."""
        information = jacobian.T @ jacobian + 1e-6 * np.eye(jacobian.shape[1])
        sigma = np.sqrt(np.maximum(np.diag(np.linalg.inv(information)), 0))
        out = {}
        if not self.known:
            out = {"fov_deg": 0.0 if self.fov_deg else float(sigma[0] * lines.FOV_DEG),
                   "pitch_deg": float(sigma[1]), "height": float(sigma[4])}  # fmt: skip
        i = self.VIEW
        for w in self.wanted:
            for n, k in enumerate(w.shape.sizes):
                out[f"{w.name}.{k}"] = float(sigma[i + self.PLACE + n])
            i += self.PLACE + len(w.shape.sizes)
        return out


def _yaw(w: Wanted, yaw_deg: float, view: View) -> float:
    """What is round has none, and what hangs in a wall has the room's."""
    if not w.shape.upright:
        return view.yaw_deg
    return yaw_deg if w.shape.turns else 0.0


def _prior(w: Wanted, p: Placed, points: np.ndarray) -> np.ndarray:
    """How far sizes are from those that are likely [standard deviations]."""
    out = []
    for k in w.shape.sizes:
        e = w.expected(k)
        out.append(np.log(p.sizes[k] / e.typical) / e.spread)
    sides = {"length", "width"}
    if sides <= set(w.shape.sizes) and not sides <= set(w.told):
        # Turned by a quarter it would look the same with the two exchanged.
        out.append(max(np.log(p.sizes["width"] / p.sizes["length"]), 0.0) / LONGER)
    if LONGEST in w.told:
        longest = max(np.ptp(points[:, 2]), _diameter(points[:, :2], w.shape.turns))
        out.append(np.log(longest / w.told[LONGEST]) / TOLD)
    return np.array(out)


def _diameter(xy: np.ndarray, turns: bool) -> float:
    """The longest extent (N, 2) along any way; of a round thing any will do."""
    angle = np.linspace(0, np.pi, 37 if turns else 2)[:-1]
    return float(np.ptp(xy @ np.stack([np.cos(angle), np.sin(angle)]), axis=0).max())


def _guess(
    o: _Outline, w: Wanted, camera: Camera, support_m: float
) -> tuple[np.ndarray, float, float]:
    """Where it may be (3,) [m], which way it lies [deg], and the logarithm of how much larger than
    expected it then is: its outline, laid on what it stands on."""
    (x0, y0), (x1, y1) = o.box
    width = np.ptp(np.concatenate(w.shape.pieces(w.typical)), axis=0)
    if not w.shape.upright:
        # Far enough away to look as large as it does.
        depth = camera.fx * width[0] / max(x1 - x0, 3)
        uv = np.array([0.5 * (x0 + x1), y0 + 0.7 * (y1 - y0)])
        d = np.r_[(uv - (camera.cx, camera.cy)) / camera.fx, 1.0] * depth
        return camera.T_world_cam[:3, :3] @ d + camera.T_world_cam[:3, 3], 0.0, 0.0
    tall = width[2] > 1.2 * width[0]
    foot = np.array([0.5 * (x0 + x1), y1 - (0.14 if tall else 0.4) * (y1 - y0)])
    ground = on_plane(np.vstack([foot, o.points]), camera, support_m)
    flat = ground[1:] - ground[1:].mean(0)
    _, _, axes = np.linalg.svd(flat, full_matrices=False)
    yaw = float(np.rad2deg(np.arctan2(axes[0, 1], axes[0, 0]))) if w.shape.turns else 0.0
    place = np.r_[ground[0], support_m]
    extent = max(x1 - x0, 3) / camera.fx * float(camera.project(place)[1])
    typical = np.sqrt(max(width[:2]) * max(min(width[:2]), 0.5 * width[2]))
    return place, yaw, float(np.log(extent / typical))


def on_plane(uv: np.ndarray, camera: Camera, z_m: float) -> np.ndarray:
    """Where pixels (N, 2) look through the plane z (N, 2) [m]; those above the horizon far away."""
    d = np.stack([(uv[:, 0] - camera.cx) / camera.fx, (uv[:, 1] - camera.cy) / camera.fy,
                  np.ones(len(uv))], -1) @ camera.T_world_cam[:3, :3].T  # fmt: skip
    eye = camera.T_world_cam[:3, 3]
    down = np.minimum(d[:, 2], -0.05)
    return eye[:2] + d[:, :2] * ((z_m - eye[2]) / down)[:, None]


def _polished(w: Wanted, start: Placed, camera: Camera, wanted: list[Wanted]) -> Placed:
    """Raise the overlap of the drawn silhouette and the mask, without leaving the sizes that are
    likely: this sees hollows in an outline, which its reach does not."""
    v, u = np.nonzero(w.mask)
    side = max(np.ptp(u), np.ptp(v))
    pad = 0.3 * side + 8
    x0, y0 = max(u.min() - pad, 0), max(v.min() - pad, 0)
    x1, y1 = min(u.max() + pad, camera.width), min(v.max() + pad, camera.height)
    scale = min(1.0, 260 / max(x1 - x0, y1 - y0))
    size = int((x1 - x0) * scale), int((y1 - y0) * scale)
    small = Camera(
        width=size[0], height=size[1], fx=camera.fx * scale, fy=camera.fy * scale,
        cx=(camera.cx - x0) * scale, cy=(camera.cy - y0) * scale, T_world_cam=camera.T_world_cam,
    )  # fmt: skip
    move = np.array([[1 / scale, 0, x0], [0, 1 / scale, y0]])

    def cropped(mask):
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(mask.astype(np.float32), move, size, flags=flags) > 0.5

    mask = cropped(w.mask)
    others = [cropped(o.mask) for o in wanted if o is not w]
    known = ~np.any(others, axis=0) if others else np.ones_like(mask)
    keys, upright = list(w.shape.sizes), w.shape.upright
    step = np.r_[
        0.01,
        0.01,
        3.0 if w.shape.turns else 0.0,
        0.0 if upright else 0.01,
        np.full(len(keys), 0.04),
    ]
    reach = abs(start.y_m) or 1.0

    def placed(d) -> Placed:
        d = d * step
        return Placed(
            x_m=start.x_m + d[0] * reach, y_m=start.y_m + d[1] * reach,
            z_m=start.z_m + d[3] * reach, yaw_deg=start.yaw_deg + d[2],
            sizes={k: start.sizes[k] * float(np.exp(d[4 + n])) for n, k in enumerate(keys)},
        )  # fmt: skip

    def loss(d) -> float:
        p = placed(d)
        T = transform(p)
        pieces = w.shape.pieces(p.sizes)
        drawn = silhouette(pieces, T, small) & known
        want = mask & known
        overlap = (drawn & want).sum() / max(1, (drawn | want).sum())
        points = np.concatenate(pieces) @ T[:3, :3].T + T[:3, 3]
        return 1 - overlap + 2e-3 * float((np.minimum(np.abs(_prior(w, p, points)), 6) ** 2).sum())

    simplex = np.vstack([np.zeros(len(step)), np.eye(len(step))])
    options = {"initial_simplex": simplex, "maxfev": 160 * len(step), "xatol": 0.02, "fatol": 2e-5}
    found = minimize(loss, np.zeros(len(step)), method="Nelder-Mead", options=options)
    return placed(found.x) if found.fun < loss(np.zeros(len(step))) else start
