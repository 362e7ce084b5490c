"""The target's connected parts in the goal frame, when tool and hand are out of the picture.

The paper's target mask and cloud cannot tell a cut block from an untouched one; its parts can.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lucibot.perception.grid import resize_mask
from lucibot.providers.tracker.base import Tracks
from lucibot.task import Task

LEAST_SHARE = 0.06
"""A piece smaller than this share of its object's visible area is a crumb, or noise."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts of all targets on some grid."""

    masks: np.ndarray
    """(Q, H, W) bool, by target, then from left to right."""
    valid: np.ndarray
    """(H, W) bool: False where a hand or a tool may hide a part."""


def find_parts(task: Task, tracks: Tracks, goal: int, size: tuple[int, int], around: int = 2) -> Parts:  # fmt: skip
    """Parts in the frames about `goal`, by majority, on a grid of `size` (width, height).

    A rigid target is one part; a deformable's mask falls into connected parts.
    """
    frames = range(max(0, goal - around), min(len(tracks.masks), goal + around + 1))
    targets = [task.label(o.name) - 1 for o in task.targets]
    tools = [task.label(o.name) - 1 for o in task.actuators if o not in task.targets]
    hide = np.zeros((len(frames), size[1], size[0]), bool)
    votes = np.zeros((len(targets), size[1], size[0]))
    seen = np.zeros((size[1], size[0]))
    for k, t in enumerate(frames):
        hide[k] = resize_mask(tracks.hand[t], size)
        for i in tools:
            hide[k] |= resize_mask(tracks.masks[t, i], size)
        seen += ~hide[k]
        for q, i in enumerate(targets):
            votes[q] += resize_mask(tracks.masks[t, i], size) & ~hide[k]
    masks = []
    for q, i in enumerate(targets):
        mask = (votes[q] > 0.5 * np.maximum(seen, 1)) & (seen > 0)
        if task.objects[i].is_rigid:
            masks.append(mask)
        else:
            masks += connected_parts(mask)
    valid = seen > 0
    if not valid.all():
        valid = ~(cv2.dilate((~valid).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    stack = np.stack(masks) if masks else np.zeros((0, size[1], size[0]), bool)
    return Parts(masks=stack, valid=valid)


def connected_parts(mask: np.ndarray) -> list[np.ndarray]:
    """Connected parts (H, W) of a mask, from left to right.

    A bridge of a pixel or two, as compression leaves between two pieces, does not connect: parts
    are found in the eroded mask and grown back within the mask. Crumbs are given to nobody.
    """
    if not mask.any():
        return []
    core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    count, label = cv2.connectedComponents(core, connectivity=4)
    area = mask.sum()
    big = [k for k in range(1, count) if (label == k).sum() >= LEAST_SHARE * area]
    if not big:
        return [mask]
    distance = np.stack(
        [cv2.distanceTransform((label != k).astype(np.uint8), cv2.DIST_L2, 5) for k in big]
    )
    owner = distance.argmin(0)
    # Only the rim that erosion took is grown back, not crumbs farther away.
    near = distance.min(0) <= 3
    parts = [mask & near & (owner == k) for k in range(len(big))]
    return sorted(parts, key=lambda m: float(np.flatnonzero(m.any(0)).mean()))
