"""From a photo and marks to a task folder (paper, section 4.3)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import trimesh

from lucibot.core.camera import Camera
from lucibot.core.errors import UserError
from lucibot.core.schema import parse
from lucibot.task.schema import TaskSpec
from lucibot.twin import MASKS, fit, folder, ladle, lines, plate
from lucibot.twin import depth as depths
from lucibot.twin.config import TwinConfig
from lucibot.twin.fit import Placed, View, Wanted
from lucibot.twin.folder import Entry
from lucibot.twin.picture import Lens
from lucibot.twin.request import Request, Thing, under
from lucibot.twin.shapes import SHAPES, Size, of_mesh

WALL_M = 0.003
WET_WALL_M = 0.006
"""Of what particles are in: a wall that is thinner than they are leaks."""
DEPTH_FOV_DEG = 42.5
"""Of depth cameras, where nothing else is known."""


@dataclass
class Twin:
    """A fitted twin, before it is written. World: z up, the table at z = 0, x along the room's edges,
    the origin where the optical axis meets the table (for what hangs in a wall, at the first such
    thing)."""

    camera: Camera
    entries: dict[str, Entry]
    """Of `twin.toml`."""
    poses: dict[str, np.ndarray]
    """(4, 4) world from thing."""
    masks: dict[str, np.ndarray]
    plate: np.ndarray
    """(H, W, 3) uint8: the photo without what moves."""
    table_rgb: tuple[float, float, float]
    wall_y_m: float | None
    """Where the table ends and the wall begins, if that is seen."""
    uncertain: list[str] = field(default_factory=list)
    """What is not settled by the photo, a line each."""


def make(
    picture: np.ndarray, request: Request, config: TwinConfig, *, lens: Lens | None,
    depth: np.ndarray | None = None, relative: bool = False,
) -> Twin:  # fmt: skip
    """Fit camera, shapes and places.

    Args:
        picture: (H, W, 3) uint8 RGB.
        lens: what is known of the camera.
        depth: (H, W) metres, or relative (larger is nearer), NaN where unknown.

    Raises:
        UserError: something that is named cannot be segmented or fitted.
    """
    for t in request.things.values():
        if t.shape == "model" and config.modeller is None:
            raise UserError(f"--shape {t.name}=model needs --modeller.command")
    shape = picture.shape[:2]
    seen = {t.name: t.mark for t in request.things.values() if t.mark is not None}
    masks = config.segmenter.create().segment(picture, seen)
    _keep_apart(masks, request)
    around = np.any(
        [cv2.dilate(m.astype(np.uint8), np.ones((9, 9))) for m in masks.values()], axis=0
    )
    segments = lines.edges(picture, around)
    principal = lens.principal_point if lens else (0.5, 0.5)
    fitted_things = [t for t in request.things.values() if _is_fitted(t)]
    models = {t.name: _user_mesh(t, picture, masks, config) for t in fitted_things}
    view, placed, relief, uncertain = _fitted(
        fitted_things, masks, models, shape, lens, lines.edges(picture, around),
        _Depth(values=depth, relative=relative, objects=around),
    )  # fmt: skip
    camera = view.camera(shape, principal)
    poses = {name: fit.transform(p) for name, p in placed.items()}
    entries = {t.name: _entry(t, placed[t.name], models[t.name], request) for t in fitted_things}
    for t in (t for t in request.things.values() if t.shape == "ladle"):
        entries[t.name], poses[t.name] = _ladle(t, masks, camera, relief, request)
        if t.on in entries and "height" in entries[t.on]:
            _lower(entries[t.on], poses[t.on], entries[t.name], poses[t.name])
    for t in (t for t in request.things.values() if t.filling is not None):
        entries[t.name] = _content(
            t, masks.get(t.name), entries[t.filling], poses[t.filling], camera
        )
        poses[t.name] = poses[t.filling]
    for name, mask in masks.items():
        entries[name]["colour"] = _colour(picture, mask)
    hanging = [poses[t.name] for t in fitted_things if not _upright(t)]
    T = _world(view, camera, hanging)
    moving = [masks[n] for n in masks if _moves(request, n)]
    filled = config.inpainter.create().fill(picture, plate.holes(moving, shape))
    # What the objects stand on is seen right beside them.
    wide = max(9, round(0.06 * shape[1]) | 1)
    table = ~around & (cv2.dilate(around.astype(np.uint8), np.ones((wide, wide))) > 0)
    return Twin(
        camera=_moved(camera, T), entries=entries, masks=masks, plate=filled, uncertain=uncertain,
        poses={n: T @ pose for n, pose in poses.items()},
        table_rgb=_colour(picture, table if table.any() else ~around),
        wall_y_m=None if hanging else _wall(segments, camera, T, masks),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Depth:
    values: np.ndarray | None
    relative: bool
    objects: np.ndarray
    """(H, W) bool: what does not belong to the table."""


def _fitted(
    things: list[Thing], masks, models, shape: tuple[int, int], lens: Lens | None, segments,
    depth: _Depth,
) -> tuple[View, dict[str, Placed], depths.Relief | None, list[str]]:  # fmt: skip
    """The view, each thing's place and size, what depth tells, and what stays open."""
    principal = lens.principal_point if lens else (0.5, 0.5)
    fov, uncertain, relief = (lens.vertical_fov_deg if lens else None), [], None
    metric = depth.values is not None and not depth.relative
    if metric:
        if fov is None:
            fov = DEPTH_FOV_DEG
            uncertain.append(
                f"the field of view is a guess ({fov:g} deg): give --fov or --intrinsics"
            )
        relief = depths.relief(depth.values, depth.objects, fov, principal)
    if not things:
        if relief is None:
            raise UserError(
                "a ladle alone does not tell where the table is: give --depth, or name another thing"
            )
        return relief.view, {}, relief, uncertain
    known = {"shape": shape, "segments": segments, "fov_deg": fov, "principal": principal,
             "view": relief.view if relief else None}  # fmt: skip
    names = {t.name for t in things}
    uncertain += [
        f"{t.name}: how high {t.on} lifts it is not fitted, so it stands on the table"
        for t in things if t.on is not None and t.on not in names
    ]  # fmt: skip
    wanted = _wanted(things, masks, models, relief)
    found = fit.fit(wanted, **known)
    if depth.values is not None and depth.relative:
        values = depths.as_metric(depth.values, depth.objects, found.view, shape)
        heights = found.view.camera(shape, principal).unproject(values)[..., 2]
        relief = depths.Relief(view=found.view, heights_m=heights)
        wanted = _wanted(things, masks, models, relief)
        found = fit.fit(wanted, **known)
    uncertain += _open_questions(found, wanted, measured=metric)
    return found.view, found.placed, relief, uncertain


