"""A twin's folder: `task.toml` with everything that a run reads, `twin.toml` with the numbers of the
shapes that were fitted, from which the meshes can be made anew, and the masks in `twin/`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from lucibot.core.errors import UserError
from lucibot.twin.entries import ensure_entries
from lucibot.twin.ladle import Ladle
from lucibot.twin.shapes import SHAPES, Shape, revolved

SHAPES_FILE = "twin.toml"
OVERLAY = "twin/overlay.png"
INSET_M = 0.001
"""Between a content and the wall that holds it."""
Entry = dict[str, Any]
"""One table of `twin.toml`: shape, wall_m and the shape's own numbers."""


def read_shapes(folder: Path) -> dict[str, Entry]:
    """
    Raises:
        UserError: the folder holds no twin, its file is no TOML, or says of a thing what its shape does not
            have.
    """
    path = folder / SHAPES_FILE
    if not path.is_file():
        raise UserError(f"{folder} is no twin: it has no {SHAPES_FILE}")
    try:
        entries = tomllib.loads(path.read_text())
    except ValueError as e:
        raise UserError(f"{path}: {e}") from None
    ensure_entries(entries, folder, str(path))
    return entries


def meshes(entries: dict[str, Entry], folder: Path) -> dict[str, list[trimesh.Trimesh]]:
    """For each entry its closed mesh, and after it the convex pieces for contact, if it has any.

    Args:
        folder: where users' meshes lie.

    Raises:
        UserError: the numbers of one make no body.
    """
    made = {}
    for name, entry in entries.items():
        made[name] = _made(entry, entries, folder)
        if not made[name][0].is_watertight or made[name][0].volume <= 0:
            raise UserError(f"{folder / SHAPES_FILE}: the numbers of {name} make no closed body")
    return made


def _made(entry: Entry, entries: dict[str, Entry], folder: Path) -> list[trimesh.Trimesh]:
    kind = entry["shape"]
    if kind == "ladle":
        return [ladle(entry).mesh()]
    if kind == "content":
        return [_content(entry, entries, entries[entry["of"]])]
    if kind == "mesh":
        given = entry.get("model")
        mesh = (
            given.copy()
            if given is not None
            else trimesh.load(folder / entry["file"], force="mesh")
        )
        mesh.apply_scale(entry["scale"])
        return [mesh]
    shape = SHAPES[kind]
    sizes = {k: float(entry[k]) for k in shape.sizes}
    pieces = shape.collision(sizes, entry["wall_m"]) if shape.collision else []
    return [shape.mesh(sizes, entry["wall_m"]), *pieces]


def ladle(entry: Entry) -> Ladle:
    """The ladle of an entry."""
    return Ladle(**{k: v for k, v in entry.items() if k not in ("shape", "colour")})


def _content(entry: Entry, entries: dict[str, Entry], vessel: Entry) -> trimesh.Trimesh:
    """What fills a vessel up to a share of its inside, or lies in it within an outline; in the
    vessel's frame."""
    if "outline_m" in entry:
        return _heap(np.array(entry["outline_m"]), entry["top_m"], vessel)
    shape: Shape = SHAPES[vessel["shape"]]
    inside = shape.cavity({k: vessel[k] for k in shape.sizes}, vessel["wall_m"])
    floor, rim = inside[0, 1] + INSET_M, inside[-1, 1]
    level = floor + entry["level"] * (rim - floor)
    z = np.unique(np.r_[floor, inside[(inside[:, 1] > floor) & (inside[:, 1] < level), 1], level])
    radius = np.interp(z, inside[:, 1], inside[:, 0]) - INSET_M
    return revolved(np.array([(0.0, z[0]), *zip(radius, z, strict=True), (0.0, z[-1])]))


def _heap(outline_m: np.ndarray, top_m: float, vessel: Entry) -> trimesh.Trimesh:
    """A body over the vessel's floor, convex, within an outline (N, 2) as seen from above."""
    middle = outline_m.mean(0)
    rings = np.concatenate([middle + s * (outline_m - middle) for s in (0.3, 0.6, 0.85, 1.0)])
    if vessel["shape"] == "ladle":
        floor = ladle(vessel).floor_m(rings) + INSET_M
    else:
        shape = SHAPES[vessel["shape"]]
        inside = shape.cavity({k: vessel[k] for k in shape.sizes}, vessel["wall_m"])
        floor = np.interp(np.linalg.norm(rings, axis=1), inside[:, 0], inside[:, 1]) + INSET_M
    under = np.column_stack([rings, floor])
    over = np.column_stack([rings, np.maximum(top_m, floor + INSET_M)])
    return trimesh.convex.convex_hull(np.concatenate([under, over]))


def write_meshes(folder: Path, entries: dict[str, Entry]) -> dict[str, list[str]]:
    """Write every entry's mesh to `assets/NAME.obj` and its pieces beside it; names of the pieces."""
    assets = folder / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    named = {}
    for name, (mesh, *pieces) in meshes(entries, folder).items():
        colour = entries[name].get("colour", (0.7, 0.7, 0.7))
        rgba = np.round(255 * np.r_[colour, 1.0]).astype(np.uint8)
        mesh.visual = trimesh.visual.ColorVisuals(
            mesh, vertex_colors=np.tile(rgba, (len(mesh.vertices), 1))
        )
        mesh.export(assets / f"{name}.obj", digits=6)
        named[name] = []
        for k, piece in enumerate(pieces):
            named[name].append(f"assets/{name}_{k:02d}.obj")
            piece.export(folder / named[name][-1], digits=6)
    return named


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`: tables are merged, lists of named tables by their names, other
    lists replaced."""
    out = dict(base)
    for key, value in over.items():
        mine = out.get(key)
        if isinstance(mine, dict) and isinstance(value, dict):
            out[key] = merged(mine, value)
        elif _named(value) and _named(mine):
            rest = {v["name"]: v for v in value}
            out[key] = [merged(v, rest.pop(v["name"], {})) for v in mine] + list(rest.values())
        else:
            out[key] = value
    return out


def _named(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, dict) and "name" in v for v in value)
    )


def toml(values: dict[str, Any], where: str = "", *, digits: int = 5) -> str:
    """TOML of plain values, tables, and lists of tables, in their order.

    Args:
        digits: of each number that is not whole.
    """
    plain, tables = [], []
    for key, value in values.items():
        path = f"{where}.{key}" if where else key
        if isinstance(value, dict):
            tables.append(f"[{path}]\n{toml(value, path, digits=digits)}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tables += [f"[[{path}]]\n{toml(v, path, digits=digits)}" for v in value]
        else:
            plain.append(f"{key} = {_value(value, digits)}")
    return "\n".join(["\n".join(plain) + ("\n" if plain else ""), *tables]).lstrip("\n")


def _value(value: Any, digits: int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, (list, tuple, np.ndarray)):
        return f"[{', '.join(_value(v, digits) for v in value)}]"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    text = f"{float(value):.{digits}g}"
    return text if any(c in text for c in ".en") else f"{text}.0"
