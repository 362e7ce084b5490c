"""`lucibot twin PHOTO --out FOLDER ...`, and `lucibot twin FOLDER` after a change of its numbers."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from lucibot.core.errors import UserError
from lucibot.core.schema import NAME
from lucibot.settings import Parser, configured
from lucibot.twin.config import TwinConfig

OFTEN = {
    "object": ("NAME=MARK", "what is there: x,y (a click; give several), x0,y0,x1,y1 (a box; clicks may be "
               "added) or the corners of an outline, in the photo's pixels"),
    "not": ("NAME=x,y", "a click on what does not belong to it, such as its shadow"),
    "mask": ("NAME=FILE", "its mask, in place of a mark"),
    "shape": ("NAME=SHAPE", "can, cup, bowl, plate, bottle, box (the default), slab, lump, roll, ladle, "
              "drawer, door, model (by --modeller), or a mesh file"),
    "material": ("NAME=KIND", "rigid (the default), elastic, elastoplastic, sand or liquid"),
    "fill": ("NAME=VESSEL[,SHARE]", "something in a vessel, seen (with a mark) or not (a liquid, up to "
             "SHARE of the inside)"),
    "on": ("NAME=OTHER", "what it stands on, if not the table"),
    "length": ("NAME[.SIZE]=METRES", "a length that is known: of the longest side, or of one of the "
               "shape's sizes"),
    "wall": ("NAME=METRES", "thickness of a vessel's wall"),
    "hinge": ("NAME=left|right", "on which side a door hangs"),
    "move": ("NAME", "what is moved (default: the first thing)"),
    "goal": ("\"RELATION ...\"", "inside THING VESSEL, moved THING SHARE, carried THING CARRIER SHARE, lifted "
             "THING METRES, pieces THING COUNT, spread THING SHARE"),
}  # fmt: skip


def command(argv: list[str]) -> int:
    """Run it; returns the exit status."""
    p = Parser(
        "lucibot twin", "PHOTO --out FOLDER --object NAME=MARK ... | FOLDER",
        "Make a task folder from a photo, or from a video's first frame: camera, shapes and places are "
        "fitted. With a twin's FOLDER: make its meshes anew after a change of twin.toml, and compare "
        "it with its photo again.",
    )  # fmt: skip
    p.add_argument(
        "photo", metavar="PHOTO", type=Path, help="a picture, a video, or a twin's folder"
    )
    p.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="the task folder to write; its name is the task's",
    )
    for flag, (value, text) in OFTEN.items():
        p.add_argument(f"--{flag}", metavar=value, action="append", help=text)
    p.add_argument("--instruction", metavar="TEXT", help="what is to be done, in a sentence or two")
    p.add_argument("--fov", metavar="DEG", help="the camera's vertical field of view")
    p.add_argument("--intrinsics", metavar="FILE", type=Path,
                   help="JSON or TOML with fx, fy, cx, cy, width and height [pixels]")  # fmt: skip
    p.add_argument(
        "--depth", metavar="FILE", type=Path, help="a depth map of the photo (PNG, TIFF, npy)"
    )
    p.add_argument("--depth-unit", metavar="METRES|relative",
                   help="what 1 stands for in it (default: 0.001), or relative: larger is nearer")  # fmt: skip
    p.add_argument("--width", metavar="PIXELS", help="of the task's camera (default: 640)")
    p.add_argument("--fps", metavar="RATE", help="of the task's videos (default: 20)")
    p.add_argument("--toml", metavar="FILE", type=Path,
                   help="what task.toml is to say besides, merged into it")  # fmt: skip
    p.add_argument(
        "--view", action="store_true", help="show the scene in the browser (needs viser)"
    )
    p.add_settings(TwinConfig, TwinConfig())
    options, given = p.parse(argv)
    if "photo" in options and options["photo"].is_dir():
        made = _again(options["photo"])
    else:
        made = _new(options, given)
    good = _compared(made)
    if options.get("view"):
        from lucibot.twin.view3d import show

        show(made)
    return 0 if good else 1


def _again(folder: Path) -> Path:
    from lucibot.twin.folder import read_shapes, write_meshes

    write_meshes(folder, read_shapes(folder))
    print(f"{folder}: meshes made anew from twin.toml")
    return folder


def _new(options: dict[str, Any], given: dict[str, str]) -> Path:
    if "out" not in options:
        raise UserError("lucibot twin needs --out FOLDER, the task folder to write")
    out: Path = options["out"]
    if not re.fullmatch(NAME, out.name):
        raise UserError(f"--out {out}: a task's name is small letters, digits and underscores")
    if out.exists():
        raise UserError(f"--out {out} exists already; remove it, or choose another name")
    config = configured(TwinConfig(), given)
    extra = {}
    if "toml" in options:
        try:
            extra = tomllib.loads(options["toml"].read_text())
        except (OSError, ValueError) as e:
            raise UserError(f"--toml {options['toml']}: {e}") from None

    from lucibot.twin import picture as pictures
    from lucibot.twin.folder import merged
    from lucibot.twin.make import make, write
    from lucibot.twin.request import number, read_request
    from lucibot.twin.task_values import task_values

    photo = pictures.read_picture(options["photo"])
    shape = photo.shape[:2]
    request = read_request(options, shape)
    lens = pictures.exif_lens(options["photo"])
    if "fov" in options:
        fov = number("--fov", options["fov"], *pictures.FOV_BOUNDS_DEG)
        lens = pictures.Lens(vertical_fov_deg=fov, source="--fov")
    if "intrinsics" in options:
        lens = pictures.read_lens(options["intrinsics"], shape)
    unit = options.get("depth-unit", options.get("depth_unit", "0.001"))
    relative = unit == "relative"
    depth = None
    if "depth" in options:
        scale = 1.0 if relative else number("--depth-unit", unit, 1e-6, 100)
        depth = pictures.read_depth(options["depth"], shape, scale)
    elif config.depth_model is not None:
        relative = config.depth_model.unit == "relative"
        depth = config.depth_model.create().estimate(photo)
    width = int(number("--width", options.get("width", "640"), 64, 4096))
    fps = number("--fps", options.get("fps", "20"), 1, 240)
    twin = make(photo, request, config, lens=lens, depth=depth, relative=relative)
    title = out.name.replace("_", " ").capitalize()
    values = merged(task_values(twin, request, title=title, width=width, fps=fps), extra)
    instruction = options.get("instruction", f"{title}.")
    write(twin, photo, out, values, instruction)
    camera = twin.camera
    print(f"camera: vertical field of view {camera.vertical_fov_deg:.1f} deg "
          f"({lens.source if lens else 'fitted'}), {camera.T_world_cam[2, 3]:.3f} m high")  # fmt: skip
    for line in twin.uncertain:
        print(f"uncertain: {line}")
    print(f"wrote {out}")
    return out


def _compared(folder: Path) -> bool:
    """Print each thing's overlap and where the overlay is; whether all are good."""
    from lucibot.task import load_task
    from lucibot.twin.look import GOOD, write_overlay

    task = load_task(folder)
    overlaps, path = write_overlay(task)
    for name, value in overlaps.items():
        note = "" if value >= GOOD else f"  below {GOOD}: correct its mark or its numbers"
        print(f"IoU {value:.3f}  {name}{note}")
    print(f"overlay: {path}")
    return all(v >= GOOD for v in overlaps.values())
