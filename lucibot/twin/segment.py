"""From marks to masks: the segmenter family's members."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import cv2
import numpy as np
from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.errors import UserError
from lucibot.core.schema import Count, Fraction, Positive
from lucibot.providers.checkpoints import Device
from lucibot.providers.programs import ensure_place_holders, run_program
from lucibot.providers.tracker.config import Sam2Segmenter
from lucibot.providers.tracker.prompts import Prompt
from lucibot.providers.tracker.sam2 import ByTransformers
from lucibot.twin.marks import Mark, read_mask

DARKER_BY = 12.0
"""So much darker [CIE L] a surface may be in shadow in any case."""


class PhotoSegmenter(Protocol):
    def segment(self, picture: np.ndarray, marks: dict[str, Mark]) -> dict[str, np.ndarray]:
        """A mask (H, W) bool for each marked object of a photo (H, W, 3) uint8 RGB."""
        ...


@dataclass(frozen=True, kw_only=True)
class GrabCutSegmenter(Config):
    """Colour models of object and surroundings, and a cut between them (GrabCut); no weights."""

    kind: Literal["grabcut"] = "grabcut"
    rounds: Annotated[Count, Field(le=50)] = 4
    work_px: Annotated[Count, Field(ge=64, le=4096)] = 360
    """The object's surroundings are brought to at most this width to be cut."""
    shade: Fraction = 0.55
    """A surface in the object's shadow may be as dark as this share of what it is beside it."""

    def create(self) -> PhotoSegmenter:
        return GrabCut(self)


@dataclass(frozen=True, kw_only=True)
class CommandPhotoSegmenter(Config):
    """Masks from any program; called once for each object."""

    kind: Literal["command"] = "command"
    command: str = ""
    """What is run, with the place holders {photo} (a PNG), {clicks} and {outside} (x,y;x,y..., on it
    and beside it), {box} (x0,y0,x1,y1, or empty) and {mask} (the PNG to write)."""
    timeout_s: Positive = 600.0

    def create(self) -> PhotoSegmenter:
        return ByCommand(self)


@dataclass(frozen=True, kw_only=True)
class Sam2PhotoSegmenter(Config):
    """SAM 2 by transformers. Nobody has run it here with trained weights."""

    kind: Literal["sam2"] = "sam2"
    model: str = "facebook/sam2.1-hiera-small"
    """A checkpoint's folder, or its name on the Hugging Face hub, fetched before."""
    device: Device = "auto"

    def create(self) -> PhotoSegmenter:
        return Sam2(self)


PhotoSegmenterConfig = GrabCutSegmenter | CommandPhotoSegmenter | Sam2PhotoSegmenter


