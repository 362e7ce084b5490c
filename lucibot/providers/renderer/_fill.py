"""The z-buffer's inner loop, compiled by numba."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def fill(screen, z, triangle, weights):
    """Draw triangles (F, 3, 3) given as (u, v, 1 / depth) at pixel centres.

    A pixel is overwritten where a triangle is nearer than `z` (H, W), which is updated in place
    along with `triangle` (H, W) and perspective-correct corner `weights` (H, W, 3).
    """
    H, W = z.shape
    for f in range(screen.shape[0]):
        ax, ay, aw = screen[f, 0, 0], screen[f, 0, 1], screen[f, 0, 2]
        bx, by, bw = screen[f, 1, 0], screen[f, 1, 1], screen[f, 1, 2]
        cx, cy, cw = screen[f, 2, 0], screen[f, 2, 1], screen[f, 2, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-12:
            continue
        x0 = max(int(np.ceil(max(min(ax, bx, cx), -1.0) - 0.5)), 0)
        x1 = min(int(np.floor(min(max(ax, bx, cx), W + 1.0) - 0.5)), W - 1)
        y0 = max(int(np.ceil(max(min(ay, by, cy), -1.0) - 0.5)), 0)
        y1 = min(int(np.floor(min(max(ay, by, cy), H + 1.0) - 0.5)), H - 1)
        for y in range(y0, y1 + 1):
            py = y + 0.5
            for x in range(x0, x1 + 1):
                px = x + 0.5
                la = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / area
                lb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / area
                lc = 1.0 - la - lb
                if la < 0 or lb < 0 or lc < 0:
                    continue
                w = la * aw + lb * bw + lc * cw
                if w * z[y, x] <= 1.0:
                    continue
                z[y, x] = 1.0 / w
                triangle[y, x] = f
                weights[y, x, 0] = la * aw / w
                weights[y, x, 1] = lb * bw / w
                weights[y, x, 2] = lc * cw / w
