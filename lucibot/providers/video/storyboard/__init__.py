"""The embedded stand-in for a video model: draws what one would draw (paper, section 3.2).

It draws an imagination, not a simulation: key poses with jitter, a target that morphs to its goal
without physics, a hand, drifting light, compression, and in some candidates a fault. Once written,
its videos are videos like any other; what was planted lies in `planted/` for measurement only.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.progress import Progress
from lucibot.core.schema import Count, Index
from lucibot.core.video import Video, write_video
from lucibot.providers.video.base import Immediate, Job, VideoRequest, chosen_settings
from lucibot.services import Services
from lucibot.store.configs import NO_EFFECT

GROUP = 4
"""Candidates whose faults are drawn together."""


@dataclass(frozen=True, kw_only=True)
class StoryboardVideo(Config):
    """Draws candidates from the task's storyboard.toml; needs no weights, no key and no GPU."""

    kind: Literal["storyboard"] = "storyboard"
    candidates: Annotated[Count, Field(le=64)] = 4
    """Videos to draw."""
    faulty: int | None = None
    """How many of them carry a planted fault; None draws that from the seed and leaves at least one
    clean."""
    light_drift: float = 0.03
    """Largest relative change of exposure over the video."""
    color_drift: float = 0.012
    """The same for each colour channel."""
    noise: float = 1.6
    """Standard deviation of pixel noise, of 255."""
    blur_px: float = 0.55
    """Standard deviation of the blur."""
    crf: Annotated[Index, Field(le=51)] = 23
    """H.264 quality: larger is worse."""
    threads: Annotated[Count, Field(le=256)] = field(default=2, metadata=NO_EFFECT)
    """Candidates drawn side by side; has no effect on their bytes."""

    def create(self, services: Services | None = None) -> StoryboardModel:
        return StoryboardModel(self)


