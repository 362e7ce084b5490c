"""SAM 2: masks of all objects, followed from the true first ones (paper, section 3.3).

The model is asked by the package `sam2` of its authors or by transformers, which holds the same model
(weights Apache-2.0); either sees one frame at a time and forgets what it no longer looks at, so that
memory does not grow with the video. What enters transformers' model and what is made of its logits is
written here: its processor needs torchvision, which nothing else here does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from lucibot.core.needs import ensure_packages
from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.providers.checkpoints import (
    Checkpoint,
    torch_device,
    torch_dtype,
    within_memory,
)
from lucibot.providers.tracker.base import Segments
from lucibot.providers.tracker.config import Sam2Segmenter, default_library
from lucibot.providers.tracker.known import ensure_known
from lucibot.providers.tracker.prompts import Prompt, prompts_of
from lucibot.task import Task

FLAG = "--perceive.tracker.segmenter"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pictures that it was trained on, in [0, 1]."""
BOX_CORNERS = np.array([2, 3])
"""How the model calls a box's first and last corner; points beside and on an object are 0 and 1."""


class Follower(Protocol):
    """The model in one of its libraries."""

    def follow(
        self, frames: np.ndarray, prompts: list[Prompt]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each frame (H, W, 3) uint8, logits (N, H, W) float32 of the prompts' objects and logits
        (N,) of their being seen at all."""
        ...


class SegmentBySam2:
    def __init__(self, config: Sam2Segmenter):
        """
        Raises:
            UserError: the library or the checkpoint is not there, it is of another kind, there is no
                GPU, or too little memory.
        """
        self.config = config
        if (config.library or default_library()) == "sam2":
            from lucibot.providers.tracker.sam2_package import ByPackage

            self._follower: Follower = ByPackage(config)
        else:
            self._follower = ByTransformers(config)

    def segment(
        self, task: Task, view: SceneView, video: Video, *, progress: Progress = silent
    ) -> Segments:
        """See `Segmenter`; each pixel is at most one object's.

        Raises:
            UserError: the checkpoint cannot be loaded; it runs out of memory.
            RunFailed: it does not see the objects where they are known to be.
        """
        c = self.config
        prompts = prompts_of(view.labels, len(view.names), inside=c.points, outside=c.points_off)
        T, H, W = video.frames.shape[:3]
        N = len(prompts)
        masks = np.zeros((T, N, H, W), bool)
        confidence, seen = np.zeros((T, N), np.float32), np.zeros((T, N), bool)
        progress("loading SAM 2", 0.0)
        for t, (logits, score) in enumerate(self._follower.follow(video.frames, prompts)):
            masks[t], confidence[t] = read_logits(logits, score)
            seen[t] = (score > 0) & masks[t].any((1, 2))
            if t == 0:
                # The rest may take long.
                ensure_known(view, masks[0], "sam2")
            progress(f"segmenting frame {t + 1} of {T}", (t + 1) / T)
        return Segments(masks=masks & seen[..., None, None], confidence=confidence, lost=~seen)


class ByTransformers:
    """The model in transformers."""

    def __init__(self, config: Sam2Segmenter, flag: str = FLAG):
        """
        Args:
            flag: the setting that chose it, for messages.

        Raises:
            UserError: see `SegmentBySam2`.
        """
        self.config, self._flag = config, f"{flag}.model"
        ensure_packages(Sam2Segmenter, f"{flag} sam2")
        self.device = torch_device(config.device, f"{flag}.device")
        self.dtype = torch_dtype(config.dtype, self.device)
        self.checkpoint = Checkpoint.find(
            config.model, flag=self._flag, kinds=("sam2_video",),
            example="facebook/sam2.1-hiera-large",
        )  # fmt: skip
        self.checkpoint.ensure_memory(self.device, self.dtype)

    def follow(
        self, frames: np.ndarray, prompts: list[Prompt]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `Follower`."""
        import torch
        from transformers import Sam2VideoInferenceSession, Sam2VideoModel

        with within_memory(self._flag, self.device):
            model = self.checkpoint.load(Sam2VideoModel, device=self.device, dtype=self.dtype)
            H, W = frames.shape[1:3]
            session = Sam2VideoInferenceSession(
                video_height=H, video_width=W, inference_device=self.device,
                inference_state_device=self.device, video_storage_device=self.device,
                dtype=self.dtype,
            )  # fmt: skip
            side = model.config.image_size
            for i, prompt in enumerate(prompts):
                k = session.obj_id_to_idx(i)
                if self.config.prompt == "masks":
                    session.add_mask_inputs(k, 0, mask_input(prompt.mask, side))
                else:
                    session.add_point_inputs(k, 0, point_input(prompt, (H, W), side))
            session.obj_with_new_inputs = list(range(len(prompts)))
            for t, frame in enumerate(frames):
                with torch.inference_mode():
                    out = model(session, frame=picture(frame, side), frame_idx=t)
                    logits = at_size(out.pred_masks, (H, W))[:, 0].float().cpu().numpy()
                    score = out.object_score_logits.reshape(-1).float().cpu().numpy()
                _forget(session, t, model.config)
                yield logits, score
            # What the last step holds goes before memory is given back.
            del model, session, out


def picture(frame: np.ndarray, side: int):
    """A frame (H, W, 3) uint8 as the model wants it, (1, 3, side, side) float32."""
    import torch
    from torch.nn.functional import interpolate

    rgb = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
    rgb = interpolate(rgb, (side, side), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    return (rgb.float() - mean) / std


def point_input(prompt: Prompt, size: tuple[int, int], side: int) -> dict:
    """A prompt's points on the model's grid; `size` (H, W) of the frame. A box is two points of kinds of
    their own, before the others."""
    import torch

    scale = np.array([side / size[1], side / size[0]], np.float32)
    points, kinds = prompt.points_px, prompt.inside.astype(np.int64)
    if prompt.box_px is not None:
        points = np.concatenate([prompt.box_px.reshape(2, 2), points])
        kinds = np.concatenate([BOX_CORNERS, kinds])
    return {
        "point_coords": torch.from_numpy(points * scale)[None, None],
        "point_labels": torch.from_numpy(kinds)[None, None],
    }


def mask_input(mask: np.ndarray, side: int):
    """A mask (H, W) bool on the model's grid, (1, 1, side, side) float32, 0 or 1."""
    import torch
    from torch.nn.functional import interpolate

    whole = torch.from_numpy(mask.astype(np.float32))[None, None]
    if mask.shape == (side, side):
        return whole
    small = interpolate(whole, (side, side), mode="bilinear", align_corners=False, antialias=True)
    return (small >= 0.5).float()


def at_size(logits, size: tuple[int, int]):
    """Logits (N, 1, h, w) at the video's size (H, W)."""
    from torch.nn.functional import interpolate

    return interpolate(logits.float(), size, mode="bilinear", align_corners=False)


def read_logits(logits: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks (N, H, W) of logits (N, H, W), and how sure they are (N,) in [0, 1].

    A pixel that several objects claim is the surest one's. Confidence is the probability that the
    object is seen times the mean one of its pixels.

    Args:
        score: (N,) logits of the objects being seen.
    """
    masks = (logits > 0) & (logits.argmax(0) == np.arange(len(logits))[:, None, None])
    inside = np.where(masks, _sigmoid(logits), 0).sum((1, 2)) / np.maximum(masks.sum((1, 2)), 1)
    return masks, (_sigmoid(score) * inside).astype(np.float32)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def _forget(session, t: int, config) -> None:
    """Drop what the model looks at no more after frame t: the frame itself, pictures of the masks, and
    memories that are older than any that it reads."""
    session.processed_frames.pop(t, None)
    old = t + 1 - max(config.num_maskmem, config.max_object_pointers_in_encoder)
    for outputs in session.output_dict_per_obj.values():
        outputs["non_cond_frame_outputs"].pop(old, None)
        for kept in outputs.values():
            if t in kept:
                kept[t].pop("high_res_masks", None)
