"""The goal relations of `task.toml`, measured in the picture. None of them knows a task.

Each function takes the classified video and returns, for each sampled frame, how far the relation
holds, in [0, 1], NaN where a hand hides what it speaks of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from lucibot.core.errors import UserError, unknown_name
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.providers.verifier.regions import Regions
from lucibot.task import Task

LEAST_SHARE = 0.12
"""A smaller part of an object's region is a crumb or noise, not a piece."""


def measure(
    task: Task, view: SceneView, video: Video, regions: Regions, relation: dict[str, Any]
) -> np.ndarray:
    """(K,) in [0, 1] or NaN.

    Raises:
        UserError: the relation is not known or lacks a field.
    """
    name = relation.get("relation", "")
    if name not in RELATIONS:
        raise unknown_name("goal relation", str(name), RELATIONS)
    try:
        return RELATIONS[name](task, view, video, regions, relation)
    except KeyError as e:
        raise UserError(f"task {task.name!r}: goal relation {name!r} needs the field {e}") from None


def _hidden(regions: Regions, mask: np.ndarray) -> np.ndarray:
    """(K,) bool: a hand lies on or next to the region (K, h, w)."""
    near = np.stack([cv2.dilate(m.astype(np.uint8), np.ones((7, 7))) > 0 for m in mask])
    return (near & regions.hand).reshape(len(mask), -1).sum(1) > 12


def pieces(task, view, video, regions: Regions, relation) -> np.ndarray:
    """`count` connected parts of an object, at the video's full size.

    Two pieces a few millimetres apart show a dark slit that a coarse mask closes, so the object's
    own region is looked at in full: pixels darker than the region's surface by a valley's depth
    part it.
    """
    i = task.objects.index(task.object(relation["object"]))
    wanted = int(relation["count"])
    region = regions.object(i)
    out = np.zeros(len(regions.frames))
    h, w = view.labels.shape
    reference = _surface_lightness(video.frames[0], view.labels == i + 1)
    for k, t in enumerate(regions.frames):
        mask = cv2.resize(region[k].astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST)
        out[k] = float(count_parts(video.frames[t], mask, reference) == wanted)
    out[_hidden(regions, region)] = np.nan
    return out


def _surface_lightness(frame: np.ndarray, mask: np.ndarray) -> float:
    """A lightness [0, 255] below which a pixel in the object is a gap: half of its darker side."""
    lightness = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)[..., 0]
    inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0
    return float(np.percentile(lightness[inner if inner.any() else mask], 5)) * 0.86


def count_parts(frame: np.ndarray, mask: np.ndarray, gap_below: float) -> int:
    """Connected parts of an object in a frame.

    Args:
        frame: (H, W, 3) uint8.
        mask: (H, W) uint8, where the object is, gaps closed or not.
        gap_below: lightness [0, 255] below which a pixel belongs to a gap.
    """
    if not mask.any():
        return 0
    lightness = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)[..., 0]
    # A slit narrower than this is a line on the surface; 1/160 of the width is wider than blur.
    width = max(3, frame.shape[1] // 160) * 2 + 1
    valley = cv2.morphologyEx(
        lightness, cv2.MORPH_BLACKHAT, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    )
    slit = (valley > 14) & (lightness < gap_below + 25) | (lightness < gap_below)
    solid = cv2.morphologyEx((mask > 0).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3)))
    solid[slit] = 0
    solid = cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((3, 3)))
    _, _, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return int((areas >= LEAST_SHARE * areas.sum()).sum()) if len(areas) else 0


def inside(task, view, video, regions: Regions, relation) -> np.ndarray:
    """`object` stands in `container`: it rises out of the container's opening, over its middle, and
    its lower part is hidden."""
    i = task.objects.index(task.object(relation["object"]))
    j = task.objects.index(task.object(relation["container"]))
    thing, vessel = regions.object(i), regions.object(j)
    start_height = _extent(_main(thing[0]))[3] - _extent(_main(thing[0]))[1]
    out = np.zeros(len(thing))
    for k in range(len(thing)):
        a, b = _main(thing[k]), _main(vessel[k])
        if a.sum() < 20 or b.sum() < 20:
            continue
        ax0, ay0, ax1, ay1 = _extent(a)
        bx0, by0, bx1, by1 = _extent(b)
        middle = (0.5 * (ax0 + ax1) - 0.5 * (bx0 + bx1)) / max(bx1 - bx0, 1)
        touching = (cv2.dilate(a.astype(np.uint8), np.ones((5, 5))) > 0) & b
        # The opening takes the upper part of the container's picture; what stands in it ends there.
        sunk = ay1 > by0 and ay1 < by0 + 0.75 * (by1 - by0)
        above = ay0 < by0 + 0.15 * (by1 - by0)
        hidden = (ay1 - ay0) / max(start_height, 1)
        out[k] = float(
            abs(middle) < 0.28 and touching.sum() >= 5 and sunk and above and hidden < 0.92
        )
    out[_hidden(regions, thing)] = np.nan
    return out


def _main(mask: np.ndarray) -> np.ndarray:
    """The largest connected part."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if len(stats) < 2:
        return mask
    return parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())


def _extent(mask: np.ndarray) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 between which all but the outermost two percent of the mask lie."""
    ys, xs = np.nonzero(mask)
    if len(ys) == 0:
        return 0.0, 0.0, 0.0, 0.0
    (x0, x1), (y0, y1) = np.percentile(xs, [2, 98]), np.percentile(ys, [2, 98])
    return float(x0), float(y0), float(x1), float(y1)


RELATIONS: dict[str, Callable[..., np.ndarray]] = {"pieces": pieces, "inside": inside}
