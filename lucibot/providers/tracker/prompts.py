"""What a segmenter is told of the first frame: points on the objects, sampled from their true masks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

INNER = 0.4
"""A point keeps at least this share of its part's greatest distance from the edge: masks end a pixel
or two off where one looks for edges in the picture."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Of one object in the first frame."""

    points_px: np.ndarray
    """(P, 2) float32 pixels (u, v), whole numbers: a pixel's own indices."""
    inside: np.ndarray
    """(P,) bool: on the object; else on another one."""
    mask: np.ndarray | None = None
    """(H, W) bool, the true one, where it is known."""
    box_px: np.ndarray | None = None
    """(4,) float32: left, top, right and bottom of a box around it, where there is one."""


def prompts_of(labels: np.ndarray, count: int, *, inside: int, outside: int) -> list[Prompt]:
    """A prompt for each of `count` objects.

    Args:
        labels: (H, W), 0 background, i + 1 object i.
        inside: points on the object, spread over it; fewer where it is smaller than that.
        outside: points on each of the others.
    """
    on = [spread_points(labels == i + 1, max(inside, outside)) for i in range(count)]
    out = []
    for i in range(count):
        off = [p[:outside] for j, p in enumerate(on) if j != i]
        points = np.concatenate([on[i][:inside], *off])
        out.append(
            Prompt(
                points_px=points, inside=np.arange(len(points)) < len(on[i][:inside]),
                mask=labels == i + 1,
            )
        )  # fmt: skip
    return out


def spread_points(mask: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` pixels (P, 2) float32 (u, v) of a mask (H, W), the innermost first, then each as
    far as can be from those before it, none near the edge; empty for an empty mask."""
    if not mask.any() or count == 0:
        return np.zeros((0, 2), np.float32)
    # Beyond the picture there may be more of it, but nobody sees it.
    padded = np.pad(mask.astype(np.uint8), 1)
    deep = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    parts, label = cv2.connectedComponents(mask.astype(np.uint8))
    deepest = np.zeros(parts, np.float32)
    np.maximum.at(deepest, label.reshape(-1), deep.reshape(-1))
    inner = mask & (deep >= INNER * deepest[label])
    rows, columns = np.nonzero(inner)
    where = np.stack([columns, rows], 1).astype(np.float32)
    chosen = [int(deep[rows, columns].argmax())]
    away = np.full(len(where), np.inf, np.float32)
    while len(chosen) < min(count, len(where)):
        away = np.minimum(away, np.linalg.norm(where - where[chosen[-1]], axis=1))
        chosen.append(int(away.argmax()))
    return where[chosen]
