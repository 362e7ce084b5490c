"""Silhouette residuals: how far each point of a drawn outline is from the mask's edge.

Along the outline's normal, pixels of the mask argue for "inside", pixels of anything that lies
behind the object for "outside", and a hand or anything nearer argues for neither. The edge may lie
wherever the arguments against are fewest; where that is a whole stretch (hidden behind a hand), a
point inside the stretch is left alone, so occlusion neither pulls nor pushes.
"""

from __future__ import annotations

import cv2
import numba
import numpy as np

MOVING_MARGIN_M = (0.04, 0.12)
"""Another object that is seen less than the first behind an outline may hide it after all, for the
depth of what is carried errs; farther than the second, nothing can lie before it; between, in
proportion. Without this a cup in another one, taken to be behind it, would eat its far rim."""
KNOWN_MARGIN_M = (0.005, 0.03)
"""The same where the other object's depth is known."""


def outlines(
    depth: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Evenly spaced points of each drawn silhouette's outer outline.

    Args:
        depth: (B, H, W) float32 [m], inf where nothing is drawn.
        count: C, points an outline.

    Returns:
        Pixel centres (B, C, 2) float64 (u, v), unit normals (B, C, 2) pointing outwards, depth
        (B, C) [m], and weights (B, C): 0 where there is no outline or it runs along the border.
    """
    batch, h, w = depth.shape
    points, normals = np.zeros((batch, count, 2)), np.zeros((batch, count, 2))
    z, weight = np.zeros((batch, count)), np.zeros((batch, count))
    kernel = np.ones(5) / 5
    for b in range(batch):
        drawn = np.isfinite(depth[b])
        rows, cols = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
        if len(rows) == 0:
            continue
        y, x = rows[0], cols[0]
        crop = drawn[y : rows[-1] + 1, x : cols[-1] + 1].astype(np.uint8)
        found, _ = cv2.findContours(crop, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        line = max(found, key=len)[:, 0].astype(float)
        if len(line) < 12:
            continue
        wrapped = np.concatenate([line[-4:], line, line[:4]])
        smooth = np.stack([np.convolve(wrapped[:, k], kernel, "valid") for k in (0, 1)], 1)
        tangent = smooth[4:] - smooth[:-4]
        normal = np.stack([tangent[:, 1], -tangent[:, 0]], 1)
        nx, ny = line[:, 0], line[:, 1]
        area = np.sum(nx * np.roll(ny, -1) - np.roll(nx, -1) * ny)
        normal *= 1 if area > 0 else -1
        length = np.linalg.norm(normal, axis=1)
        step = np.linalg.norm(np.diff(line, axis=0, append=line[:1]), axis=1)
        along = np.cumsum(step) - step
        pick = np.searchsorted(along, (np.arange(count) + 0.5) / count * step.sum()) % len(line)
        p = line[pick] + (x, y)
        points[b] = p + 0.5
        normals[b] = normal[pick] / np.maximum(length[pick], 1e-9)[:, None]
        z[b] = depth[b, p[:, 1].astype(int), p[:, 0].astype(int)]
        inner = (p > 0).all(1) & (p[:, 0] < w - 1) & (p[:, 1] < h - 1) & (length[pick] > 1e-6)
        # Spacing in the weight: a small outline gives fewer independent points than a large one.
        weight[b] = inner * min(1.0, step.sum() / count)
    return points, normals, z, weight


def edge_offsets(
    points: np.ndarray,
    normals: np.ndarray,
    z: np.ndarray,
    weight: np.ndarray,
    drawn: np.ndarray,
    label: np.ndarray,
    own_label: int,
    depths: np.ndarray,
    margins_m: np.ndarray,
    reach_px: float,
) -> tuple[np.ndarray, np.ndarray]:
    """How far, along the normals, the mask's edge is from the drawn edge.

    Args:
        points, normals, z, weight: as from `outlines`, (B, C, ...).
        drawn: (B, H, W) bool, the drawn silhouettes.
        label: (B, H, W) uint8: 0 background, i + 1 for object i, 255 where nothing can be said.
        depths: (N, B, H, W) float32 [m], every object's own depth; 0 or inf where not known.
        margins_m: (N, 2) [m], MOVING_MARGIN_M or KNOWN_MARGIN_M for every object.
        reach_px: half length of the search.

    Returns:
        Offsets (B, C) [px], positive outwards, and weights (B, C).
    """
    offset, out_weight = np.zeros(z.shape), np.zeros(z.shape)
    _edges(
        points, normals, z, weight, drawn, label, own_label, depths, margins_m,
        float(reach_px), offset,
        out_weight,
    )  # fmt: skip
    return offset, out_weight


@numba.njit(cache=True)
def speaks_against(other_m, own_m, margin_m):
    """How surely (0 to 1) an object seen at depth `other_m` says that nothing is at `own_m`."""
    if not np.isfinite(other_m):
        return 0.0
    behind = other_m - own_m
    return min(1.0, max(0.0, (behind - margin_m[0]) / (margin_m[1] - margin_m[0])))


@numba.njit(cache=True, parallel=True)
def _edges(
    points, normals, z, weight, drawn, label, own, depths, margins_m, reach, offset, out_weight
):
    batch, count = z.shape
    h, w = drawn.shape[1:]
    step = 0.5
    half = int(reach / step)
    n = 2 * half + 1
    for b in numba.prange(batch):
        says = np.zeros(n)
        cost = np.zeros(n + 1)
        for c in range(count):
            if weight[b, c] == 0:
                continue
            own_edge = -1
            leaving = True
            for k in range(n):
                o = (k - half) * step
                u = int(np.floor(points[b, c, 0] + o * normals[b, c, 0]))
                v = int(np.floor(points[b, c, 1] + o * normals[b, c, 1]))
                says[k] = 0
                if u < 0 or v < 0 or u >= w or v >= h:
                    continue
                mine = drawn[b, v, u]
                if o >= 0 and leaving and not mine:
                    own_edge = k
                    leaving = False
                if o > 0 and not leaving and mine:
                    # The line has entered another part of the object: it tells nothing from there.
                    for m in range(k, n):
                        says[m] = 0
                    break
                what = label[b, v, u]
                if what == own:
                    says[k] = 1
                elif what == 255:
                    says[k] = 0
                elif what == 0:
                    says[k] = -1
                else:
                    says[k] = -speaks_against(
                        depths[what - 1, b, v, u], z[b, c], margins_m[what - 1]
                    )
            if own_edge < 0:
                continue
            # Inwards, only as far as the object is thick here.
            k = half
            while k >= 0:
                o = (k - half) * step
                u = int(np.floor(points[b, c, 0] + o * normals[b, c, 0]))
                v = int(np.floor(points[b, c, 1] + o * normals[b, c, 1]))
                if u < 0 or v < 0 or u >= w or v >= h or not drawn[b, v, u]:
                    break
                k -= 1
            for m in range(k + 1):
                says[m] = 0
            against = 0.0
            for k in range(n):
                if says[k] > 0:
                    against += 1
            cost[0] = against
            best = against
            for k in range(n):
                against -= says[k]
                cost[k + 1] = against
                best = min(best, against)
            nearest = -1
            for k in range(n + 1):
                if cost[k] < best + 1e-6 and (
                    nearest < 0 or abs(k - own_edge) < abs(nearest - own_edge)
                ):
                    nearest = k
            lo, hi = nearest, nearest
            while lo > 0 and cost[lo - 1] < best + 1e-6:
                lo -= 1
            while hi < n and cost[hi + 1] < best + 1e-6:
                hi += 1
            offset[b, c] = (nearest - own_edge) * step
            width = (hi - lo) * step
            if nearest == own_edge:
                # Anywhere in the stretch is as good: hold the point loosely, or not at all.
                out_weight[b, c] = weight[b, c] / (1 + width * width)
            else:
                out_weight[b, c] = weight[b, c]
