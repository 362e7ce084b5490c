"""Tracks on the working grid: one label image a frame, and what lies in front of what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from lucibot.core.camera import Camera
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.vision.contour import UNSURE, speaks_against
from lucibot.vision.draw import Windows, depth_at, fit_camera
from lucibot.vision.jit import compiled

CARRIED = 0.25
"""How far around an object its depth is carried, as a share of its size in the picture."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Tracks resized to a camera of moderate width."""

    camera: Camera
    label: np.ndarray
    """(T, H, W) uint8: 0 background, i + 1 object i, UNSURE at and around hands and where the video
    shows nothing."""
    area_px: np.ndarray
    """(T, N) int64: pixels of each object's mask."""
    hand: np.ndarray
    """(T, H, W) bool."""
    first_depth_m: np.ndarray
    """(H, W) float32, the known depth of the first moment."""
    first_label: np.ndarray
    """(H, W) uint8, the known labels of the first moment."""

    def __len__(self) -> int:
        return len(self.label)

    def masks(self, i: int) -> np.ndarray:
        """(T, H, W) bool of object i."""
        return self.label == i + 1

    @classmethod
    def from_tracks(cls, view: SceneView, tracks: Tracks, width: int, hand_margin: int = 1) -> Grid:
        camera = fit_camera(view.camera, width)
        size = (camera.width, camera.height)
        frames, count = tracks.masks.shape[:2]
        label = np.zeros((frames, camera.height, camera.width), np.uint8)
        kernel = np.ones((2 * hand_margin + 1,) * 2, np.uint8)
        hand = resize_masks(tracks.hand, size)
        unseen = None if tracks.unseen is None else resize_masks(tracks.unseen, size)
        masks = resize_masks(tracks.masks.reshape(-1, *tracks.masks.shape[2:]), size)
        masks = masks.reshape(frames, count, *label.shape[1:])
        if unseen is not None:
            label[unseen] = UNSURE
        for t in range(frames):
            if hand[t].any():
                label[t][cv2.dilate(hand[t].astype(np.uint8), kernel) > 0] = UNSURE
            for i in range(count):
                if not tracks.lost[t, i]:
                    label[t][masks[t, i] & ~hand[t]] = i + 1
        area = [[np.count_nonzero(one == i + 1) for i in range(count)] for one in label]
        return cls(
            camera=camera, label=label, hand=hand, area_px=np.array(area),
            first_depth_m=cv2.resize(view.depth_m, size, interpolation=cv2.INTER_NEAREST),
            first_label=cv2.resize(view.labels, size, interpolation=cv2.INTER_NEAREST),
        )  # fmt: skip

    def depth_around(self, i: int) -> np.ndarray:
        """(H, W) float32 [m]: object i's first depth, carried to the pixels around it; inf farther
        away, where a part of it that has left its place may be at any depth."""
        known = self.first_label == i + 1
        far = cv2.distanceTransform((~known).astype(np.uint8), cv2.DIST_L2, 5)
        near = far < CARRIED * np.sqrt(known.sum())
        return np.where(near, nearest_depth(self.first_depth_m, known), np.float32(np.inf))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) on a grid of `size` (width, height): at least half of the pixel covered."""
    return resize_masks(mask[None], size)[0]


def resize_masks(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`resize_mask` of masks (B, H, W)."""
    height, width = masks.shape[1:]
    if (width, height) == size:
        return masks
    if size[0] > width or size[1] > height or (width % size[0] == 0 and height % size[1] == 0):
        how = cv2.INTER_LINEAR if size[0] > width else cv2.INTER_AREA
        grey = 255 * masks.astype(np.uint8)
        return np.stack([cv2.resize(m, size, interpolation=how) > 127 for m in grey])
    # As OpenCV does it, which takes ten times as long, for it asks every pixel.
    out, masks = np.zeros((len(masks), *size[::-1]), bool), np.ascontiguousarray(masks, bool)
    _shrink(len(masks), masks, *shares(height, size[1]), *shares(width, size[0]), out)
    return out