class StoryboardModel(Immediate):
    kind = "storyboard"
    fitted = True
    given = False

    def __init__(self, config: StoryboardVideo):
        # The compiled loops are loaded here, so that importing the config stays light.
        from lucibot.providers.video.storyboard import draw, faults, scenery, schema

        self.config, self._draw, self._faults = config, draw, faults
        self._load, self._scenery = schema.load_storyboard, scenery.Scenery
        self.at_once = config.threads
        self._lock = threading.Lock()
        self._prepared: tuple | None = None

    def identity(self, request: VideoRequest) -> dict[str, Any]:
        return {
            **chosen_settings(self.config, but=("candidates", "faulty")),
            "fault": self._fault(request), "seed": request.seed, "index": request.index,
            "scene": request.scene, "task": request.task.digest_of("scene", "roles", "hands", "storyboard"),
        }  # fmt: skip

    def fetch(self, job: Job, folder: Path, progress: Progress) -> Path:
        """Draw `candidate.mp4` and, for measurement only, `planted/candidate.*`."""
        request, i = job.request, job.request.index
        spec, scenery = self._scene(request, progress)
        plan = self._faults.plan_with_fault(
            request.task, scenery, spec, self._fault(request),
            np.random.default_rng([request.seed, 1, i]),
        )  # fmt: skip
        if request.task.spec.hands == "none":
            plan = plan.with_(hands=[])
        with self._lock:
            for path in plan.hands:
                scenery.hand_meshes(path)
        (folder / "planted").mkdir()
        rng = np.random.default_rng([request.seed, 2, i])
        return self._candidate(scenery, plan, rng, folder, progress)

    def _fault(self, request: VideoRequest) -> str:
        """The fault of one candidate or "". They are drawn for a group of candidates together, so
        that it holds a clean one; the group does not grow with their number, so that a candidate
        stays what it is when more are asked for."""
        c = self.config
        size = min(c.candidates, GROUP) if c.faulty is None else c.candidates
        group, k = divmod(request.index, size)
        rng = np.random.default_rng([request.seed, 0, group] if group else [request.seed, 0])
        return self._faults.choose_faults(size, c.faulty, rng)[k]

    def _scene(self, request: VideoRequest, progress: Progress):
        """The storyboard and what its candidates share, prepared by the first of them."""
        with self._lock:
            if self._prepared is None or self._prepared[0] is not request.view:
                progress("preparing shapes, light and hands", 0.0)
                spec = self._load(request.task)
                cut = frozenset(cut.object for cut in spec.cut)
                scenery = self._scenery(request.task, request.view, cut=cut)
                self._prepared = request.view, spec, scenery
            return self._prepared[1:]

    def _candidate(self, scenery, plan, rng, folder: Path, progress: Progress) -> Path:
        import cv2

        h, w = scenery.view.labels.shape
        drawer = self._draw.Drawer(scenery, plan)
        finish = _Finish(self.config, rng, len(plan), (h, w))
        warp = plan.extra.get("camera")
        frames = np.empty((len(plan), h, w, 3), np.uint8)
        masks = np.zeros((len(plan), len(plan.names), h, w), bool)
        hand = np.zeros((len(plan), h, w), bool)
        contact, tips, pieces = [], [], {}

        def moved(image: np.ndarray, t: int) -> np.ndarray:
            if warp is None:
                return image
            flags = cv2.INTER_LINEAR if image.dtype == np.float32 else cv2.INTER_NEAREST
            return cv2.warpAffine(
                image, warp[t], (w, h), flags=flags, borderMode=cv2.BORDER_REPLICATE
            )

        def moved_mask(mask: np.ndarray, t: int) -> np.ndarray:
            return mask if warp is None else moved(mask.astype(np.uint8), t) > 0

        for t in range(len(plan)):
            d = drawer.frame(t)
            frames[t] = finish(moved(d.rgb, t), t)
            masks[t] = [moved_mask(m, t) for m in d.masks]
            hand[t] = moved_mask(d.hand, t)
            pieces = {n: moved_mask(m, t) for n, m in d.pieces.items()}
            contact.append(d.contact)
            tips.append(d.tips_m)
            if (t + 1) % 10 == 0 or t + 1 == len(plan):
                progress(f"drawn {t + 1} of {len(plan)} frames", (t + 1) / len(plan))
        path = folder / "candidate.mp4"
        fps = scenery.task.spec.camera.fps
        write_video(path, Video(frames=frames, fps=fps), crf=self.config.crf)
        _write_planted(folder / "planted", plan, fps, masks, hand, contact, tips, pieces)
        return path


class _Finish:
    """What comes between the drawing and the file: drifting light, blur and noise."""

    def __init__(self, config: StoryboardVideo, rng: np.random.Generator, frames: int, size):
        import cv2

        from lucibot.providers.video.storyboard.painting import add_grain

        self.cv2, self.add_grain, self.blur = cv2, add_grain, config.blur_px
        t = np.linspace(0, 1, frames)

        def drift(amount: float) -> np.ndarray:
            # Two slow waves from zero: the first frame is not changed.
            a, b = rng.uniform(-1, 1, 2) * amount
            f, g = rng.uniform(0.3, 1.0), rng.uniform(1.0, 2.0)
            return a * np.sin(np.pi * f * t) * 0.8 + b * np.sin(np.pi * g * t) * 0.4

        light = 1 + drift(config.light_drift)
        self.gain = np.stack([light * (1 + drift(config.color_drift)) for _ in range(3)], 1)
        self.lit, self.blurred = (np.empty((*size, 3), np.float32) for _ in range(2))
        # A bank of noise, rolled to a new place in each frame, costs less than fresh noise.
        self.bank = (rng.normal(size=(4, *size, 3)) * config.noise).astype(np.float32)
        self.rolls = rng.integers(0, min(size), (frames, 3))

    def __call__(self, rgb: np.ndarray, t: int) -> np.ndarray:
        # By whole rows: three channels at a time, it takes several times as long.
        row = np.tile(self.gain[t].astype(np.float32), (rgb.shape[1], 1))
        out = np.multiply(rgb, row, out=self.lit)
        if self.blur > 0:
            out = self.cv2.GaussianBlur(out, (0, 0), self.blur, dst=self.blurred)
        k, y, x = self.rolls[t]
        picture = np.empty(rgb.shape, np.uint8)
        self.add_grain(out, self.bank[k % len(self.bank)], y, x, picture)
        return picture


