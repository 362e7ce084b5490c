"""Whether a segmenter follows what it was told to: where objects are at first is known."""

from __future__ import annotations

import numpy as np

from lucibot.core.errors import RunFailed
from lucibot.core.scene_view import SceneView
from lucibot.providers.tracker.base import Segments
from lucibot.vision.grid import resize_mask

LEAST_AGREEMENT = 0.3
"""IoU of a segmenter's first masks with the known ones, under which it does not know the objects."""
ADVICE = "another checkpoint may, or --perceive.tracker embedded"


def ensure_known(view: SceneView, first: np.ndarray, segmenter: str) -> None:
    """
    Args:
        first: (N, H, W) bool, its masks of the first frame.
        segmenter: its name, for messages.

    Raises:
        RunFailed: they are not of the objects.
    """
    size = view.labels.shape[::-1]
    for i, name in enumerate(view.names):
        true, told = view.labels == i + 1, resize_mask(first[i], size)
        iou = (true & told).sum() / max((true | told).sum(), 1)
        if iou < LEAST_AGREEMENT:
            raise RunFailed(
                f"the segmenter {segmenter} does not know {name!r}: in the first frame, where its mask is "
                f"known, the two agree by {iou:.0%} (IoU, at least {LEAST_AGREEMENT:.0%} is wanted); "
                f"{ADVICE}"
            )


def ensure_followed(view: SceneView, found: Segments, segmenter: str) -> None:
    """
    Raises:
        RunFailed: it does not know the objects, or sees one of them in the first frame alone.
    """
    ensure_known(view, found.masks[0], segmenter)
    for i, name in enumerate(view.names):
        if len(found.lost) > 1 and found.lost[1:, i].all():
            raise RunFailed(
                f"the segmenter {segmenter} loses {name!r} after the first frame and never finds it "
                f"again; {ADVICE}"
            )
