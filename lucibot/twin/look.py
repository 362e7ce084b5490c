"""How well a twin fits its photo: each thing's overlap with the mask that was kept, and a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.errors import UserError
from lucibot.providers.renderer.surfaces import look_through, task_surfaces
from lucibot.task import Task
from lucibot.twin import MASKS
from lucibot.twin.folder import OVERLAY, SHAPES_FILE, read_shapes

MASK_COLOUR, DRAWN_COLOUR, GRID_COLOUR = (255, 0, 255), (0, 255, 0), (120, 180, 255)
GRID_M = 0.05
GOOD = 0.85
"""Overlap from which on a thing is taken to fit."""


def kept_masks(task: Task) -> dict[str, np.ndarray]:
    """By name, (H, W) bool at the photo's size; nothing for a task that is no twin."""
    found = {}
    for path in sorted((task.folder / MASKS).glob("*.png")):
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if mask is not None:
            found[path.stem] = mask > 127
    return found


def compare(task: Task) -> tuple[dict[str, float], np.ndarray]:
    """Draw the twin through its camera over its photo.

    Returns:
        intersection over union of each thing that has a mask, nearer things hiding farther ones; and
        the overlay (H, W, 3) uint8 RGB: the masks' outlines magenta, the twin's green.

    Raises:
        UserError: the photo or a mask is missing or has another shape.
    """
    name = task.spec.camera.photo
    if name is None:
        raise UserError(f"task {task.name!r} has no photo: it is no twin")
    photo = cv2.imread(str(task.path(name)), cv2.IMREAD_COLOR)
    if photo is None:
        raise UserError(f"task {task.name!r}: {name} is no picture that can be read")
    h, w = photo.shape[:2]
    masks = kept_masks(task)
    for thing, mask in masks.items():
        task.solid(thing)
        if mask.shape != (h, w):
            raise UserError(
                f"task {task.name!r}: the mask of {thing!r} has another size than {name}"
            )
    labels = _drawn(task, list(masks), (h, w))
    overlaps, texts, out = {}, [], photo[..., ::-1].copy()
    _grid(task, out)
    for k, (thing, mask) in enumerate(masks.items()):
        drawn = labels == k + 1
        overlaps[thing] = float((drawn & mask).sum() / max(1, (drawn | mask).sum()))
        for region, colour in ((mask, MASK_COLOUR), (drawn, DRAWN_COLOUR)):
            lines, _ = cv2.findContours(
                region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
            )
            cv2.drawContours(out, lines, -1, colour, max(1, w // 900))
        v, u = np.nonzero(mask)
        at = int(u.min()), int(max(v.min() - 6, 12))
        texts.append((f"{thing} {overlaps[thing]:.2f}", at))
    for text, at in texts:
        _write(out, text, at)
    return overlaps, out


def write_overlay(task: Task) -> tuple[dict[str, float], Path]:
    """The overlaps, and where the overlay was written; see `compare`."""
    overlaps, picture = compare(task)
    path = task.folder / OVERLAY
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1])
    return overlaps, path


def _drawn(task: Task, names: list[str], shape: tuple[int, int]) -> np.ndarray:
    """(H, W): 1 + index into `names` of what is seen, whether object or background; 0 elsewhere."""
    # What cannot be seen in the photo, such as a drink in a can, counts as what it fills.
    inside = {n: e["of"] for n, e in _shapes(task).items() if "of" in e and n not in names}
    surfaces = [
        dataclasses.replace(
            s, label=1 + names.index(n) if (n := inside.get(s.name, s.name)) in names else 0
        )
        for s in task_surfaces(task, foreground=True)
    ]
    labels, _, _ = look_through(surfaces, task.camera.resized(shape[1], shape[0]))
    return labels


def _shapes(task: Task) -> dict:
    return read_shapes(task.folder) if (task.folder / SHAPES_FILE).is_file() else {}


def _write(out: np.ndarray, text: str, at: tuple[int, int]) -> None:
    """White on black, its lower left corner at `at`."""
    size = out.shape[1] / 1800
    (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    x, y = min(at[0], out.shape[1] - wide - 2), at[1]
    out[max(y - high - 3, 0) : y + 4, max(x - 2, 0) : x + wide + 2] = 0
    cv2.putText(out, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)


def _grid(task: Task, out: np.ndarray) -> None:
    """Lines on z = 0 every five centimetres around the objects, and the world's axes."""
    camera = task.camera.resized(out.shape[1], out.shape[0])
    places = np.array([o.position_m for o in task.objects])
    low = np.floor((places.min(0)[:2] - 0.15) / GRID_M) * GRID_M
    high = np.ceil((places.max(0)[:2] + 0.15) / GRID_M) * GRID_M
    faint = out.copy()

    def line(a, b, colour, target) -> None:
        ends = np.linspace([*a, 0.0], [*b, 0.0], 30)
        uv, z = camera.project(ends)
        if (z > 0.02).all():
            cv2.polylines(target, [np.round(uv).astype(np.int32)], False, colour, 1, cv2.LINE_AA)

    for x in np.arange(low[0], high[0] + 1e-6, GRID_M):
        line((x, low[1]), (x, high[1]), GRID_COLOUR, faint)
    for y in np.arange(low[1], high[1] + 1e-6, GRID_M):
        line((low[0], y), (high[0], y), GRID_COLOUR, faint)
    np.copyto(out, cv2.addWeighted(faint, 0.35, out, 0.65, 0))
    line((0, 0), (GRID_M, 0), (255, 60, 60), out)
    line((0, 0), (0, GRID_M), (60, 255, 60), out)
