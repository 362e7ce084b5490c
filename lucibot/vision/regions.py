"""What each changed pixel of a video is: hand, a known object, background under a shadow, or none.

A pixel that looks as in the first frame is what it was there. A changed one is explained, in this
order, by the background at that place (lit or shaded), by an object's colours, by a hand, or by
nothing. A hand is what has come in over the picture's border and is no known object, whatever it
looks like: its colours are learned in the video from where that is beyond doubt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np
from einops import reduce

from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.task import Task
from lucibot.vision.appearance import ColourModel, any_colour
from lucibot.vision.bystanders import without_bystanders
from lucibot.vision.exposure import same_light
from lucibot.vision.hands import HAND_SEEN, covered_by, narrow
from lucibot.vision.poured import with_poured
from lucibot.vision.scene_model import CHROMA, HAND, SOFT, SPREAD, SceneModel, grown
from lucibot.vision.standing import outlines, within_reach

REMEMBERED = 8
"""Videos whose layers a process keeps, 6 MB each."""
HEAD = 24
"""Samples from which a video's noise is read."""
HARDLY = 0.33
"""Share of the samples with anything strange in them below which a hand is hardly seen."""
REACH = 0.04
"""How far beyond what its joint allows a thing may be seen, for a joint is known but roughly where
a task was made from a photo [picture widths]."""


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What is where in a video, at a reduced size. K sampled frames, h x w pixels."""

    frames: np.ndarray
    """(K,) indices into the video."""
    labels: np.ndarray
    """(K, h, w) uint8: 0 background, i + 1 objects, `HAND`, `UNKNOWN`."""
    hand_colours: ColourModel = field(default_factory=any_colour)
    """What this video's hands look like."""


@dataclass(frozen=True, kw_only=True)
class Regions(Layers):
    """The classified video, with what it was told by."""

    lab: np.ndarray
    """(K, h, w, 3) float32 CIE Lab, light-compensated."""
    noise: float
    """Standard deviation of the lightness against the first frame where nothing moves."""

    def object(self, i: int) -> np.ndarray:
        """(K, h, w) bool, visible pixels of object i."""
        return self.labels == i + 1

    @property
    def hand(self) -> np.ndarray:
        return self.labels == HAND


def pixels_of(masks: np.ndarray) -> np.ndarray:
    """How many pixels are set in each of masks (K, h, w) bool: (K,)."""
    return reduce(masks, "k h w -> k", "sum")


KeyPoints = Callable[[np.ndarray], list[list[np.ndarray]]]
"""Of frames (T, H, W, 3) uint8 the key points (21, 2) [px] of the hands in each. Equal ones find the same."""


def step_of(video: Video, samples_per_s: float) -> int:
    return max(1, round(video.fps / samples_per_s))


def looked_at(count: int, step: int) -> np.ndarray:
    """Indices of every `step`-th of `count` frames and of the last ten."""
    tail = np.arange(max(count - 10, 0), count)
    return np.unique(np.concatenate([np.arange(0, count, step), tail]))


def classify_task(
    task: Task, view: SceneView, video: Video, *, width: int, samples_per_s: float,
    key_points: KeyPoints | None = None,
) -> Regions:  # fmt: skip
    """`classify` with what a task tells of its objects: which keep their size, how far those on a
    joint can come, and which flow."""
    h0, w0 = view.labels.shape
    camera = task.camera.resized(width, round(width * h0 / w0))
    regions = classify(
        view, video, width=width, step=step_of(video, samples_per_s),
        rigid=tuple(o.is_rigid and o.articulation is None for o in task.objects),
        reach=tuple(
            None if o.articulation is None
            else within_reach(task, o, camera, margin_px=round(REACH * width))
            for o in task.objects
        ),
        fluids=tuple(
            i for i, o in enumerate(task.objects, 1) if o.material.kind in ("sand", "liquid")
        ),
        vessels=outlines(task, camera), key_points=key_points,
        hand_expected=task.spec.hands == "expected",
    )  # fmt: skip
    layers = Layers(frames=regions.frames, labels=regions.labels, hand_colours=regions.hand_colours)
    _remembered[_asked(task, view, video, width, samples_per_s, key_points)] = layers
    while len(_remembered) > REMEMBERED:
        _remembered.pop(next(iter(_remembered)), None)
    return regions


def layers_of(
    task: Task, view: SceneView, video: Video, *, width: int, samples_per_s: float,
    key_points: KeyPoints | None = None,
) -> Layers:  # fmt: skip
    """The layers of `classify_task`, which this process may have found before: the tracker asks for
    those of a video that was judged."""
    found = _remembered.get(_asked(task, view, video, width, samples_per_s, key_points))
    return found or classify_task(
        task, view, video, width=width, samples_per_s=samples_per_s, key_points=key_points
    )


_remembered: dict[tuple, Layers] = {}


def _asked(task, view, video, width, samples_per_s, key_points) -> tuple:
    """All that the layers rest on."""
    told = task.digest_of("scene", "roles", "hands")
    told = hashlib.sha256(f"{told} {video.fps} {video.frames.shape}".encode())
    for image in (view.labels, view.background_frame, video.frames):
        if image is not None:
            told.update(np.ascontiguousarray(image))
    return told.digest(), width, samples_per_s, key_points