def _write_planted(folder: Path, plan, fps, masks, hand, contact, tips, pieces) -> None:
    """What was drawn, for measuring perception and selection. Nothing downstream reads it."""
    from lucibot.core.geometry import pose_np

    pairs = sorted(contact[0])
    piece_names = sorted(pieces)
    holds = np.zeros((len(plan), len(plan.names)), bool)
    for h in plan.hands:
        holds[:, plan.names.index(h.spec.holds)] |= h.holds
    present = (
        np.any([h.present for h in plan.hands], axis=0) if plan.hands else np.zeros(len(plan), bool)
    )
    seen = hand.reshape(len(hand), -1).any(1)
    held = holds.any(1)
    shape = masks.shape
    last = dict(zip(plan.names, plan.T_world_object[-1], strict=True))
    shapes = [m.vertices(len(plan) - 1, last) for m in plan.morphs]
    np.savez_compressed(
        folder / "candidate.npz",
        masks=np.packbits(masks.reshape(*shape[:2], -1), axis=-1), mask_shape=np.array(shape),
        hand=np.packbits(hand.reshape(len(hand), -1), axis=-1),
        poses=pose_np(plan.T_world_object).astype(np.float32), scale=plan.scale, held=holds,
        contact=np.array([[c[p] for p in pairs] for c in contact]).reshape(len(plan), len(pairs)),
        tips_m=np.stack(tips), hand_present=present,
        piece_masks=np.reshape([pieces[n] for n in piece_names], (-1, *shape[2:])).astype(bool),
        **{f"shape_{m.name}": v.astype(np.float32) for m, v in zip(plan.morphs, shapes, strict=True)},
    )  # fmt: skip
    first = int(np.argmax(held)) if held.any() else None
    gone = int(len(seen) - np.argmax(seen[::-1])) if seen.any() else None
    meta = {
        "fault": plan.fault, "fps": fps, "frames": len(plan), "names": list(plan.names),
        "contact_pairs": [list(p) for p in pairs], "piece_names": piece_names,
        "first_hand_contact": first, "hand_enters": int(np.argmax(seen)) if seen.any() else None,
        "hand_gone": gone, "goal": None if plan.fault == "goal_not_reached" else gone,
        "cut_begins": [int(c.begins) for c in plan.cuts],
        "morphs": {m.name: [int(t) for t in np.flatnonzero(m.shown)[[0, -1]]]
                   for m in plan.morphs if m.shown.any()},
        "slides": plan.extra.get("slides"), "new_object_appears": plan.extra.get("appears"),
    }  # fmt: skip
    (folder / "candidate.json").write_text(json.dumps(meta, indent=1))


def read_planted(folder: Path, i: int) -> dict:
    """What was drawn in candidate `i`, for measurement: the json's fields and the npz's arrays with
    `masks` (T, N, H, W) and `hand` (T, H, W) as bool."""
    out = json.loads((folder / f"candidate_{i}.json").read_text())
    with np.load(folder / f"candidate_{i}.npz") as z:
        arrays = {k: z[k] for k in z.files}
    t, n, h, w = arrays.pop("mask_shape")
    masks = np.unpackbits(arrays.pop("masks"), axis=-1, count=h * w)
    hand = np.unpackbits(arrays.pop("hand"), axis=-1, count=h * w)
    return {
        **out, **arrays, "masks": masks.reshape(t, n, h, w).astype(bool),
        "hand": hand.reshape(t, h, w).astype(bool),
    }  # fmt: skip
