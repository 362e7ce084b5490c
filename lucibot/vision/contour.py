"""Silhouette residuals: how far each point of a drawn outline is from the mask's edge.

Along the outline's normal, pixels of the mask argue for "inside", pixels of anything that lies
behind the object for "outside", and a hand or anything nearer argues for neither. The edge may lie
wherever the arguments against are fewest; where that is a whole stretch (hidden behind a hand), a
point inside the stretch is left alone, so occlusion neither pulls nor pushes.
"""

from __future__ import annotations

import numpy as np

from lucibot.vision.draw import Windows, depth_at
from lucibot.vision.jit import compiled, inlined

UNSURE = 255
"""Label of pixels that speak neither for nor against any object."""
MOVING_MARGIN_M = (0.04, 0.12)
"""Another object that is seen less than the first behind an outline may hide it after all, for the
depth of what is carried errs; farther than the second, nothing can lie before it; between, in
proportion. Without this a cup in another one, taken to be behind it, would eat its far rim."""
KNOWN_MARGIN_M = (0.005, 0.03)
"""The same where the other object's depth is known."""
FEWEST_PX = 12
"""Outlines of fewer points tell nothing."""

DOWN, RIGHT = np.array([0, -1, -1, -1, 0, 1, 1, 1]), np.array([1, 1, 0, -1, -1, -1, 0, 1])
"""Steps to the eight neighbours of a pixel, from the right one on against the clock."""
LEFT_SIDE, RIGHT_SIDE = 2, -1
"""Marks of outlines, see `longest_outline`."""
BESIDE = 4
"""An outline's direction is that of so many points before and after."""
DIAGONAL_PX = np.sqrt(2.0)
FAR = np.float32(np.inf)