def classify(
    view: SceneView, video: Video, *, width: int, step: int,
    rigid: tuple[bool, ...] | None = None, reach: tuple[np.ndarray | None, ...] | None = None,
    fluids: Sequence[int] = (), vessels: Sequence[np.ndarray] = (),
    key_points: KeyPoints | None = None, hand_expected: bool = False,
) -> Regions:  # fmt: skip
    """Classify every `step`-th frame and the last ten at `width` pixels across. The camera stands
    still, or what it did was taken out.

    Args:
        rigid: of each object whether it keeps its size and is not drawn out of another one.
        reach: of each object (h, w) bool where it can be seen at all; None: anywhere.
        fluids: labels of objects that flow.
        vessels: (h, w) bool each, what stands still and may hold them, or hide a hand.
        key_points: where there is a hand model, every other of these frames is shown to it.
        hand_expected: where none is seen, what hangs together with the border through shade is one.
    """
    h0, w0 = view.labels.shape
    size = (width, round(width * h0 / w0))
    frames = looked_at(len(video), step)
    small = [cv2.resize(video.frames[i], size, interpolation=cv2.INTER_AREA) for i in frames]
    labels0 = cv2.resize(view.labels, size, interpolation=cv2.INTER_NEAREST)

    noise, model = _quiet_model(small, _empty(view, small[0], labels0), labels0)
    model.limit(rigid, reach)
    model.posts = narrow(vessels)
    flows = _flows(small)
    certain = _certain(video.frames, frames, labels0.shape, key_points)
    looks, labels, before = [], [], labels0
    for frame, flow, known in zip(small, flows, certain, strict=True):
        looks.append(model.look(model.same_light(frame, before)))
        before = model.foreign(looks[-1], model.moved(before, flow), known)
        labels.append(before)
    if hand_expected and _hardly_seen(labels):
        model.hidden_arm = True
        labels, before = [], labels0
        for look, flow, known in zip(looks, flows, certain, strict=True):
            before = model.foreign(look, model.moved(before, flow), known)
            labels.append(before)
    model.learn_hand(looks, labels, certain)
    hands = np.stack([x == HAND for x in labels])
    labels, before = [], labels0
    for k, (look, flow, known) in enumerate(zip(looks, flows, certain, strict=True)):
        near = hands[max(k - 1, 0) : k + 2].any(0)
        before = model.classify(look, model.moved(before, flow), near, known)
        labels.append(before)
    lab, labels = np.stack([look.image for look in looks]), np.stack(labels)
    seconds = frames / video.fps
    labels = without_bystanders(labels, lab, certain, seconds)
    return Regions(
        frames=frames, lab=lab, hand_colours=model.hand, noise=noise,
        labels=with_poured(labels, lab, certain, seconds, fluids, vessels),
    )  # fmt: skip


def _hardly_seen(labels: Sequence[np.ndarray]) -> bool:
    """Whether in most of labels (h, w) that show something strange no hand is seen."""
    hand = np.array([(x == HAND).mean() > HAND_SEEN for x in labels])
    strange = np.array([(x >= HAND).mean() > HAND_SEEN for x in labels])
    return bool(strange.any() and hand.sum() < HARDLY * strange.sum())


def _certain(
    pictures: np.ndarray, frames: np.ndarray, size: tuple[int, int], key_points: KeyPoints | None
) -> np.ndarray:
    """(K, h, w) bool: what a hand model takes for hands."""
    out = np.zeros((len(frames), *size), bool)
    asked = np.arange(0, len(frames), 2)
    if key_points is None or not len(asked):
        return out
    scale = size[1] / pictures.shape[2]
    for k, hands in zip(asked, key_points(pictures[frames[asked]]), strict=True):
        for points in hands:
            if np.isfinite(points).all():
                out[k] |= covered_by(scale * points, size)
    return out


def _empty(view: SceneView, first_rgb: np.ndarray, labels0: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8: the scene without its objects; where nobody has a picture of that, as what
    surrounds them would go on behind them."""
    if view.background_frame is not None:
        size = labels0.shape[::-1]
        return cv2.resize(view.background_frame, size, interpolation=cv2.INTER_AREA)
    hidden = cv2.dilate((labels0 > 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    return cv2.inpaint(np.ascontiguousarray(first_rgb), hidden, 5, cv2.INPAINT_TELEA)


def _quiet_model(frames: list[np.ndarray], empty: np.ndarray, labels0: np.ndarray):
    """The model of a video's first frame, its colours averaged over as little as makes the noise
    pass below the least difference that counts; and that noise, the lightness's."""
    first = frames[0].astype(np.float32)
    lit = [same_light(f, first, labels0 == 0) for f in frames[1:HEAD]]
    for soft in SOFT:
        model = SceneModel(frames[0], empty, labels0, soft)
        noise = model.measure_noise(lit)
        if (SPREAD * noise[:, 1] <= CHROMA).all():
            break
    model.grain.learn(frames[1:HEAD])
    return float(noise[:, 0].max()), model


def _flows(frames: list[np.ndarray]) -> list[np.ndarray]:
    """(h, w, 2) optical flow to each frame from the one before it [px]; zero to the first."""
    gray = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    still = np.zeros((*gray[0].shape, 2), np.float32)
    return [still] + [dis.calc(a, b, None) for a, b in pairwise(gray)]


def grown_all(masks: np.ndarray, size: int) -> np.ndarray:
    """`grown` of each of masks (K, h, w)."""
    return np.stack([grown(m, size) for m in masks])