@lru_cache(maxsize=32)
def shares(before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """What each of `after` pixels of a line takes of its `before` pixels, as `cv2.INTER_AREA` has it:
    first and end (after, 2) of those, and the share (after, M) float32 of each."""
    scale = before / after
    within, share = np.zeros((after, 2), np.int64), np.zeros((after, int(scale) + 3), np.float32)
    for k in range(after):
        low = k * scale
        high = low + scale
        last = min(int(high), before - 1)
        first = min(int(np.ceil(low)), last)
        parts = [1.0] * (last - first)
        within[k] = first, last
        if first - low > 1e-3:
            parts, within[k, 0] = [first - low, *parts], first - 1
        if high - last > 1e-3:
            parts, within[k, 1] = [*parts, min(high - last, 1.0)], last + 1
        share[k, : len(parts)] = np.array(parts) / min(scale, before - low)
    return within, share


@compiled
def _shrink(first, end, masks, rows, row_share, columns, column_share, out):
    height, width = masks.shape[1:]
    for b in range(first, end):
        # Most masks are small: where there is nothing, nothing has to be added up.
        top, bottom, left, right = height, 0, width, 0
        for v in range(height):
            some = False
            for u in range(width):
                some |= masks[b, v, u]
            if some:
                top, bottom = min(top, v), v + 1
                at = 0
                while not masks[b, v, at]:
                    at += 1
                left = min(left, at)
                at = width
                while not masks[b, v, at - 1]:
                    at -= 1
                right = max(right, at)
        for y in range(out.shape[1]):
            if rows[y, 0] >= bottom or rows[y, 1] <= top:
                continue
            for x in range(out.shape[2]):
                if columns[x, 0] >= right or columns[x, 1] <= left:
                    continue
                covered = np.float32(0)
                for v in range(rows[y, 0], rows[y, 1]):
                    line = np.float32(0)
                    for u in range(columns[x, 0], columns[x, 1]):
                        if masks[b, v, u]:
                            line += np.float32(255) * column_share[x, u - columns[x, 0]]
                    covered += row_share[y, v - rows[y, 0]] * line
                out[b, y, x] = covered >= 127.5


def nearest_depth(depth_m: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Depth (H, W) of the nearest pixel at which it is `known`; 0 everywhere if it never is."""
    if not known.any():
        return np.zeros_like(depth_m)
    _, nearest = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    index = np.zeros(nearest.max() + 1, np.int64)
    flat = np.flatnonzero(known)
    index[nearest.reshape(-1)[flat]] = flat
    return depth_m.reshape(-1)[index[nearest]]


def visible_iou(
    own: Windows, grid: Grid, frames: np.ndarray, i: int, depths: Windows, margins_m: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """IoU of drawn silhouettes of object i with its masks over pixels that can be judged.

    Args:
        own: (B,) object i drawn alone.
        frames: (B,) the frames whose masks they are compared with.
        depths, margins_m: see `edge_offsets`.

    Returns:
        IoU (B,) and the share (B,) of the drawn silhouette that can be judged.
    """
    iou, seen = np.zeros(len(own)), np.zeros(len(own))
    _visible_iou(
        len(own), own.depth_m, own.start, own.box, grid.label, frames, i + 1, grid.area_px[frames, i],
        depths.depth_m, depths.start, depths.box, margins_m, iou, seen,
    )  # fmt: skip
    return iou, seen


@compiled
def _visible_iou(
    first,
    end,
    own,
    own_start,
    own_box,
    label,
    frames,
    own_label,
    area,
    depth,
    start,
    box,
    margins_m,
    iou,
    seen,
):
    for b in range(first, end):
        v0, v1, u0, u1 = own_box[b]
        k = own_start[b]
        inter, union, all_drawn, judged = 0.0, float(area[b]), 0.0, 0.0
        for v in range(v0, v1):
            for u in range(u0, u1):
                z = own[k]
                k += 1
                if not np.isfinite(z):
                    continue
                all_drawn += 1
                what = label[frames[b], v, u]
                if what == own_label:
                    inter += 1
                    judged += 1
                elif what == 0:
                    union += 1
                    judged += 1
                elif what != UNSURE:
                    other = depth_at(depth, start[what - 1, b], box[what - 1, b], v, u)
                    against = speaks_against(other, z, margins_m[what - 1])
                    union += against
                    judged += against
        iou[b] = inter / union if union > 0 else 0.0
        seen[b] = judged / all_drawn if all_drawn > 0 else 0.0
