"""Depth by a network that sees one picture at a time, put in metres by the known background.

Depth Anything V2 and others of its kind, through transformers' classes for depth estimation. Frames
are read one by one; nothing but the estimates is kept.
"""

from __future__ import annotations

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


class DepthByNetwork:
    rests_on_poses = False
    batch = 0

    def __init__(self, config: MonocularDepth):
        """
        Raises:
            UserError: a package or the checkpoint is not there, it is of another kind, there is no
                GPU, or too little memory.
        """
        ensure_packages(MonocularDepth, f"{FLAG} monocular")
        self.config = config
        self.device = torch_device(config.device, f"{FLAG}.device")
        self.dtype = torch_dtype(config.dtype, self.device)
        self.checkpoint = Checkpoint.find(
            config.model, flag=f"{FLAG}.model", kinds=tuple(KINDS),
            example="depth-anything/Depth-Anything-V2-Small-hf",
        )  # fmt: skip
        self.checkpoint.ensure_memory(self.device, self.dtype)
        self.gives: Gives = config.gives or gives(self.checkpoint)
        self._prepare = self.checkpoint.image_processor()

    def estimate(
        self, task: Task, view: SceneView, video: Video, tracks: Tracks, frames: np.ndarray, *,
        seed: int, progress: Progress = silent,
    ) -> np.ndarray:  # fmt: skip
        """See `DepthModel`; the depth has the view's size, NaN at hands.

        Raises:
            UserError: the checkpoint cannot be loaded; it runs out of memory.
            RunFailed: what it says has nothing to do with what is known.
        """
        from transformers import AutoModelForDepthEstimation

        size = (view.camera.height, view.camera.width)
        align = Aligner(view, tracks, self.gives, f"{FLAG} monocular {self.config.model}")
        out = np.empty((len(frames), *size), np.float32)
        with within_memory(f"{FLAG}.model", self.device):
            model = self.checkpoint.load(
                AutoModelForDepthEstimation, device=self.device, dtype=self.dtype
            )
            first = self._ask(model, video.frames[0], size)
            align.first(first)
            for k, t in enumerate(frames):
                found = first if t == 0 else self._ask(model, video.frames[t], size)
                out[k] = put_back(align(found, int(t)), view, tracks, int(t))
                progress(
                    f"estimating depth of frame {k + 1} of {len(frames)}", (k + 1) / len(frames)
                )
            del model
        return out

    def _ask(self, model, frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The model's own estimate (H, W) float32 of a frame (h, w, 3), at `size`."""
        import torch
        from torch.nn.functional import interpolate

        given = self._prepare(images=[frame], return_tensors="pt", do_pad=False).pixel_values
        with torch.inference_mode():
            found = model(given.to(self.device, self.dtype)).predicted_depth.float()
            found = interpolate(
                found.reshape(1, 1, *found.shape[-2:]), size, mode="bilinear", align_corners=False
            )
        return found[0, 0].cpu().numpy()


def gives(checkpoint: Checkpoint) -> Gives:
    """What a checkpoint's estimates are, by its own config."""
    metric = checkpoint.setting("config.json").get("depth_estimation_type") == "metric"
    return "depth" if metric else KINDS[checkpoint.kind]
