"""The goal relations of `task.toml`, measured in the picture. None of them knows a task.

Each function takes the classified video and returns, for each sampled frame, how far the relation
holds, in [0, 1], NaN where a hand hides what it speaks of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from pydantic import Field

from lucibot.core.scene_view import SceneView
from lucibot.core.schema import Count, Fraction, Positive, Spec, parse_kind
from lucibot.core.video import Video
from lucibot.providers.verifier.hues import Hues
from lucibot.task import Task
from lucibot.task.references import ObjectName, SolidName, ensure_named
from lucibot.vision.around import Posts
from lucibot.vision.pieces import connected_parts
from lucibot.vision.regions import Regions, grown_all, pixels_of
from lucibot.vision.scene_model import grown
from lucibot.vision.standing import outline

STANDS = 0.85
"""Share of a vessel's first region that is still its own, where it has not been moved."""
WITHIN, MOSTLY_WITHIN = 0.9, 0.7
"""Share of a rigid thing, and of what flows, that lies in what it is inside of."""
COVERED = 0.3
"""Share of something that a hand may cover without hiding it."""


class Relation(Spec):
    """Base of what `[[goal]]` of a task file gives to one of the relations."""

    object: ObjectName


class Pieces(Relation):
    count: Count


class Inside(Relation):
    container: SolidName


class Moved(Relation):
    least: Fraction


class Carried(Relation):
    carrier: ObjectName
    least: Fraction


class Around(Relation):
    around: list[SolidName] = Field(min_length=1)


class Lifted(Relation):
    least: Positive = Field(le=100)


class Spread(Relation):
    least: Positive = Field(le=100)


def relations(task: Task) -> list[tuple[str, Relation]]:
    """The task's goal: names and what they are told.

    Raises:
        UserError: an unknown relation, key or object, or a missing or ill-typed value.
    """
    found = []
    for i, entry in enumerate(task.spec.goal):
        told = read_relation(task, entry, f"{task.folder / 'task.toml'}: goal.{i}")
        found.append((entry["relation"], told))
    return found


def read_relation(task: Task, entry: dict[str, Any], where: str) -> Relation:
    """What one entry of `[[goal]]` tells its relation.

    Raises:
        UserError: as for `relations`.
    """
    told = parse_kind({n: kind for n, (kind, _) in RELATIONS.items()}, "relation", entry, where)
    ensure_named(task, told, f"{where} ({entry['relation']})")
    return told


def measure(
    task: Task, view: SceneView, video: Video, regions: Regions, name: str, relation: Relation
) -> np.ndarray:
    """(K,) in [0, 1] or NaN: how far one of `relations` holds."""
    return RELATIONS[name][1](task, view, video, regions, relation)


def _hidden(regions: Regions, mask: np.ndarray) -> np.ndarray:
    """(K,) bool: a hand lies on or next to the region (K, h, w)."""
    near = np.stack([cv2.dilate(m.astype(np.uint8), np.ones((7, 7))) > 0 for m in mask])
    return pixels_of(near & regions.hand) > 12


def pieces(task, view, video, regions: Regions, relation: Pieces) -> np.ndarray:
    """`object` is in `count` connected parts, at the video's full size.

    A coarse mask closes a gap of a few millimetres, so the object's own region is looked at in
    full: a valley of lightness across it, a slit or the shaded face of a cut, parts it. A notch
    that ends half way leaves the rest connected.
    """
    i = task.objects.index(task.object(relation.object))
    wanted = relation.count
    region = regions.object(i)
    h, w = view.labels.shape
    out = np.zeros(len(regions.frames))
    for k, t in enumerate(regions.frames):
        mask = cv2.resize(region[k].astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST)
        out[k] = float(count_parts(video.frames[t], mask) == wanted)
    out[_hidden(regions, region)] = np.nan
    return out


def count_parts(frame: np.ndarray, mask: np.ndarray) -> int:
    """Connected parts of an object in a frame, slits between them counted, see `connected_parts`.

    Args:
        frame: (H, W, 3) uint8.
        mask: (H, W) uint8, where the object is, gaps closed or not.
    """
    if not mask.any():
        return 0
    y, x = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    crop = np.s_[max(y[0] - 8, 0) : y[-1] + 9, max(x[0] - 8, 0) : x[-1] + 9]
    return len(connected_parts(mask[crop] > 0, frame[crop]))