def _upright(thing: Thing) -> bool:
    return thing.shape not in SHAPES or SHAPES[thing.shape].upright


def _is_fitted(thing: Thing) -> bool:
    return thing.filling is None and thing.shape != "ladle"


def _moves(request: Request, name: str) -> bool:
    """Whether it is an object of the task, not background."""
    return name in request.moved or name in request.targets


def _keep_apart(masks: dict[str, np.ndarray], request: Request) -> None:
    """What lies in another thing hides it; what two masks claim otherwise is the smaller one's,
    for a mask runs over into its neighbours rather than into a part of one."""
    for t in request.things.values():
        if t.filling in masks and t.name in masks:
            masks[t.filling] = masks[t.filling] & ~masks[t.name]
    order = sorted(masks, key=lambda n: masks[n].sum())
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    for k, name in enumerate(order):
        for larger in order[k + 1 :]:
            if (masks[larger] & masks[name]).any():
                rest = masks[larger] & ~(cv2.dilate(masks[name].astype(np.uint8), kernel) > 0)
                # Without the slivers that are left along the smaller one's edge.
                masks[larger] = cv2.morphologyEx(rest.astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0


def _user_mesh(t: Thing, picture, masks, config: TwinConfig) -> trimesh.Trimesh | None:
    if t.shape in SHAPES:
        return None
    if t.shape == "model":
        return config.modeller.create().model(picture, masks[t.name])
    try:
        mesh = trimesh.load(t.shape, force="mesh")
    except Exception as e:  # Its parsers raise whatever a broken file makes of their own code.
        raise UserError(f"--shape {t.name}={t.shape} cannot be read as a mesh ({e})") from None
    mesh.merge_vertices()
    if not mesh.is_watertight:
        raise UserError(f"--shape {t.name}={t.shape} is not closed: close its holes")
    return mesh


def _wanted(things, masks, models, relief: depths.Relief | None) -> list[Wanted]:
    found: dict[str, Wanted] = {}
    fitted = {t.name: t for t in things}
    for t in sorted(things, key=lambda t: len(under(fitted, t.name))):
        shape = of_mesh(t.name, models[t.name]) if models[t.name] is not None else SHAPES[t.shape]
        on = t.on if t.on in found else None
        support, measured = fit.likely_top_m(found, on), {}
        if relief is not None and "height" in shape.sizes and shape.upright:
            top = depths.top_m(relief.heights_m, masks[t.name])
            if top is not None and top[0] > support:
                height = top[0] - support
                measured["height"] = Size(typical=height, spread=max(0.05, top[1] / height))
        found[t.name] = Wanted(name=t.name, shape=shape, mask=masks[t.name], told=t.told,
                               measured=measured, on=on)  # fmt: skip
    return list(found.values())


def _entry(t: Thing, placed: Placed, model: trimesh.Trimesh | None, request: Request) -> Entry:
    if model is not None:
        return {"shape": "mesh", "file": f"assets/{t.name}_given.ply", "scale": placed.sizes["scale"],
                "model": model}  # fmt: skip
    wet = any(o.filling == t.name for o in request.things.values())
    entry: Entry = {"shape": t.shape, **placed.sizes}
    if SHAPES[t.shape].cavity is not None:
        entry["wall_m"] = t.wall_m or (WET_WALL_M if wet or _receives(request, t.name) else WALL_M)
    else:
        entry["wall_m"] = WALL_M
    return entry


def _receives(request: Request, name: str) -> bool:
    """Whether particles are to come into it."""
    return any(
        g.get("container") == name and request.things[g["object"]].material != "rigid"
        for g in request.goals
    )


def _ladle(t: Thing, masks, camera: Camera, relief, request: Request) -> tuple[Entry, np.ndarray]:
    gaps = np.zeros_like(masks[t.name])
    for o in request.things.values():
        if t.name in (o.filling, o.on) and o.name in masks:
            gaps |= masks[o.name]
    plane = depths.plane_of(relief.heights_m, masks[t.name], camera) if relief else None
    if plane is None:
        # Unmeasured it lies flat, its rim as high as such a hollow is deep.
        plane = np.array([0, 0, 0.02]), np.array([0.0, 0, 1])
    made, T = ladle.along(masks[t.name], camera, *plane, gaps)
    values = {k: getattr(made, k) for k in made.__dataclass_fields__}
    if t.wall_m:
        values["wall_m"] = t.wall_m
    # Its bowl reaches down to the table at most: the rim is where it is seen.
    widest = int(np.argmax(np.subtract(made.left_m, made.right_m)))
    rim = float(T[2, :3] @ [made.x_m[widest], 0, 0] + T[2, 3])
    values["depth_m"] = float(np.clip(rim - values["wall_m"] - 5e-4, 0.004, made.depth_m))
    return {"shape": "ladle", **values}, T


def _lower(below: Entry, T_below: np.ndarray, entry: Entry, T: np.ndarray) -> None:
    """Make what a ladle rests on no higher than the ladle's underside."""
    # Points on edges too: a handle has few vertices over a narrow thing.
    dense = folder.ladle(entry).mesh().subdivide().subdivide()
    world = np.asarray(dense.vertices) @ T[:3, :3].T + T[:3, 3]
    local = (world - T_below[:3, 3]) @ T_below[:3, :3]
    reach = 0.5 * np.array([below.get("length", 0.0), below.get("width", 0.0)]) + 0.003
    over = local[(np.abs(local[:, :2]) < reach).all(1), 2]
    if len(over):
        below["height"] = float(np.clip(over.min() - 1e-3, 0.003, below["height"]))


def _content(t: Thing, mask, vessel: Entry, T: np.ndarray, camera: Camera) -> Entry:
    if mask is None:
        return {"shape": "content", "of": t.filling, "level": t.level}
    top = 0.003 if vessel["shape"] == "ladle" else t.level * vessel["height"]
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    uv = cv2.convexHull(np.concatenate(outline))[:, 0] + 0.5
    d = np.stack([(uv[:, 0] - camera.cx) / camera.fx, (uv[:, 1] - camera.cy) / camera.fy,
                  np.ones(len(uv))], -1) @ camera.T_world_cam[:3, :3].T  # fmt: skip
    inverse = np.linalg.inv(T)
    eye, d = inverse[:3, :3] @ camera.T_world_cam[:3, 3] + inverse[:3, 3], d @ inverse[:3, :3].T
    points = eye + d * ((top - eye[2]) / d[:, 2])[:, None]
    return {"shape": "content", "of": t.filling, "top_m": top,
            "outline_m": [[float(x), float(y)] for x, y in points[:, :2]]}  # fmt: skip


def _colour(picture: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    """The median colour of a region, sRGB in [0, 1]."""
    return tuple(float(v) / 255 for v in np.median(picture[mask], axis=0))


def _world(view: View, camera: Camera, hanging: list[np.ndarray]) -> np.ndarray:
    """(4, 4) the twin's world from the fit's."""
    if hanging:
        origin = hanging[0][:3, 3]
    else:
        forward, eye = camera.T_world_cam[:3, 2], camera.T_world_cam[:3, 3]
        reach = eye[2] / -forward[2] if forward[2] < -0.1 else 1.0
        origin = np.r_[(eye + reach * forward)[:2], 0.0]
    a = -np.deg2rad(view.yaw_deg)
    T = np.eye(4)
    T[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    T[:3, 3] = -T[:3, :3] @ origin
    return T


def _moved(camera: Camera, T: np.ndarray) -> Camera:
    return Camera.from_dict({**camera.to_dict(), "T_world_cam": T @ camera.T_world_cam})


def _wall(segments, camera: Camera, T, masks) -> float | None:
    """y [m, world] of the table's far edge: the nearest long edge along x that is seen above all
    objects."""
    top = min(int(np.nonzero(m.any(1))[0][0]) for m in masks.values())
    found = []
    for x0, y0, x1, y1 in segments:
        if abs(x1 - x0) < 0.2 * camera.width or max(y0, y1) > top:
            continue
        ground = fit.on_plane(np.array([[x0, y0], [x1, y1]]), camera, 0.0)
        ends = ground @ T[:2, :2].T + T[:2, 3]
        if abs(ends[1, 1] - ends[0, 1]) < 0.08 * abs(ends[1, 0] - ends[0, 0]):
            found.append(float(ends[:, 1].mean()))
    return min(found, default=None)


def _open_questions(found: fit.Fitted, wanted: list[Wanted], *, measured: bool) -> list[str]:
    """What the photo leaves open, a line each.

    Args:
        measured: whether a depth map gave the scale.
    """
    out, s = [], found.spread
    if s.get("fov_deg", 0) > 1.0:
        out.append(f"field of view {found.view.fov_deg:.1f} +- {s['fov_deg']:.1f} deg: "
                   "--fov, --intrinsics or a photo with EXIF settles it")  # fmt: skip
    if s.get("pitch_deg", 0) > 1.5:
        pitch = found.view.pitch_deg
        out.append(f"the camera looks down by {pitch:.1f} +- {s['pitch_deg']:.1f} deg")
    scale = 0.0
    if not measured and not any(w.told for w in wanted):
        standing = any(w.shape.upright for w in wanted)
        sizes = [s[f"{w.name}.{k}"] for w in wanted for k in _lengths(w)]
        # Of what only hangs in a wall the best known length tells how well all are.
        scale = s["height"] if standing else min(sizes)
        out.append(
            f"scale +- {100 * scale:.0f}%, by typical sizes only: --length NAME=METRES settles it"
        )
    for w in wanted:
        for k in _lengths(w):
            spread = s[f"{w.name}.{k}"]
            if spread > np.hypot(scale, 0.1):
                size = 1000 * found.placed[w.name].sizes[k]
                out.append(f"{w.name}: {k} {size:.0f} mm +- {100 * spread:.0f}%")
    return out


def _lengths(w: Wanted) -> list[str]:
    return [k for k in w.shape.sizes if k not in w.shape.unitless]


def write(
    twin: Twin, picture: np.ndarray, out: Path, values: dict[str, Any], instruction: str
) -> None:
    """Write the task folder, whole or not at all.

    Args:
        values: of `task.toml`; the convex pieces of its objects are filled in.

    Raises:
        UserError: a value is none that a task takes.
    """
    parse(TaskSpec, values, f"{out.name}: task.toml")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / MASKS).mkdir(parents=True)
    for entry in twin.entries.values():
        if (model := entry.pop("model", None)) is not None:
            (part / "assets").mkdir(exist_ok=True)
            model.export(part / entry["file"])
    pieces = folder.write_meshes(part, twin.entries)
    for o in values["objects"]:
        if pieces[o["name"]] and values["simulation"].get("rigid_collision"):
            o["material"].setdefault("collision", pieces[o["name"]])
    used = {p for o in values["objects"] for p in o["material"].get("collision", [])}
    for name in (p for group in pieces.values() for p in group if p not in used):
        (part / name).unlink()
    for name, mask in twin.masks.items():
        cv2.imwrite(str(part / MASKS / f"{name}.png"), mask.astype(np.uint8) * 255)
    cv2.imwrite(str(part / "photo.png"), picture[..., ::-1])
    cv2.imwrite(str(part / "empty.png"), twin.plate[..., ::-1])
    (part / folder.SHAPES_FILE).write_text(
        "# Shapes of the twin [m]. After a change: lucibot twin FOLDER makes the meshes anew.\n\n"
        + folder.toml(twin.entries)
    )
    head = "".join(f"# Uncertain: {line}\n" for line in twin.uncertain)
    (part / "task.toml").write_text(
        "# A digital twin of a photo. After a change: lucibot tasks check FOLDER compares it again.\n"
        f"{head}\n{folder.toml(values)}"
    )
    (part / "instruction.md").write_text(instruction.strip() + "\n")
    part.replace(out)
