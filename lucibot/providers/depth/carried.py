"""What a tool carries does not stand anywhere: it is as far away as the tool.

A part of a deformable is carried when it lies at the tool in the picture and has come along with it.
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.core.camera import Camera

MOVED = 0.06
"""How far a tool must have moved, as a share of the picture's width, for the part to be seen coming
along."""
TOGETHER = 0.35
"""The part's way may differ from the tool's by this share of it."""
AT_PX = 4
"""What is nearer than this to a tool in the picture lies at it."""


def carried_parts(
    mask: np.ndarray, tool: np.ndarray, masks: np.ndarray, tool_px: np.ndarray
) -> list[np.ndarray]:
    """The parts (H, W) bool of a deformable that lie at a tool and have moved as the tool did.

    Args:
        mask: (H, W) bool, the deformable now.
        tool: (H, W) bool, the tool's mask now.
        masks: (T, H, W) bool, the deformable in all frames until now.
        tool_px: (T, 2) where the tool's middle was in the picture, until now; NaN where lost.
    """
    at_tool = grown(tool) & mask
    way = tool_px[-1] - tool_px
    far = np.linalg.norm(way, axis=1) >= MOVED * mask.shape[1]
    if not at_tool.any() or not far.any():
        return []
    t = np.flatnonzero(far)[-1]
    parts, area, middle = _parts(mask)
    _, area_then, middle_then = _parts(masks[t])
    found = []
    for k in np.unique(parts[at_tool]) - 1:
        # Where it then was: what was of its size at the place from which it would have come.
        alike = (0.5 < area_then / area[k]) & (area_then / area[k] < 2)
        off = np.linalg.norm(middle[k] - middle_then - way[t], axis=1)
        if (alike & (off < TOGETHER * np.linalg.norm(way[t]))).any():
            found.append(parts == k + 1)
    return found


def _parts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (H, W) of a mask's n connected parts, from 1 on, and their areas (n,) and middles (n, 2)."""
    _, parts, stats, middles = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return parts, stats[1:, cv2.CC_STAT_AREA], middles[1:] + 0.5


def carried_surface(
    camera: Camera, part: np.ndarray, tool_depth_m: np.ndarray
) -> np.ndarray | None:
    """(H, W) float32 [m]: the visible surface of a round thing on a tool.

    Its middle is as far away as the tool at it, and it is as thick as it is wide across its shorter
    side. None where the tool's depth (H, W), inf where it is not drawn, is known nowhere near.
    """
    drawn = np.isfinite(tool_depth_m)
    near = drawn & grown(part, 3 * AT_PX)
    if not near.any():
        return None
    middle_m = float(np.median(tool_depth_m[near]))
    inside = cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 5)
    half = inside.max()
    bulge = np.sqrt(np.clip(1 - (1 - inside / max(half, 1e-6)) ** 2, 0, 1))
    return (middle_m - bulge * half * middle_m / camera.fx).astype(np.float32)


def grown(mask: np.ndarray, by: int = AT_PX) -> np.ndarray:
    """A mask with `by` pixels more on every side."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * by + 1,) * 2, np.uint8)) > 0
