"""Depth by DepthLab, in a user's checkout and its own environment: files in, files out.

It fills in a depth map where a mask says so. It is given the known background and asked for the rest;
what it says is brought in line with the known once more.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.arrays import read_npy
from lucibot.core.errors import RunFailed
from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.depth.alignment import Aligner, known_background, put_back
from lucibot.providers.depth.config import DepthLabDepth
from lucibot.providers.programs import checkout_folder, python_of, run_words
from lucibot.task import Task

FLAG = "--perceive.depth"
WEIGHTS = {
    "pretrained_model_name_or_path": "checkpoints/marigold-depth-v1-0",
    "image_encoder_path": "checkpoints/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "denoising_unet_path": "checkpoints/DepthLab/denoising_unet.pth",
    "reference_unet_path": "checkpoints/DepthLab/reference_unet.pth",
    "mapping_path": "checkpoints/DepthLab/mapping_layer.pth",
}
"""Its arguments that name weights -> where its README puts them."""
AT_ONCE = 64
"""Frames it is given in one call: it loads its weights each time, and says nothing in between."""


class DepthByDepthLab:
    rests_on_poses = False
    batch = 0

    def __init__(self, config: DepthLabDepth):
        """
        Raises:
            UserError: the checkout is not there or not whole, or it has no Python.
        """
        self.config = config
        self.checkout = checkout_folder(
            config.checkout, f"{FLAG}.checkout", ("infer.py", *WEIGHTS.values()),
            "git clone https://github.com/ant-research/DepthLab, and fetch its weights as its README says",
        )  # fmt: skip
        self.python = python_of(self.checkout, config.python, f"{FLAG}.python")

    def estimate(
        self, task: Task, view: SceneView, video: Video, tracks: Tracks, frames: np.ndarray, *,
        seed: int, progress: Progress = silent,
    ) -> np.ndarray:  # fmt: skip
        """See `DepthModel`; the depth has the view's size, NaN at hands.

        Raises:
            UserError: its Python cannot be started.
            RunFailed: it failed, took too long, or what it wrote is no depth of these frames.
        """
        align = Aligner(view, tracks, "depth", f"{FLAG} depthlab")
        order = [0, *(int(t) for t in frames if t != 0)]
        out = np.empty((len(frames), *view.background_depth_m.shape), np.float32)
        found: dict[int, np.ndarray] = {}
        for start in range(0, len(order), AT_ONCE):
            part = order[start : start + AT_ONCE]
            progress(f"DepthLab: frames {start + 1} to {start + len(part)} of {len(order)}",
                     start / len(order))  # fmt: skip
            for t, estimate in zip(part, self._ask(view, video, tracks, part, seed), strict=True):
                if t == 0:
                    align.first(estimate)
                found[t] = put_back(align(estimate, t), view, tracks, t)
        for k, t in enumerate(frames):
            out[k] = found[int(t)]
        return out

    def _ask(
        self, view: SceneView, video: Video, tracks: Tracks, frames: list[int], seed: int
    ) -> list[np.ndarray]:
        """What it makes of some frames, (H, W) float32 each, in metres as it takes them."""
        c = self.config
        with tempfile.TemporaryDirectory(prefix="lucibot_depthlab_") as scratch:
            at, told = Path(scratch), {"image": [], "known": [], "mask": []}
            size = view.background_depth_m.shape
            for t in frames:
                unknown = ~known_background(view, tracks, t)
                paths = {"image": at / f"{t:05d}.png", "known": at / f"{t:05d}_known.npy",
                         "mask": at / f"{t:05d}_mask.npy"}  # fmt: skip
                picture = cv2.resize(video.frames[t], size[::-1], interpolation=cv2.INTER_AREA)
                cv2.imwrite(str(paths["image"]), picture[..., ::-1])
                np.save(
                    paths["known"], np.where(unknown, 0, view.background_depth_m).astype(np.float32)
                )
                np.save(paths["mask"], unknown.astype(np.float32))
                for name, path in paths.items():
                    told[name].append(str(path))
            words = [
                self.python, "infer.py", "--output_dir", str(at / "out"), "--seed", str(seed),
                "--denoise_steps", str(c.steps), "--processing_res", str(c.resolution),
                "--normalize_scale", str(c.normalize_scale), "--strength", str(c.strength),
                *(w for name, path in WEIGHTS.items() for w in (f"--{name}", path)),
                "--input_image_paths", *told["image"], "--known_depth_paths", *told["known"],
                "--masks_paths", *told["mask"],
            ]  # fmt: skip
            run_words(f"{FLAG}.python", "DepthLab", words, c.timeout_s, self.checkout)
            return [_read(at / "out" / "depth_npy" / f"{t:05d}_pred.npy", size) for t in frames]


def _read(path: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        depth = read_npy(
            path, lambda why: RunFailed(f"DepthLab's {path.name} cannot be read: {why}")
        )
    except FileNotFoundError:
        raise RunFailed(
            f"DepthLab ended without an error but wrote no {path.name} into depth_npy"
        ) from None
    if depth.shape != size:
        raise RunFailed(f"DepthLab's {path.name} has shape {depth.shape}, not {size}")
    return depth.astype(np.float32)
