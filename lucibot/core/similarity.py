"""Whether a picture shows the scene where it should, robustly against style."""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.core.errors import UserError
from lucibot.core.scene_view import SceneView

FLAT = 0.5
"""A window whose colours vary by less shows nothing [Lab]."""


def scene_similarity(frame: np.ndarray, view: SceneView) -> dict[str, float]:
    """How much each foreground object and its surroundings in `frame` look like the scene's.

    The normalised cross-correlation of a coarse Lab window around the object, the best over shifts
    of up to 3% of the width: a change of style, exposure or texture keeps it high, other objects
    or the same ones elsewhere do not.

    Args:
        frame: (H, W, 3) uint8 RGB on the view's grid.

    Returns:
        name of each visible object -> similarity in [-1, 1].

    Raises:
        UserError: none is visible.
    """
    h, w = view.labels.shape
    coarse = (160, max(round(160 * h / w), 1))
    shift = 5

    def lab(rgb: np.ndarray) -> np.ndarray:
        small = cv2.resize(rgb, coarse, interpolation=cv2.INTER_AREA)
        small = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        return cv2.GaussianBlur(small, (0, 0), 1.2)

    scene, seen = lab(view.first_frame), lab(frame)
    seen = cv2.copyMakeBorder(seen, shift, shift, shift, shift, cv2.BORDER_REPLICATE)
    out = {}
    for name in view.names:
        mask = view.mask(name)
        whole = cv2.resize(mask.astype(np.uint8), coarse, interpolation=cv2.INTER_AREA)
        thin = not whole.any()
        if thin:  # Nowhere does it fill half of a coarse pixel.
            whole = cv2.resize(mask.astype(np.float32), coarse, interpolation=cv2.INTER_AREA)
        ys, xs = np.nonzero(whole)
        if len(ys) == 0:
            continue
        margin = 3 + int(0.25 * max(np.ptp(ys), np.ptp(xs)))
        y0, y1 = max(ys.min() - margin, 0), min(ys.max() + margin + 1, coarse[1])
        x0, x1 = max(xs.min() - margin, 0), min(xs.max() + margin + 1, coarse[0])
        template = scene[y0:y1, x0:x1]
        window = seen[y0 : y1 + 2 * shift, x0 : x1 + 2 * shift]
        if thin and template.std(axis=(0, 1)).max() < FLAT:
            continue  # So little of it is seen that it does not stand out.
        # A flat window has no correlation to speak of; its quotient would be rounding noise.
        flat = min(template.std(axis=(0, 1)).max(), window.std(axis=(0, 1)).max()) < FLAT
        score = 0.0 if flat else cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED).max()
        out[name] = float(score)
    if not out:
        raise UserError("the scene shows none of its foreground objects; move the task's camera")
    return out
