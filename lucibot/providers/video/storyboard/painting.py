"""Compiled loops of the storyboard: a z-buffer, what is painted where it shows, and shadow maps.

Images are windows of a supersampled picture; meshes come as vertices in pixels plus depth. These
loops differ from the batched observer of the simulation in that they interpolate colours and shade.
They release the interpreter lock, so that candidates are drawn side by side. What all pixels of a
face are divided by is divided by once.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FAR = np.float32(1e6)
NEAR = 0.02
"""Faces with a corner nearer than this are not drawn [m]."""
SURELY = 1e-5
"""Share by which something must be out of sight to be passed over without a closer look: far more
than rounding can make up for."""
_compiled = njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def draw_faces(points, faces, x0, y0, depth, face):
    """Draw faces into a window, nearest surface first.

    Args:
        points: (V, 3) float32 u, v [pixels of the whole picture] and depth [m].
        faces: (F, 3) int32.
        x0, y0: the window's corner [pixels].
        depth: (h, w) float32 [m], updated.
        face: (h, w) int32, updated: the face that is seen.
    """
    h, w = depth.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
        if za < NEAR or zb < NEAR or zc < NEAR:
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
        share = 1.0 / area
        ia, ib, ic = 1.0 / za, 1.0 / zb, 1.0 / zc
        nearest = min(za, zb, zc) * (1 - SURELY)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                if depth[y, x] < nearest:
                    continue
                wa = ((bx - x) * (cy - y) - (by - y) * (cx - x)) * share
                wb = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) * share
                wc = 1.0 - wa - wb
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                z = 1.0 / (wa * ia + wb * ib + wc * ic)
                if z < depth[y, x]:
                    depth[y, x] = z
                    face[y, x] = f


@_compiled
def mark_corners(face, faces, seen):
    """Set `seen` (V,) bool for the corners of the faces that are seen in `face` (h, w)."""
    for y in range(face.shape[0]):
        last = -1
        for x in range(face.shape[1]):
            f = face[y, x]
            if f != last and f >= 0:
                seen[faces[f, 0]] = seen[faces[f, 1]] = seen[faces[f, 2]] = True
            last = f


@_compiled
def paint(points, faces, colors, part_of, face, x0, y0, rgb, covered, shown):
    """Paint what `draw_faces` found, over what is in the picture; each pixel is the mean of its
    samples.

    Args:
        points, faces, face, x0, y0: as there; face is (h s, w s).
        colors: (V, 3) float32.
        part_of: (F,) uint8 part of each face.
        rgb: (h, w, 3) float32, updated.
        covered: (h, w) float32, written: the share of each pixel that is painted.
        shown: (P, h, w) bool, all False: set where a part has half of the pixel or more.
    """
    h, w, _ = rgb.shape
    s = face.shape[0] // h
    each = np.float32(1.0 / (s * s))
    parts = np.zeros(len(shown), np.int64)
    last = a = b = c = -1
    ax = ay = bx = by = cx = cy = share = ia = ib = ic = 0.0
    for v in range(h):
        for u in range(w):
            count = 0
            red, green, blue = np.float32(0), np.float32(0), np.float32(0)
            for j in range(s * s):
                y, x = v * s + j // s, u * s + j % s
                f = face[y, x]
                if f < 0:
                    continue
                count += 1
                parts[part_of[f]] += 1
                if f != last:
                    last = f
                    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                    ax, ay = points[a, 0] - x0 - 0.5, points[a, 1] - y0 - 0.5
                    bx, by = points[b, 0] - x0 - 0.5, points[b, 1] - y0 - 0.5
                    cx, cy = points[c, 0] - x0 - 0.5, points[c, 1] - y0 - 0.5
                    share = 1.0 / ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))
                    ia, ib, ic = 1.0 / points[a, 2], 1.0 / points[b, 2], 1.0 / points[c, 2]
                wa = ((bx - x) * (cy - y) - (by - y) * (cx - x)) * share
                wb = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) * share
                wc = 1.0 - wa - wb
                z = 1.0 / (wa * ia + wb * ib + wc * ic)
                pa, pb, pc = wa * ia * z, wb * ib * z, wc * ic * z
                red += np.float32(pa * colors[a, 0] + pb * colors[b, 0] + pc * colors[c, 0])
                green += np.float32(pa * colors[a, 1] + pb * colors[b, 1] + pc * colors[c, 1])
                blue += np.float32(pa * colors[a, 2] + pb * colors[b, 2] + pc * colors[c, 2])
            covered[v, u] = count * each
            if count:
                for k in range(len(parts)):
                    shown[k, v, u] = 2 * parts[k] >= s * s
                    parts[k] = 0
                rest = np.float32(1) - covered[v, u]
                rgb[v, u, 0] = rgb[v, u, 0] * rest + red * each
                rgb[v, u, 1] = rgb[v, u, 1] * rest + green * each
                rgb[v, u, 2] = rgb[v, u, 2] * rest + blue * each


@_compiled
def draw_heights(along, faces, origin, cell, maps):
    """Draw a mesh seen from each light into its map of heights: the largest stays.

    Args:
        along: (V, L, 3) float32 coordinates along each map's columns, rows and towards its light [m].
        faces: (F, 3) int32.
        origin: (L, 2) float32 [m] of each map's first cell.
        cell: float32 [m].
        maps: (L, n, n) float32 [m], updated.
    """
    h, w = maps.shape[1:]
    p = np.empty((along.shape[0], 3), np.float32)
    for k in range(maps.shape[0]):
        height = maps[k]
        for i in range(along.shape[0]):
            p[i, 0] = (along[i, k, 0] - origin[k, 0]) / cell
            p[i, 1] = (along[i, k, 1] - origin[k, 1]) / cell
            p[i, 2] = along[i, k, 2]
        for f in range(faces.shape[0]):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            ax, ay, bx, by = p[a, 0], p[a, 1], p[b, 0], p[b, 1]
            cx, cy = p[c, 0], p[c, 1]
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if area == 0.0:
                continue
            left = max(int(np.floor(min(ax, bx, cx))), 0)
            right = min(int(np.ceil(max(ax, bx, cx))), w - 1)
            top = max(int(np.floor(min(ay, by, cy))), 0)
            bottom = min(int(np.ceil(max(ay, by, cy))), h - 1)
            # Faces thinner than a cell of the map still cast a shadow.
            width = abs(bx - ax) + abs(by - ay) + abs(cx - ax) + abs(cy - ay)
            slack = max(-0.35 * width / abs(area) * 0.5, -0.5)
            share = 1.0 / area
            za, zb, zc = p[a, 2], p[b, 2], p[c, 2]
            for y in range(top, bottom + 1):
                for x in range(left, right + 1):
                    wa = ((bx - x) * (cy - y) - (by - y) * (cx - x)) * share
                    wb = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) * share
                    wc = 1.0 - wa - wb
                    if wa < slack or wb < slack or wc < slack:
                        continue
                    z = wa * za + wb * zb + wc * zc
                    if z > height[y, x]:
                        height[y, x] = z


@njit(inline="always")
def _place(points, i, axes, k, origin, cell):
    """Where a point lies in a light's map: column, row [cells] and height [m]."""
    px, py, pz = points[i, 0], points[i, 1], points[i, 2]
    u = (px * axes[k, 0, 0] + py * axes[k, 0, 1] + pz * axes[k, 0, 2] - origin[k, 0]) / cell
    v = (px * axes[k, 1, 0] + py * axes[k, 1, 1] + pz * axes[k, 1, 2] - origin[k, 1]) / cell
    return u, v, px * axes[k, 2, 0] + py * axes[k, 2, 1] + pz * axes[k, 2, 2]


