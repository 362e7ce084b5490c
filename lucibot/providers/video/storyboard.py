"""The embedded stand-in for a video model: draws what one would draw (paper, section 3.2).

It draws an imagination, not a simulation: key poses with jitter, a target that morphs to its goal
without physics, a hand, drifting light, compression, and in some candidates a fault. Once written,
its videos are videos like any other; what was planted lies in `planted/` for measurement only.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from lucibot.core.progress import Progress
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video, write_video
from lucibot.store.configs import NO_EFFECT
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class StoryboardVideo:
    """Draws candidates from the task's storyboard.toml; needs no weights, no key and no GPU."""

    kind: Literal["storyboard"] = "storyboard"
    candidates: int = 4
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
    crf: int = 23
    """H.264 quality: larger is worse."""
    threads: int = field(default=2, metadata=NO_EFFECT)
    """Candidates drawn side by side; has no effect on their bytes."""

    def create(self) -> StoryboardModel:
        return StoryboardModel(self)


class StoryboardModel:
    kind = "storyboard"

    def __init__(self, config: StoryboardVideo):
        # The compiled loops are loaded here, so that importing the config stays light.
        from lucibot.providers.video import draw, faults, schema, stage

        self.config, self._draw, self._faults = config, draw, faults
        self._load, self._stage = schema.load_storyboard, stage.Stage

    def imagine(
        self, task: Task, view: SceneView, *, seed: int, out_dir: Path, progress: Progress
    ) -> list[Path]:
        """Write `candidate_<i>.mp4` and, for measurement only, `planted/candidate_<i>.*`."""
        c = self.config
        spec = self._load(task)
        progress("preparing shapes, light and hands", 0.0)
        stage = self._stage(task, view, cut=frozenset(cut.object for cut in spec.cut))
        faults = self._faults.choose_faults(
            c.candidates, c.faulty, np.random.default_rng([seed, 0])
        )
        plans = [
            self._faults.plan_with_fault(task, stage, spec, f, np.random.default_rng([seed, 1, i]))
            for i, f in enumerate(faults)
        ]
        for path in plans[0].hands:
            stage.hand_meshes(path)
        total = sum(len(p) for p in plans)
        done = [0]

        def tick() -> None:
            done[0] += 1
            if done[0] % 10 == 0 or done[0] == total:
                progress(f"drawn {done[0]} of {total} frames", done[0] / total)

        (out_dir / "planted").mkdir(parents=True, exist_ok=True)

        def one(i: int) -> Path:
            rng = np.random.default_rng([seed, 2, i])
            return self._candidate(i, stage, plans[i], rng, out_dir, tick)

        with ThreadPoolExecutor(max(1, c.threads)) as pool:
            return list(pool.map(one, range(c.candidates)))

    def _candidate(self, i, stage, plan, rng, out_dir: Path, tick) -> Path:
        import cv2

        h, w = stage.view.labels.shape
        drawer = self._draw.Drawer(stage, plan)
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
            tick()
        path = out_dir / f"candidate_{i}.mp4"
        fps = stage.task.spec.camera.fps
        write_video(path, Video(frames=frames, fps=fps), crf=self.config.crf)
        _write_planted(out_dir / "planted", i, plan, fps, masks, hand, contact, tips, pieces)
        return path


class _Finish:
    """What comes between the drawing and the file: drifting light, blur and noise."""

    def __init__(self, config: StoryboardVideo, rng: np.random.Generator, frames: int, size):
        import cv2

        self.cv2, self.blur = cv2, config.blur_px
        t = np.linspace(0, 1, frames)

        def drift(amount: float) -> np.ndarray:
            # Two slow waves from zero: the first frame is not changed.
            a, b = rng.uniform(-1, 1, 2) * amount
            f, g = rng.uniform(0.3, 1.0), rng.uniform(1.0, 2.0)
            return a * np.sin(np.pi * f * t) * 0.8 + b * np.sin(np.pi * g * t) * 0.4

        light = 1 + drift(config.light_drift)
        self.gain = np.stack([light * (1 + drift(config.color_drift)) for _ in range(3)], 1)
        # A bank of noise, rolled to a new place in each frame, costs less than fresh noise.
        self.bank = (rng.normal(size=(4, *size, 3)) * config.noise).astype(np.float32)
        self.rolls = rng.integers(0, min(size), (frames, 3))

    def __call__(self, rgb: np.ndarray, t: int) -> np.ndarray:
        out = rgb * self.gain[t].astype(np.float32)
        if self.blur > 0:
            out = self.cv2.GaussianBlur(out, (0, 0), self.blur)
        k, y, x = self.rolls[t]
        out += np.roll(self.bank[k % len(self.bank)], (y, x), axis=(0, 1))
        return np.clip(np.round(out), 0, 255).astype(np.uint8)


def _write_planted(folder: Path, i, plan, fps, masks, hand, contact, tips, pieces) -> None:
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
        folder / f"candidate_{i}.npz",
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
    (folder / f"candidate_{i}.json").write_text(json.dumps(meta, indent=1))


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