def outlines(drawn: Windows, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Evenly spaced points of each drawn silhouette's longest outer outline.

    Args:
        drawn: (B,).
        count: C, points an outline.

    Returns:
        Pixel centres (B, C, 2) float64 (u, v), unit normals (B, C, 2) pointing outwards, depth
        (B, C) [m], and weights (B, C): 0 where there is no outline or it runs along the border.
    """
    batch = len(drawn)
    points, normals = np.zeros((batch, count, 2)), np.zeros((batch, count, 2))
    z, weight = np.zeros((batch, count)), np.zeros((batch, count))
    _outlines(
        batch, drawn.depth_m, drawn.start, drawn.box, *drawn.shape, points, normals, z, weight
    )
    return points, normals, z, weight


@compiled
def _outlines(first, end, depth, start, box, height, width, points, normals, z, weight):
    count = z.shape[1]
    nothing = np.empty((0, 2), np.int64)
    for b in range(first, end):
        if b > first and start[b] == start[b - 1] and (box[b] == box[b - 1]).all():
            # The same picture, to be compared with another frame.
            points[b], normals[b] = points[b - 1], normals[b - 1]
            z[b], weight[b] = z[b - 1], weight[b - 1]
            continue
        v0, v1, u0, u1 = box[b]
        wide = u1 - u0
        # An empty rim spares the search the question whether a neighbour is in the window.
        mark = np.zeros((v1 - v0 + 2, wide + 2), np.int8)
        for v in range(v1 - v0):
            for u in range(wide):
                mark[v + 1, u + 1] = depth[start[b] + v * wide + u] < FAR
        v, u, n = longest_outline(mark, nothing)
        if n < FEWEST_PX:
            continue
        # Closed: the last points come before the first, too, and the first after the last.
        line = np.empty((n + 2 * BESIDE + 1, 2), np.int64)
        walk_outline(mark, v, u, line[BESIDE : BESIDE + n])
        line[:BESIDE] = line[n : BESIDE + n]
        line[BESIDE + n :] = line[BESIDE : 2 * BESIDE + 1]
        turns, length = 0, 0.0
        for k in range(BESIDE, BESIDE + n):
            turns += line[k, 0] * line[k + 1, 1] - line[k, 1] * line[k + 1, 0]
            length += step_px(line, k)
        outwards = 1 if turns > 0 else -1
        k, along = BESIDE, 0.0
        for c in range(count):
            while k < BESIDE + n and along < (c + 0.5) / count * length:
                along += step_px(line, k)
                k += 1
            du, dv = 0, 0
            for m in range(1, BESIDE + 1):
                du += line[k + m, 0] - line[k - m, 0]
                dv += line[k + m, 1] - line[k - m, 1]
            # The rim is one pixel wide.
            u, v = line[k, 0] - 1, line[k, 1] - 1
            norm = np.sqrt(float(du**2 + dv**2))
            points[b, c, 0], points[b, c, 1] = u0 + u + 0.5, v0 + v + 0.5
            z[b, c] = depth[start[b] + v * wide + u]
            if norm == 0:
                continue
            normals[b, c, 0], normals[b, c, 1] = outwards * dv / norm, -outwards * du / norm
            if 0 < u0 + u < width - 1 and 0 < v0 + v < height - 1:
                # A small outline gives fewer independent points than a large one.
                weight[b, c] = min(1.0, length / count)


@inlined
def step_px(line, k):
    """Length [px] of the step from point k of an outline (n, 2) to the next, one of its neighbours."""
    straight = line[k + 1, 0] == line[k, 0] or line[k + 1, 1] == line[k, 1]
    return 1.0 if straight else DIAGONAL_PX


@inlined
def longest_outline(mark, nothing):
    """Row, column and number of points of the longest outer outline (of equals the lowest); 0 points
    if there is none.

    Parts in holes of other parts have no outer outline. Border following after Suzuki and Abe
    (1985), as `cv2.findContours` does it.

    Args:
        mark: (h, w) int8: 1 where drawn, 0 elsewhere and all along the border. Pixels of outlines
            are marked: RIGHT_SIDE where an outline has its outside on the right, else LEFT_SIDE.
        nothing: (0, 2) int64, room for no points.
    """
    best_v, best_u, most = 0, 0, 0
    for v in range(1, mark.shape[0] - 1):
        inside = False
        before = 0
        for u in range(1, mark.shape[1] - 1):
            now = mark[v, u]
            if now == before:
                continue
            if now == 1 and before == 0 and not inside:
                n = walk_outline(mark, v, u, nothing)
                if n >= most:
                    best_v, best_u, most = v, u, n
                now = mark[v, u]
            if now > 1 or now < 0:
                inside = now == LEFT_SIDE
            before = now
    return best_v, best_u, most


@inlined
def walk_outline(mark, v, u, line):
    """Number of points of the outline that begins at a pixel whose left neighbour is empty.

    Args:
        mark: see `longest_outline`.
        line: (n, 2) takes as many points (u, v) as it has room for.
    """
    # Of eight directions, counted from the right against the clock, the first from the left on.
    towards = 4
    for _ in range(8):
        towards = (towards - 1) & 7
        if mark[v + DOWN[towards], u + RIGHT[towards]] != 0:
            break
        if towards == 4:
            mark[v, u] = RIGHT_SIDE
            if len(line) > 0:
                line[0, 0], line[0, 1] = u, v
            return 1
    last_v, last_u = v + DOWN[towards], u + RIGHT[towards]
    y, x, n = v, u, 0
    while True:
        towards = (towards + 1) & 7
        right_is_empty = False
        while mark[y + DOWN[towards], x + RIGHT[towards]] == 0:
            right_is_empty |= towards == 0
            towards = (towards + 1) & 7
        if right_is_empty:
            mark[y, x] = RIGHT_SIDE
        elif mark[y, x] == 1:
            mark[y, x] = LEFT_SIDE
        if n < len(line):
            line[n, 0], line[n, 1] = x, y
        n += 1
        next_y, next_x = y + DOWN[towards], x + RIGHT[towards]
        if next_y == v and next_x == u and y == last_v and x == last_u:
            return n
        y, x = next_y, next_x
        towards = (towards + 4) & 7


def edge_offsets(
    points: np.ndarray, normals: np.ndarray, z: np.ndarray, weight: np.ndarray, depths: Windows,
    label: np.ndarray, frames: np.ndarray, own_label: int, margins_m: np.ndarray, reach_px: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """How far, along the normals, the mask's edge is from the drawn edge.

    Args:
        points, normals, z, weight: as from `outlines`, (B, C, ...).
        depths: (N, B), every object drawn alone.
        label: (T, H, W) uint8: 0 background, i + 1 for object i, UNSURE where nothing can be said.
        frames: (B,) of the label images to compare with.
        own_label: of the object whose outlines these are.
        margins_m: (N, 2) [m], MOVING_MARGIN_M or KNOWN_MARGIN_M for every object.
        reach_px: half length of the search.

    Returns:
        Offsets (B, C) [px], positive outwards, and weights (B, C).
    """
    offset, out_weight = np.zeros(z.shape), np.zeros(z.shape)
    _edges(
        len(z), points, normals, z, weight, depths.depth_m, depths.start, depths.box, label, frames,
        own_label, margins_m, float(reach_px), offset, out_weight,
    )  # fmt: skip
    return offset, out_weight


@inlined
def speaks_against(other_m, own_m, margin_m):
    """How surely (0 to 1) an object seen at depth `other_m` says that nothing is at `own_m`."""
    if not np.isfinite(other_m):
        return 0.0
    behind = other_m - own_m
    return min(1.0, max(0.0, (behind - margin_m[0]) / (margin_m[1] - margin_m[0])))


@inlined
def covered(depth, start, v0, v1, u0, u1, v, u):
    """Whether something is drawn at a pixel of a picture: see `Windows`."""
    return v0 <= v < v1 and u0 <= u < u1 and depth[start + (v - v0) * (u1 - u0) + u - u0] < FAR


@inlined
def argument(what, own, own_m, depth, start, box, b, v, u, margins_m):
    """What a pixel labelled `what` says: 1 that object `own` - 1 is there, -1 that it is not, and
    anything between."""
    if what == own:
        return 1.0
    if what == 0:
        return -1.0
    if what == UNSURE:
        return 0.0
    other_m = depth_at(depth, start[what - 1, b], box[what - 1, b], v, u)
    return -speaks_against(other_m, own_m, margins_m[what - 1])


@compiled
def _edges(
    first, end, points, normals, z, weight, depth, start, box, label, frames, own, margins_m, reach, offset,
    out_weight,
):  # fmt: skip
    h, w = label.shape[1:]
    step = 0.5
    half = int(reach / step)
    n = 2 * half + 1
    says, cost = np.zeros(n), np.zeros(n + 1)
    for b in range(first, end):
        t, own_start = frames[b], start[own - 1, b]
        v0, v1, u0, u1 = box[own - 1, b]
        for c in range(z.shape[1]):
            if weight[b, c] == 0:
                continue
            x, y, n_x, n_y = points[b, c, 0], points[b, c, 1], normals[b, c, 0], normals[b, c, 1]
            # Outwards until the line leaves the picture or enters another part of the object: from
            # there on it tells nothing.
            own_edge, k_end = -1, half
            while k_end < n:
                o = (k_end - half) * step
                u, v = int(np.floor(x + o * n_x)), int(np.floor(y + o * n_y))
                if u < 0 or v < 0 or u >= w or v >= h:
                    break
                if not covered(depth, own_start, v0, v1, u0, u1, v, u):
                    if own_edge < 0:
                        own_edge = k_end
                elif own_edge >= 0:
                    break
                says[k_end] = argument(
                    label[t, v, u], own, z[b, c], depth, start, box, b, v, u, margins_m
                )
                k_end += 1
            if own_edge < 0:
                continue
            # Inwards, only as far as the object is thick here.
            k_first = half
            while k_first > 0:
                o = (k_first - 1 - half) * step
                u, v = int(np.floor(x + o * n_x)), int(np.floor(y + o * n_y))
                if not covered(depth, own_start, v0, v1, u0, u1, v, u):
                    break
                k_first -= 1
                says[k_first] = argument(
                    label[t, v, u], own, z[b, c], depth, start, box, b, v, u, margins_m
                )
            against = 0.0
            for k in range(k_first, k_end):
                if says[k] > 0:
                    against += 1
            cost[k_first] = against
            best = against
            for k in range(k_first, k_end):
                against -= says[k]
                cost[k + 1] = against
                best = min(best, against)
            nearest = -1
            for k in range(k_first, k_end + 1):
                if cost[k] < best + 1e-6 and (
                    nearest < 0 or abs(k - own_edge) < abs(nearest - own_edge)
                ):
                    nearest = k
            lo, hi = nearest, nearest
            while lo > k_first and cost[lo - 1] < best + 1e-6:
                lo -= 1
            while hi < k_end and cost[hi + 1] < best + 1e-6:
                hi += 1
            # Where the line tells nothing, anything is as good.
            lo, hi = 0 if lo == k_first else lo, n if hi == k_end else hi
            offset[b, c] = (nearest - own_edge) * step
            width = (hi - lo) * step
            if nearest == own_edge:
                # Anywhere in the stretch is as good: hold the point loosely, or not at all.
                out_weight[b, c] = weight[b, c] / (1 + width * width)
            else:
                out_weight[b, c] = weight[b, c]
