"""Compiled loops of the storyboard: a z-buffer with interpolated colours, and shadow maps.

Images are windows of a supersampled picture; meshes come as vertices in pixels plus depth. These
loops differ from the batched observer of the simulation in that they interpolate colours and shade.
They release the interpreter lock, so that candidates are drawn side by side.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FAR = np.float32(1e6)
_fills = njit(cache=True, nogil=True, error_model="numpy", fastmath={"arcp"})
"""What all pixels of a face are divided by, in float64, is divided by once."""


@_fills
def draw_mesh(points, faces, colors, part, x0, y0, depth, part_of, rgb):
    """Draw one mesh into a window, nearest surface first.

    Args:
        points: (V, 3) float32 u, v [pixels of the whole picture] and depth [m].
        faces: (F, 3) int32.
        colors: (F, 3, 3) float32 colour at each corner of each face.
        part: number written where the mesh is seen.
        x0, y0: the window's corner [pixels].
        depth: (h, w) float32 [m], updated.
        part_of: (h, w) uint8, updated.
        rgb: (h, w, 3) float32, updated.
    """
    h, w = depth.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
        if za < 0.02 or zb < 0.02 or zc < 0.02:
            continue
        ax, ay = points[a, 0] - x0 - 0.5, points[a, 1] - y0 - 0.5
        bx, by = points[b, 0] - x0 - 0.5, points[b, 1] - y0 - 0.5
        cx, cy = points[c, 0] - x0 - 0.5, points[c, 1] - y0 - 0.5
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        left = max(int(np.ceil(min(ax, bx, cx))), 0)
        right = min(int(np.floor(max(ax, bx, cx))), w - 1)
        top = max(int(np.ceil(min(ay, by, cy))), 0)
        bottom = min(int(np.floor(max(ay, by, cy))), h - 1)
        ia, ib, ic = 1.0 / za, 1.0 / zb, 1.0 / zc
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                wa = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
                wb = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
                wc = 1.0 - wa - wb
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                inverse = wa * ia + wb * ib + wc * ic
                z = 1.0 / inverse
                if z >= depth[y, x]:
                    continue
                depth[y, x] = z
                part_of[y, x] = part
                pa, pb, pc = wa * ia * z, wb * ib * z, wc * ic * z
                for k in range(3):
                    rgb[y, x, k] = (
                        pa * colors[f, 0, k] + pb * colors[f, 1, k] + pc * colors[f, 2, k]
                    )


@_fills
def draw_height(points, faces, height):
    """Draw a mesh seen from a light into its map of heights: the largest third coordinate stays.

    Args:
        points: (V, 3) float32 map column, map row, height towards the light [m].
        faces: (F, 3) int32.
        height: (n, n) float32 [m], updated.
    """
    h, w = height.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, bx, by = points[a, 0], points[a, 1], points[b, 0], points[b, 1]
        cx, cy = points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        left = max(int(np.floor(min(ax, bx, cx))), 0)
        right = min(int(np.ceil(max(ax, bx, cx))), w - 1)
        top = max(int(np.floor(min(ay, by, cy))), 0)
        bottom = min(int(np.ceil(max(ay, by, cy))), h - 1)
        # Faces thinner than a cell of the map still cast a shadow.
        slack = (
            -0.35 * (abs(bx - ax) + abs(by - ay) + abs(cx - ax) + abs(cy - ay)) / abs(area) * 0.5
        )
        slack = max(slack, -0.5)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                wa = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
                wb = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
                wc = 1.0 - wa - wb
                if wa < slack or wb < slack or wc < slack:
                    continue
                z = wa * points[a, 2] + wb * points[b, 2] + wc * points[c, 2]
                if z > height[y, x]:
                    height[y, x] = z


@njit(cache=True, nogil=True, error_model="numpy")
def light_reaching(points, normals, axes, weights, maps, origin, cell, bias, total, reached):
    """How much light reaches points past the casters in the height maps.

    Args:
        points: (n, 3) float32 [m, world].
        normals: (n, 3) float32 unit.
        axes: (L, 3, 3) float32 rows: the map's column and row directions, the direction to light.
        weights: (L,) float32 irradiance from each light.
        maps: (L, s, s) float32 [m].
        origin: (L, 2) float32 [m] of each map's first cell.
        cell: [m].
        bias: [m] a caster must stand out by this much.
        total, reached: (n,) float32, written: light without and with the casters.
    """
    size = maps.shape[1]
    for i in range(points.shape[0]):
        full, seen = np.float32(0), np.float32(0)
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        for k in range(weights.shape[0]):
            cosine = nx * axes[k, 2, 0] + ny * axes[k, 2, 1] + nz * axes[k, 2, 2]
            if cosine <= 0:
                continue
            e = weights[k] * cosine
            full += e
            u = (px * axes[k, 0, 0] + py * axes[k, 0, 1] + pz * axes[k, 0, 2] - origin[k, 0]) / cell
            v = (px * axes[k, 1, 0] + py * axes[k, 1, 1] + pz * axes[k, 1, 2] - origin[k, 1]) / cell
            d = px * axes[k, 2, 0] + py * axes[k, 2, 1] + pz * axes[k, 2, 2] + bias
            x, y = int(np.floor(u)), int(np.floor(v))
            if x < 0 or y < 0 or x >= size - 1 or y >= size - 1:
                seen += e
                continue
            fx, fy = u - x, v - y
            open_ = np.float32(0)
            if maps[k, y, x] <= d:
                open_ += (1 - fx) * (1 - fy)
            if maps[k, y, x + 1] <= d:
                open_ += fx * (1 - fy)
            if maps[k, y + 1, x] <= d:
                open_ += (1 - fx) * fy
            if maps[k, y + 1, x + 1] <= d:
                open_ += fx * fy
            seen += e * open_
        total[i] = full
        reached[i] = seen
