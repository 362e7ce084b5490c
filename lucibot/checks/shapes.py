"""Checks of meshes, pictures and sizes. Each returns what it found, or raises a `UserError`."""

from __future__ import annotations

import numpy as np

from lucibot.core.errors import UserError
from lucibot.task import BackgroundSpec, ObjectSpec, Task
from lucibot.task.schema import MOST_PARTICLES

SMALLEST_M, LARGEST_M = 0.002, 2.0
"""Extents of an object outside of this say that a mesh is not in metres."""
LARGEST_BACKGROUND_M = 50.0
CONVEX_SHARE = 0.98
"""Least share of its hull's volume that a collision piece must fill."""
MOST_FACES = 2_000_000
LEAST_SEEN = 0.5
"""Share of an object's vertices that must lie in the picture at first."""
LEAST_SHARE = 5e-4
"""Least share of the picture that an object must fill to be followed."""
OUT_OF_SCALE = 5.0
"""An object that is this much longer than its siblings, and does not fit into the picture either,
is taken for one in other units."""
PICTURES = ("PNG", "JPEG")


def object_mesh(task: Task, obj: ObjectSpec) -> str:
    mesh = task.mesh(obj)
    where = f"object {obj.name!r}: {obj.mesh}"
    _ensure_plain(mesh, where)
    size = mesh.extents
    if size.min() < SMALLEST_M or size.max() > LARGEST_M:
        raise UserError(
            f"{where} measures {_cm(size)} with scale {obj.scale:g}: is it in metres? Correct the "
            "mesh or give the object another scale"
        )
    if not mesh.is_watertight:
        raise UserError(f"{where} is not watertight: close its holes")
    if not mesh.is_winding_consistent or mesh.volume <= 0:
        raise UserError(f"{where}: its faces do not all look outwards; turn those that do not")
    if np.linalg.eigvalsh(mesh.moment_inertia).min() <= 0:
        raise UserError(f"{where}: its inertia is not positive; is it flat?")
    words = f"watertight, {_cm(size)}, {mesh.volume * 1e6:.0f} cm3, {len(mesh.faces)} faces"
    if not obj.is_rigid:
        count = task.particle_count(obj)
        if not 8 <= count <= MOST_PARTICLES:
            how = (
                f"particle_size_m = {task.particle_size_m(obj):g} makes {count} particles of "
                f"{mesh.volume * 1e6:.3g} cm3"
                if obj.material.cloud is None
                else f"{obj.material.cloud} holds {count} particles"
            )
            raise UserError(
                f"object {obj.name!r}: {how}; between 8 and {MOST_PARTICLES} can be simulated"
            )
        return f"{words}, {count} particles"
    for piece in obj.material.collision:
        hull = task.read_mesh(piece, process=True)
        _ensure_plain(hull, f"object {obj.name!r}: {piece}")
        if not hull.is_watertight or hull.volume < CONVEX_SHARE * hull.convex_hull.volume:
            raise UserError(f"object {obj.name!r}: {piece} is not a closed convex piece")
    pieces = len(obj.material.collision)
    return words + (f", {pieces} convex pieces" if pieces else "")


def background_mesh(task: Task, thing: BackgroundSpec) -> str:
    mesh = task.mesh(thing)
    where = f"background {thing.name!r}: {thing.mesh}"
    _ensure_plain(mesh, where)
    size = mesh.extents
    if size.max() < SMALLEST_M or size.max() > LARGEST_BACKGROUND_M:
        raise UserError(f"{where} measures {_cm(size)}: is it in metres? Correct the mesh")
    return f"{_cm(size)}, {len(mesh.faces)} faces"


def _ensure_plain(mesh, where: str) -> None:
    if not np.isfinite(mesh.vertices).all():
        raise UserError(f"{where} has vertices that are no finite numbers; export it anew")
    if len(mesh.faces) > MOST_FACES:
        raise UserError(
            f"{where} has {len(mesh.faces)} faces, {MOST_FACES} at most can be used: simplify it"
        )
    if mesh.extents.max() <= 0:
        raise UserError(f"{where} is a point; export it anew")


def textures(task: Task) -> str:
    import cv2
    from PIL import Image, UnidentifiedImageError

    looks = [x.look for x in [*task.objects, *task.spec.background] if x.look is not None]
    names = sorted({look.texture for look in looks if look.texture is not None})
    for name in names:
        path = task.path(name)
        try:
            with Image.open(path) as image:
                kind = image.format
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
            kind = None
        if kind not in PICTURES or cv2.imread(str(path)) is None:
            raise UserError(
                f"texture {name} is no picture that can be read; save it as PNG or JPEG"
            )
    return f"{', '.join(names)} can be read" if names else "none are used"


def sizes(task: Task) -> str:
    """Every object is where the camera sees it, large enough and small enough to be followed."""
    camera, spans = task.camera, {}
    for o in task.objects:
        T, mesh = o.T_world_object, task.mesh(o)
        uv, depth = camera.project(np.asarray(mesh.vertices) @ T[:3, :3].T + T[:3, 3])
        inside = (depth > 0) & (uv >= 0).all(1) & (uv <= (camera.width, camera.height)).all(1)
        spans[o.name] = (float(mesh.extents.max()), float(inside.mean()), uv[inside])
    for name, (size, seen, uv) in spans.items():
        if seen < LEAST_SEEN:
            raise UserError(
                f"object {name!r}: {1 - seen:.0%} of it lie outside of the camera's picture; it "
                f"measures {100 * size:.1f} cm: correct its mesh's unit or scale, its position_m, "
                "or the camera"
            )
        others = [s for n, (s, _, _) in spans.items() if n != name]
        if others and seen < 0.98 and size > OUT_OF_SCALE * np.median(others):
            raise UserError(
                f"object {name!r} measures {100 * size:.1f} cm, {size / np.median(others):.0f} times "
                "as much as the other objects, and reaches out of the picture: correct its mesh's "
                "unit or scale"
            )
        area = float(np.prod(np.ptp(uv, axis=0)))
        if area < LEAST_SHARE * camera.width * camera.height:
            raise UserError(
                f"object {name!r} measures {100 * size:.2f} cm and fills {area:.0f} pixels: too "
                "little to follow; correct its mesh's unit or scale, or bring the camera nearer"
            )
    return ", ".join(f"{n} {100 * size:.1f} cm" for n, (size, _, _) in spans.items())


def domain(task: Task) -> str:
    found = []
    for obj in task.objects:
        if obj.is_rigid:
            continue
        sim = task.spec.simulation
        box = sim.sph if obj.is_liquid else sim.mpm
        T = obj.T_world_object
        corners = np.asarray(task.mesh(obj).vertices) @ T[:3, :3].T + T[:3, 3]
        low, high = corners.min(0), corners.max(0)
        if (low < box.lower_m).any() or (high > box.upper_m).any():
            raise UserError(
                f"object {obj.name!r} spans {low.round(3)} to {high.round(3)} m, beyond the "
                f"particles' domain {box.lower_m} to {box.upper_m}; move it or widen the domain"
            )
        found.append(obj.name)
    return f"{', '.join(found)} within the domain" if found else "no particles"


def _cm(size_m: np.ndarray) -> str:
    return " x ".join(f"{100 * s:.1f}" for s in size_m) + " cm"
