"""Depth by a network that sees one picture at a time, put in metres by the known background.

Depth Anything V2 and others of its kind, through transformers' classes for depth estimation. Frames
are read one by one; nothing but the estimates is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from lucibot.core.needs import ensure_packages
from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.checkpoints import Checkpoint, torch_device, torch_dtype, within_memory
from lucibot.providers.depth.alignment import Aligner, Gives, put_back
from lucibot.providers.depth.config import MonocularDepth
from lucibot.task import Task

FLAG = "--perceive.depth"
KINDS: dict[str, Gives] = {
    "depth_anything": "disparity", "dpt": "disparity", "zoedepth": "depth", "glpn": "depth",
}  # fmt: skip
"""Kinds of checkpoints, and what they give; a metric Depth Anything gives depth."""


class Network:
    """A checkpoint that is asked for one picture after another."""

    def __init__(self, config: MonocularDepth, flag: str = FLAG):
        """
        Args:
            flag: the setting that chose it, for messages.

        Raises:
            UserError: a package or the checkpoint is not there, it is of another kind, there is no
                GPU, or too little memory.
        """
        ensure_packages(MonocularDepth, f"{flag} {config.kind}")
        self._flag = f"{flag}.model"
        self.device = torch_device(config.device, f"{flag}.device")
        self.dtype = torch_dtype(config.dtype, self.device)
        self.checkpoint = Checkpoint.find(
            config.model, flag=self._flag, kinds=tuple(KINDS),
            example="depth-anything/Depth-Anything-V2-Small-hf",
        )  # fmt: skip
        self.checkpoint.ensure_memory(self.device, self.dtype)
        self.gives: Gives = config.gives or gives(self.checkpoint)
        self._prepare = self.checkpoint.image_processor()

    @contextmanager
    def loaded(self) -> Iterator[Callable[[np.ndarray, tuple[int, int]], np.ndarray]]:
        """What gives the network's own estimate (H, W) float32 of a frame (h, w, 3) uint8 at a size; its
        weights are freed afterwards.

        Raises:
            UserError: the checkpoint cannot be loaded; it runs out of memory.
        """
        from transformers import AutoModelForDepthEstimation

        with within_memory(self._flag, self.device):
            model = self.checkpoint.load(
                AutoModelForDepthEstimation, device=self.device, dtype=self.dtype
            )
            yield partial(self._ask, model)
            del model

    def _ask(self, model, frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        import torch
        from torch.nn.functional import interpolate

        given = self._prepare(images=[frame], return_tensors="pt", do_pad=False).pixel_values
        with torch.inference_mode():
            found = model(given.to(self.device, self.dtype)).predicted_depth.float()
            found = interpolate(
                found.reshape(1, 1, *found.shape[-2:]), size, mode="bilinear", align_corners=False
            )
        return found[0, 0].cpu().numpy()


class DepthByNetwork:
    rests_on_poses = False
    batch = 0

    def __init__(self, config: MonocularDepth):
        """
        Raises:
            UserError: see `Network`.
        """
        self.config, self.network = config, Network(config)

    def estimate(
        self, task: Task, view: SceneView, video: Video, tracks: Tracks, frames: np.ndarray, *,
        seed: int, progress: Progress = silent,
    ) -> np.ndarray:  # fmt: skip
        """See `DepthModel`; the depth has the view's size, NaN at hands.

        Raises:
            UserError: the checkpoint cannot be loaded; it runs out of memory.
            RunFailed: what it says has nothing to do with what is known.
        """
        size = (view.camera.height, view.camera.width)
        align = Aligner(view, tracks, self.network.gives, f"{FLAG} monocular {self.config.model}")
        out = np.empty((len(frames), *size), np.float32)
        with self.network.loaded() as ask:
            first = ask(video.frames[0], size)
            align.first(first)
            for k, t in enumerate(frames):
                found = first if t == 0 else ask(video.frames[t], size)
                out[k] = put_back(align(found, int(t)), view, tracks, int(t))
                progress(
                    f"estimating depth of frame {k + 1} of {len(frames)}", (k + 1) / len(frames)
                )
        return out


def gives(checkpoint: Checkpoint) -> Gives:
    """What a checkpoint's estimates are, by its own config."""
    metric = checkpoint.setting("config.json").get("depth_estimation_type") == "metric"
    return "depth" if metric else KINDS[checkpoint.kind]
