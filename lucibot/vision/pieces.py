"""Into how many pieces something has fallen, seen in the picture: gaps, slits, crumbs and grain.

One rule for the verifier, which counts pieces, and for perception, which hands them to the search.
"""

from __future__ import annotations

import cv2
import numpy as np

VALLEY = 8
"""Depth of a valley of lightness, of 255: some four times what compression leaves of noise."""
LEAST_SHARE = 0.1
"""A piece smaller than this share of its object's visible area is a crumb, or noise."""
CUT_KEEPS = 0.8
"""A slit leaves at least this share of a mask at pieces that are no crumbs; valleys that leave less are
the grain of a surface, sand's for instance."""


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
        # Grown by as much as a slit is wide, so that a small picture loses no more than a large one.
        grown = cv2.dilate(np.isin(*by_slits).astype(np.uint8), np.ones((_slit_px(mask),) * 2))
        if (mask & (grown > 0)).sum() >= CUT_KEEPS * mask.sum():
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
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_slit_px(mask),) * 2)
    return (cv2.morphologyEx(lightness, cv2.MORPH_BLACKHAT, kernel) > VALLEY) & mask


def _slit_px(mask: np.ndarray) -> int:
    """A slit is at most a fifth of the object wide; wider dark parts are sides. Odd."""
    return max(5, int(np.sqrt(mask.sum()) / 5)) | 1