class GrabCut:
    def __init__(self, config: GrabCutSegmenter):
        self.config = config

    def segment(self, picture: np.ndarray, marks: dict[str, Mark]) -> dict[str, np.ndarray]:
        """See `PhotoSegmenter`.

        Raises:
            UserError: nothing stands out at a mark.
        """
        found = {}
        for name, mark in marks.items():
            if mark.mask is not None:
                found[name] = mark.mask
                continue
            others = [m for n, m in marks.items() if n != name]
            box = mark.box or _grown_box(picture, mark.clicks, self._unlike_surroundings)
            if box is not None:
                found[name] = self._cut(picture, box, mark, others)
            if box is None or found[name].sum() < 30:
                raise UserError(
                    f"--object {name}: nothing stands out there; give a box or an outline around it"
                )
        return found

    def _cut(self, picture, box, mark: Mark, others: list[Mark]) -> np.ndarray:
        h, w = picture.shape[:2]
        x0, y0, x1, y1 = box
        pad = 0.35 * max(x1 - x0, y1 - y0) + 4
        left, top = int(max(x0 - pad, 0)), int(max(y0 - pad, 0))
        right, bottom = int(min(x1 + pad + 1, w)), int(min(y1 + pad + 1, h))
        crop = picture[top:bottom, left:right]
        scale = min(1.0, self.config.work_px / max(crop.shape[:2]))
        size = [max(8, round(n * scale)) for n in crop.shape[1::-1]]
        small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
        sx, sy = size[0] / crop.shape[1], size[1] / crop.shape[0]

        def at(x, y):
            return round((x - left) * sx), round((y - top) * sy)

        trimap = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
        (a, b), (c, d) = at(x0, y0), at(x1, y1)
        trimap[b : d + 1, a : c + 1] = cv2.GC_PR_BGD
        inside = np.zeros_like(trimap)
        inside[b : d + 1, a : c + 1] = 1
        distance, level = self._from_surroundings(small, inside > 0)
        trimap[(distance > level) & (inside > 0)] = cv2.GC_PR_FGD
        # Otherwise a shadow has a colour model of its own, and is taken for a part of the object.
        trimap[_reached(distance < 0.75 * level, inside == 0)] = cv2.GC_BGD
        dot = max(2, round(0.04 * min(c - a, d - b)))
        for x, y in mark.clicks:
            cv2.circle(trimap, at(x, y), dot, cv2.GC_FGD, -1)
        for x, y in mark.outside:
            cv2.circle(trimap, at(x, y), dot, cv2.GC_BGD, -1)
        for other in others:
            for x, y in other.clicks:
                cv2.circle(trimap, at(x, y), 2, cv2.GC_BGD, -1)
        if not (trimap == cv2.GC_PR_FGD).any() and not mark.clicks:
            return np.zeros((h, w), bool)
        # Lightness tells shadows and gloss rather than things; it counts for less than colour.
        lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
        lab[..., 0] = 0.7 * lab[..., 0]
        lab[..., 1:] = np.clip(128 + 1.6 * (lab[..., 1:] - 128), 0, 255)
        cv2.setRNGSeed(0)
        cv2.grabCut(
            lab.astype(np.uint8), trimap, None, np.zeros((1, 65)), np.zeros((1, 65)),
            self.config.rounds, cv2.GC_INIT_WITH_MASK,
        )  # fmt: skip
        fore = ((trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)).astype(np.uint8)
        fore = _one_piece(fore, [at(*c) for c in mark.clicks])
        full = cv2.resize(fore * 255, crop.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 127
        out = np.zeros((h, w), bool)
        out[top:bottom, left:right] = full
        return out

    def _from_surroundings(self, small: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, float]:
        """How far each pixel's colour (H, W) is from those along the frame around `inside`, lit or in
        shadow, and from which distance on it is another."""
        lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        around = lab[~inside]
        around = around[:: max(1, len(around) // 4000)]
        cv2.setRNGSeed(0)
        _, _, centres = cv2.kmeans(
            around, min(6, len(around)), None,
            (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5), 1, cv2.KMEANS_PP_CENTERS,
        )  # fmt: skip
        distance = np.full(lab.shape[:2], np.inf, np.float32)
        for c in centres:
            # In shadow a surface is darker and keeps its hue.
            darkest = min(self.config.shade * c[0], c[0] - DARKER_BY)
            share = np.clip(lab[..., 0] / max(c[0], 1.0), 0, 1)[..., None]
            light = np.clip(lab[..., 0], darkest, c[0])
            away = np.dstack([0.7 * (lab[..., 0] - light), 1.5 * (lab[..., 1:] - share * c[1:])])
            np.minimum(distance, np.linalg.norm(away, axis=-1), out=distance)
        return distance, max(9.0, 1.3 * float(np.quantile(distance[~inside], 0.97)))

    def _unlike_surroundings(self, small: np.ndarray, inside: np.ndarray) -> np.ndarray:
        distance, level = self._from_surroundings(small, inside)
        return distance > level


def _grown_box(picture: np.ndarray, clicks, unlike) -> tuple[float, float, float, float] | None:
    """The box of what was clicked: it hangs together with a click, is unlike what lies along the rim of
    a window around it, and is the same in two windows; None where there is no such thing."""
    h, w = picture.shape[:2]
    xy = np.array(clicks)
    low, high, before = xy.min(0), xy.max(0), None
    for reach in np.geomspace(0.03, 0.45, 12) * w:
        x0, y0 = np.maximum(low - reach, 0).astype(int)
        x1, y1 = np.minimum(high + reach + 1, (w, h)).astype(int)
        crop = picture[y0:y1, x0:x1]
        scale = min(1.0, 160 / max(crop.shape[:2]))
        small = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        inside = np.zeros(small.shape[:2], bool)
        inside[4:-4, 4:-4] = True
        found = unlike(small, inside).astype(np.uint8)
        found = cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3)))
        found = cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones((5, 5)))
        _, label = cv2.connectedComponents(found)
        seeds = ((xy - (x0, y0)) * scale).astype(int)
        near = [label[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] for x, y in seeds]
        mine = {int(n.max()) for n in near if n.any()}
        if len(mine) == 0 or any(not n.any() for n in near):
            continue
        region = np.isin(label, list(mine))
        rim = np.ones_like(region)
        rim[3:-3, 3:-3] = False
        if (region & rim).sum() > 2 or region.sum() < 25:
            continue
        v, u = np.nonzero(region)
        margin = 0.06 * max(np.ptp(u), np.ptp(v)) + 2
        box = np.array(
            [u.min() - margin, v.min() - margin, u.max() + 1 + margin, v.max() + 1 + margin]
        )
        left, top, right, bottom = now = box / scale + (x0, y0, x0, y0)
        agrees, before = before is not None and _overlap(before, now) > 0.8, now
        if not agrees:
            continue
        return max(left, 0.0), max(top, 0.0), min(right, float(w)), min(bottom, float(h))
    return None