def inside(task, view, video, regions: Regions, relation: Inside) -> np.ndarray:
    """`object` stands in `container`: it rises out of the container's opening, over its middle, its
    lower part is hidden, by what it is wide and not by the size in which it is drawn, and it hides the
    opening: what stands behind does not."""
    i = task.objects.index(task.object(relation.object))
    container = task.solid(relation.container)
    if container not in task.objects:
        return _inside_still(task, regions, i, container)
    j = task.objects.index(container)
    thing, vessel = regions.object(i), regions.object(j)
    lies = _inside_still(task, regions, i, container)
    # Of a vessel that still stands where it did, all is seen that the thing does not hide.
    stands = pixels_of((vessel | thing) & vessel[0]) >= STANDS * vessel[0].sum()
    stands &= pixels_of(vessel & ~grown(vessel[0], 7)) <= (1 - STANDS) * vessel[0].sum()
    slender, opened = _slenderness(_main(thing[0])), _main(vessel[0]).sum()
    hues = Hues(regions, len(task.objects))
    own, others = hues.only(i, [j], regions.lab), hues.only(j, [i], regions.lab)
    out = np.zeros(len(thing))
    for k in range(len(thing)):
        a, b = _main(thing[k], own[k]), _main(vessel[k], others[k])
        if a.sum() < 20 or b.sum() < 20:
            continue
        _, ay0, _, ay1 = _extent(a)
        bx0, by0, bx1, by1 = _extent(b)
        # Its foot goes into the opening; what is above may lean or be far wider.
        foot = np.nonzero(a[: int(ay1) + 1][-max(2, round(0.15 * (ay1 - ay0))) :])[1].mean()
        middle = (foot - 0.5 * (bx0 + bx1)) / max(bx1 - bx0, 1)
        touching = (cv2.dilate(a.astype(np.uint8), np.ones((5, 5))) > 0) & b
        # The opening takes the upper part of the container's picture; what stands in it ends there.
        sunk = ay1 > by0 and ay1 < by0 + 0.75 * (by1 - by0)
        above = ay0 < by0 + 0.15 * (by1 - by0)
        hidden = _slenderness(a) < 0.9 * slender
        covered = b.sum() < 0.8 * opened
        out[k] = float(
            abs(middle) < 0.28 and touching.sum() >= 5 and sunk and above and hidden and covered
        )
    out[stands & (lies == 1)] = 1.0
    out[_hidden(regions, thing)] = np.nan
    return out


def _inside_still(task: Task, regions: Regions, i: int, vessel) -> np.ndarray:
    """Object i lies within the outline of a vessel that stands still: nearly all of it, or most of
    what flows, for that leaves drops behind."""
    region = regions.object(i)
    h, w = region.shape[1:]
    where = outline(task, vessel, task.camera.resized(w, h))
    area, within = pixels_of(region), pixels_of(region & where)
    least = WITHIN if task.objects[i].is_rigid else MOSTLY_WITHIN
    out = ((within >= least * area) & (area >= 20)).astype(float)
    # What is poured is not held: a hand beside it hides nothing.
    held = task.objects[i].is_rigid & _hidden(regions, region)
    out[held | (pixels_of(regions.hand & where) > COVERED * where.sum())] = np.nan
    return out


def _main(mask: np.ndarray, marks: np.ndarray | None = None) -> np.ndarray:
    """The connected part of `mask` (h, w) with the most `marks`, or the largest without any."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8))
    if count < 2:
        return mask
    for vote in (mask if marks is None else mask & marks, mask):
        weights = np.bincount(parts[vote], minlength=count)
        if weights[1:].max() >= 10:
            break
    return parts == 1 + int(weights[1:].argmax())


def _extent(mask: np.ndarray) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 between which all but the outermost two percent of the mask lie."""
    ys, xs = np.nonzero(mask)
    if len(ys) == 0:
        return 0.0, 0.0, 0.0, 0.0
    (x0, x1), (y0, y1) = np.percentile(xs, [2, 98]), np.percentile(ys, [2, 98])
    return float(x0), float(y0), float(x1), float(y1)


