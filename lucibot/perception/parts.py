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

VALLEY = 8
"""Depth of a valley of lightness, of 255: some four times what compression leaves of noise."""
LEAST_SHARE = 0.1
"""A piece smaller than this share of its object's visible area is a crumb, or noise."""
CUT_KEEPS = 0.8
"""A slit leaves at least this share of a mask in pieces that are no crumbs; valleys that leave less
are the grain of a surface, sand's for instance."""


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


def connected_parts(mask: np.ndarray, image: np.ndarray | None = None) -> list[np.ndarray]:
    """Connected parts (H, W) of a mask, from left to right.

    Two pieces that stand close show no background between them: with the `image` (H, W, 3), a
    valley of lightness across the mask, a slit or the shaded face of a cut, parts it as well; a
    notch that ends half way does not. Parts are found in the eroded mask, so that a bridge of a
    pixel or two does not connect, and grown back within it. Crumbs are given to nobody.
    """
    if not mask.any():
        return []
    core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    label, big = _pieces(core)
    if image is not None:
        slit = mask & ~_valleys(mask, image)
        by_slits = _pieces(cv2.erode(slit.astype(np.uint8), np.ones((3, 3), np.uint8)))
        if np.isin(*by_slits).sum() >= CUT_KEEPS * core.sum():
            label, big = by_slits
    if not big:
        return [mask]
    area = (label > 0).sum()
    distance = np.stack(
        [cv2.distanceTransform((label != k).astype(np.uint8), cv2.DIST_L2, 5) for k in big]
    )
    owner = distance.argmin(0)
    # The rim and the valley that were taken are grown back, crumbs farther away are not.
    near = distance.min(0) <= max(3.0, 0.15 * np.sqrt(area))
    parts = [mask & near & (owner == k) for k in range(len(big))]
    return sorted(parts, key=lambda m: float(np.nonzero(m)[1].mean()))


def _pieces(core: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Connected pieces of a mask, numbered (H, W), and the numbers of those that are no crumbs."""
    count, label = cv2.connectedComponents(core, connectivity=4)
    sizes = np.bincount(label.reshape(-1), minlength=count)[1:]
    return label, [k + 1 for k in np.flatnonzero(sizes >= LEAST_SHARE * sizes.sum()).tolist()]


def _valleys(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels darker than both sides of a narrow neighbourhood within the mask."""
    lightness = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2LAB)[..., 0]
    lightness = cv2.GaussianBlur(lightness, (0, 0), 0.8)
    # Surroundings must not make a valley of the object's own darker sides.
    lightness[~mask] = np.percentile(lightness[mask], 20)
    # A gap is at most a fifth of the object wide; wider dark parts are sides.
    size = max(5, int(np.sqrt(mask.sum()) / 5)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return (cv2.morphologyEx(lightness, cv2.MORPH_BLACKHAT, kernel) > VALLEY) & mask


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[1::-1] == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