def _reached(like: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Where `like` (H, W) is reached from `outside` on a way that is not narrow: print on a thing that
    happens to have its surroundings' colour is not."""
    size = max(3, round(0.02 * max(like.shape)) | 1)
    wide = cv2.morphologyEx(like.astype(np.uint8), cv2.MORPH_OPEN, np.ones((size, size), np.uint8))
    _, label = cv2.connectedComponents((wide > 0).astype(np.uint8) | outside.astype(np.uint8))
    return like & np.isin(label, np.unique(label[outside])) & (label > 0)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes, left, top, right, bottom."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = float(np.prod(np.maximum(sides, 0)))
    return both / (float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - both)


def _one_piece(fore: np.ndarray, seeds: list[tuple[int, int]]) -> np.ndarray:
    """The largest connected part, or those that were clicked; small gaps and holes closed."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    fore = cv2.morphologyEx(fore, cv2.MORPH_OPEN, kernel)
    count, label, stats, _ = cv2.connectedComponentsWithStats(fore, connectivity=8)
    if count < 2:
        return fore
    h, w = fore.shape
    mine = {int(label[y, x]) for x, y in seeds if 0 <= y < h and 0 <= x < w} - {0}
    mine |= {1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())}
    kept = np.isin(label, list(mine)).astype(np.uint8)
    size = max(3, round(0.04 * np.sqrt(kept.sum())) | 1)
    pad = cv2.copyMakeBorder(kept, size, size, size, size, cv2.BORDER_CONSTANT, value=0)
    round_kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    kept = cv2.morphologyEx(pad, cv2.MORPH_CLOSE, round_kernel)[size:-size, size:-size].copy()
    outlines, _ = cv2.findContours(kept, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(kept, outlines, -1, 1, cv2.FILLED)


class ByCommand:
    FLAG = "--segmenter.command"

    def __init__(self, config: CommandPhotoSegmenter):
        """
        Raises:
            UserError: the command lacks a place holder.
        """
        ensure_place_holders(
            self.FLAG, config.command, ("photo", "mask"),
            "it is given a {photo} and {clicks}, {outside} or a {box} on it, and writes a {mask}",
            more=("clicks", "outside", "box"),
        )  # fmt: skip
        self.config = config

    def segment(self, picture: np.ndarray, marks: dict[str, Mark]) -> dict[str, np.ndarray]:
        """See `PhotoSegmenter`.

        Raises:
            UserError: the program cannot be started, or what it wrote is no mask.
            RunFailed: it failed, or took too long.
        """
        found = {}
        with tempfile.TemporaryDirectory(prefix="lucibot_twin_") as scratch:
            photo = Path(scratch) / "photo.png"
            cv2.imwrite(str(photo), picture[..., ::-1])
            for name, mark in marks.items():
                if mark.mask is not None:
                    found[name] = mark.mask
                    continue
                out = Path(scratch) / f"{name}.png"
                told = {
                    "photo": photo, "mask": out, "box": ",".join(f"{v:g}" for v in mark.box or ()),
                    "clicks": ";".join(f"{x:g},{y:g}" for x, y in mark.clicks),
                    "outside": ";".join(f"{x:g},{y:g}" for x, y in mark.outside),
                }  # fmt: skip
                run_program(
                    self.FLAG, "the segmenter", self.config.command, told, self.config.timeout_s
                )
                found[name] = read_mask(out, picture.shape[:2])
        return found


class Sam2:
    def __init__(self, config: Sam2PhotoSegmenter):
        """
        Raises:
            UserError: transformers or the checkpoint is not there, it is of another kind, there is no
                GPU, or too little memory.
        """
        told = Sam2Segmenter(model=config.model, library="transformers", device=config.device)
        self._model = ByTransformers(told, flag="--segmenter")

    def segment(self, picture: np.ndarray, marks: dict[str, Mark]) -> dict[str, np.ndarray]:
        """See `PhotoSegmenter`.

        Raises:
            UserError: the checkpoint cannot be loaded; it runs out of memory.
        """
        found = {name: mark.mask for name, mark in marks.items() if mark.mask is not None}
        asked = {name: mark for name, mark in marks.items() if mark.mask is None}
        if asked:
            prompts = [_prompt(mark) for mark in asked.values()]
            ((logits, _),) = self._model.follow(picture[None], prompts)
            found |= dict(zip(asked, logits > 0, strict=True))
        return {name: found[name] for name in marks}


def _prompt(mark: Mark) -> Prompt:
    points = np.array([*mark.clicks, *mark.outside], np.float32).reshape(-1, 2)
    return Prompt(
        points_px=points, inside=np.arange(len(points)) < len(mark.clicks),
        box_px=np.array(mark.box, np.float32) if mark.box else None,
    )  # fmt: skip