def _slenderness(mask: np.ndarray) -> float:
    """Height over width."""
    x0, y0, x1, y1 = _extent(mask)
    return (y1 - y0) / max(x1 - x0, 1)


def moved(task, view, video, regions: Regions, relation: Moved) -> np.ndarray:
    """`object` has left its first place: its region and the first one have at most 1 - `least` of
    their union in common."""
    region = regions.object(task.objects.index(task.object(relation.object)))
    # A hand may still hold it: what is seen beside the hand tells.
    open_ = ~grown_all(regions.hand, 5)
    both, either = (pixels_of(m & open_) for m in (region & region[0], region | region[0]))
    out = (1 - both / np.maximum(either, 1) >= relation.least).astype(float)
    # Nothing moves by vanishing.
    out[pixels_of(region) < 20] = 0
    out[either < (1 - COVERED) * region[0].sum()] = np.nan
    return out


def carried(task, view, video, regions: Regions, relation: Carried) -> np.ndarray:
    """A part of `object` lies on `carrier`, away from where the object was at first: at least
    `least` of the carrier's first area, hanging together and mostly framed by the carrier."""
    i = task.objects.index(task.object(relation.object))
    j = task.objects.index(task.object(relation.carrier))
    thing, carrier = regions.object(i), regions.object(j)
    wanted = relation.least * carrier[0].sum()
    home = cv2.dilate(thing[0].astype(np.uint8), np.ones((5, 5))) > 0
    out, away = np.zeros(len(thing)), np.zeros_like(thing)
    for k in range(len(thing)):
        count, parts = cv2.connectedComponents((thing[k] & ~home).astype(np.uint8))
        for p in range(1, count):
            part = parts == p
            ring = (cv2.dilate(part.astype(np.uint8), np.ones((5, 5))) > 0) & ~part
            if part.sum() >= wanted and carrier[k][ring].mean() > 0.3:
                away[k] |= part
        out[k] = float(away[k].any())
    out[_hidden(regions, away)] = np.nan
    return out


def around(task, view, video, regions: Regions, relation: Around) -> np.ndarray:
    """`object` goes around all of `around`, which stand still."""
    region = regions.object(task.objects.index(task.object(relation.object)))
    posts = Posts(task, view.camera, relation.around)
    out = np.array(
        [float(all(posts.goes_around(m, thing) for thing in relation.around)) for m in region]
    )
    out[_hidden(regions, region)] = np.nan
    return out


def lifted(task, view, video, regions: Regions, relation: Lifted) -> np.ndarray:
    """`object` is higher in the picture than at first: its underside has risen by at least `least`
    of its first height, and half of it at least is still to be seen."""
    region = regions.object(task.objects.index(task.object(relation.object)))
    _, top, _, foot = _extent(_main(region[0]))
    parts = np.stack([_main(mask) for mask in region])
    out = np.zeros(len(parts))
    for k, part in enumerate(parts):
        risen = foot - _extent(part)[3]
        out[k] = float(
            part.sum() >= 0.5 * region[0].sum() and risen >= relation.least * (foot - top)
        )
    out[_hidden(regions, parts)] = np.nan
    return out


def spread(task, view, video, regions: Regions, relation: Spread) -> np.ndarray:
    """`object` covers at least `least` times the area of the picture that it covered at first."""
    region = regions.object(task.objects.index(task.object(relation.object)))
    area = pixels_of(region)
    out = (area >= relation.least * area[0]).astype(float)
    out[_hidden(regions, region)] = np.nan
    return out


RELATIONS: dict[str, tuple[type[Relation], Callable[..., np.ndarray]]] = {
    "pieces": (Pieces, pieces), "inside": (Inside, inside), "moved": (Moved, moved),
    "carried": (Carried, carried), "lifted": (Lifted, lifted), "spread": (Spread, spread),
    "around": (Around, around),
}  # fmt: skip
"""Name in task files -> what is told, and how it is measured."""