@_compiled
def light_reaching(
    points, normals, axes, weights, maps, origin, cell, bias, wanted, total, reached
):
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
        wanted: (n,) bool, which points.
        total, reached: (n,) float32, written for these: light without and with the casters.
    """
    size = maps.shape[1]
    for i in range(points.shape[0]):
        if not wanted[i]:
            continue
        full, seen = np.float32(0), np.float32(0)
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        for k in range(weights.shape[0]):
            cosine = nx * axes[k, 2, 0] + ny * axes[k, 2, 1] + nz * axes[k, 2, 2]
            if cosine <= 0:
                continue
            e = weights[k] * cosine
            full += e
            u, v, d = _place(points, i, axes, k, origin, cell)
            d += bias
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


@_compiled
def cells_of(points, axes, origin, cell, size, cells):
    """Write which cell of each light's map, counted row by row, each point lies in, -1 for none.

    Args:
        points, axes, origin, cell: as of `light_reaching`.
        size: cells along a map's side.
        cells: (n, L) int32, written.
    """
    for i in range(cells.shape[0]):
        for k in range(cells.shape[1]):
            u, v, _ = _place(points, i, axes, k, origin, cell)
            x, y = int(np.floor(u)), int(np.floor(v))
            inside = x >= 0 and y >= 0 and x < size - 1 and y < size - 1
            cells[i, k] = y * size + x if inside else -1


@_compiled
def mark_touched(cells, maps, before, touched):
    """Write for which points a map has changed where it is looked up.

    Args:
        cells: (n, L) int32, as `cells_of` wrote them.
        maps, before: (L, s, s) float32 [m].
        touched: (n,) bool, written.
    """
    lights, size, _ = maps.shape
    changed = np.zeros((lights, size * size), np.bool_)
    for k in range(lights):
        for y in range(size):
            for x in range(size):
                if maps[k, y, x] != before[k, y, x]:
                    for v in range(max(y - 1, 0), y + 1):
                        for u in range(max(x - 1, 0), x + 1):
                            changed[k, v * size + u] = True
    for i in range(cells.shape[0]):
        touched[i] = False
        for k in range(lights):
            if cells[i, k] >= 0 and changed[k, cells[i, k]]:
                touched[i] = True
                break


@_compiled
def add_normals(vertices, faces, normals):
    """Add to the normal of each vertex those of the faces around it, by twice their areas.

    Args:
        vertices: (V, 3) float64 [m].
        faces: (F, 3) int.
        normals: (V, 3) float64 [m^2], updated.
    """
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        px, py, pz = (
            vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1],
            vertices[b, 2] - vertices[a, 2],
        )  # fmt: skip
        qx, qy, qz = (
            vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1],
            vertices[c, 2] - vertices[a, 2],
        )  # fmt: skip
        for v in (a, b, c):
            normals[v, 0] += py * qz - pz * qy
            normals[v, 1] += pz * qx - px * qz
            normals[v, 2] += px * qy - py * qx


@_compiled
def add_grain(picture, grain, y0, x0, out):
    """Write a picture with grain, rolled by (y0, x0) [pixels], as whole numbers.

    Args:
        picture, grain: (H, W, 3) float32, of 255.
        out: (H, W, 3) uint8, written.
    """
    h, w, _ = picture.shape
    for y in range(h):
        v, u = (y - y0) % h, -x0 % w
        for x in range(w):
            for k in range(3):
                value = np.rint(picture[y, x, k] + grain[v, u, k])
                out[y, x, k] = np.uint8(min(max(value, np.float32(0)), np.float32(255)))
            u = u + 1 if u + 1 < w else 0
