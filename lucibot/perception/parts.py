"""The target's connected parts in the goal frame, when tool and hand are out of the picture.

The paper's target mask and cloud cannot tell a cut block from an untouched one; its parts can.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.task import Task
from lucibot.vision.grid import resize_mask
from lucibot.vision.pieces import connected_parts


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts of all targets on some grid."""

    masks: np.ndarray
    """(Q, H, W) bool, by target, then from left to right."""
    valid: np.ndarray
    """(H, W) bool: False where a hand or a tool may hide a part."""


def find_parts(
    task: Task, view: SceneView, video: Video, tracks: Tracks, goal: int, size: tuple[int, int],
    around: int = 2,
) -> Parts:  # fmt: skip
    """Parts in the frames about `goal`, by majority, on a grid of `size` (width, height).

    A rigid target is one part, and so is an elastic one, of which something in front may leave
    several stretches in sight; any other deformable's mask falls into connected parts.
    """
    full = tracks.masks.shape[:1:-1]
    frames = range(max(0, goal - around), min(len(tracks.masks), goal + around + 1))
    targets = [task.label(o.name) - 1 for o in task.targets]
    tools = [task.label(o.name) - 1 for o in task.actuators if o not in task.targets]
    seen = np.zeros(full[::-1])
    votes = np.zeros((len(targets), *full[::-1]))
    for t in frames:
        hidden = tracks.hand[t] | tracks.masks[t, tools].any(0)
        if tracks.unseen is not None:
            hidden |= tracks.unseen[t]
        seen += ~hidden
        votes += tracks.masks[t, targets] & ~hidden
    image = _resized(video.frames[goal], full)
    masks = []
    for q, i in enumerate(targets):
        mask = (votes[q] > 0.5 * np.maximum(seen, 1)) & (seen > 0)
        if task.objects[i].is_rigid or task.objects[i].material.kind == "elastic":
            masks.append(mask)
            continue
        whole = resize_mask(view.labels == i + 1, full)
        # An object whose own pattern has valleys would fall apart before anything is done to it.
        plain = len(connected_parts(whole, _resized(view.first_frame, full))) <= 1
        masks += connected_parts(mask, image if plain else None)
    valid = resize_mask(seen > 0, size)
    valid = ~(cv2.dilate((~valid).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    small = [resize_mask(m, size) for m in masks]
    stack = np.stack(small) if small else np.zeros((0, size[1], size[0]), bool)
    return Parts(masks=stack, valid=valid)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[1::-1] == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
