"""Depth by a diffusion model (Marigold) that is steered by the known background.

See `lucibot.providers.depth.guidance`. In the first frame the objects' depth is known, too, and
steers it; further frames begin where it ended.
"""

from __future__ import annotations

import numpy as np

from lucibot.core.needs import ensure_packages
from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.checkpoints import Checkpoint, torch_device, torch_dtype, within_memory
from lucibot.providers.depth.alignment import Aligner, known_background, put_back
from lucibot.providers.depth.config import MarigoldDepth
from lucibot.task import Task
from lucibot.vision.grid import resize_mask

FLAG = "--perceive.depth"
ADVICE = f"{FLAG}.low-memory yes, a smaller {FLAG}.resolution, or {FLAG}.device cpu"


class DepthByDiffusion:
    rests_on_poses = False
    batch = 0

    def __init__(self, config: MarigoldDepth):
        """
        Raises:
            UserError: a package or the checkpoint is not there, it is of another kind, there is no
                GPU, or too little memory.
        """
        ensure_packages(MarigoldDepth, f"{FLAG} marigold")
        self.config = config
        self.device = torch_device(config.device, f"{FLAG}.device")
        self.dtype = torch_dtype(config.dtype, self.device)
        self.checkpoint = Checkpoint.find(
            config.model, flag=f"{FLAG}.model", kinds=("MarigoldDepthPipeline",),
            example="prs-eth/marigold-depth-v1-1",
        )  # fmt: skip
        self.checkpoint.ensure_memory(self.device, self.dtype)

    def estimate(
        self, task: Task, view: SceneView, video: Video, tracks: Tracks, frames: np.ndarray, *,
        seed: int, progress: Progress = silent,
    ) -> np.ndarray:  # fmt: skip
        """See `DepthModel`; the depth has the view's size, NaN at hands.

        Raises:
            UserError: the checkpoint cannot be loaded; it runs out of memory.
            RunFailed: what it says has nothing to do with what is known.
        """
        from diffusers import MarigoldDepthPipeline

        from lucibot.providers.depth.guidance import Completion

        c = self.config
        out = np.empty((len(frames), *view.background_depth_m.shape), np.float32)
        with within_memory(f"{FLAG}.model", self.device, ADVICE):
            pipeline = self.checkpoint.load(
                MarigoldDepthPipeline, device=self.device, dtype=self.dtype
            )
            if c.low_memory:
                pipeline.unet.enable_gradient_checkpointing()
            complete = Completion(
                pipeline, steps=c.steps, resolution=c.resolution, renewed=c.renewed, seed=seed
            )
            align = Aligner(view, tracks, complete.gives, f"{FLAG} marigold {c.model}")
            progress("estimating depth of the first frame", 0.0)
            first = complete(video.frames[0], known_depth(view, tracks, 0))
            align.first(first)
            for k, t in enumerate(map(int, frames)):
                known = known_depth(view, tracks, t)
                found = first if t == 0 else complete(video.frames[t], known)
                out[k] = put_back(align(found, t), view, tracks, t)
                progress(
                    f"estimating depth of frame {k + 1} of {len(frames)}", (k + 1) / len(frames)
                )
            del pipeline, complete
        return out


def known_depth(view: SceneView, tracks: Tracks, t: int) -> np.ndarray:
    """(H, W) float32 [m], NaN where nothing is known: the background, and in the first frame all that
    no hand hides."""
    if t == 0:
        hand = resize_mask(tracks.hand[0], view.labels.shape[::-1])
        known = ~hand & np.isfinite(view.depth_m) & (view.depth_m > 0)
        return np.where(known, view.depth_m, np.nan)
    return np.where(known_background(view, tracks, t), view.background_depth_m, np.nan)
