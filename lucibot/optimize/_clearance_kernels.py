"""Compiled loops of clearance: where a tool is on its way, how far from what stands still, and the
shift that clears both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from lucibot_kernels.jit import stamped

from lucibot.core import solids as _solids
from lucibot.core.solids import distance, in_frame, outward

MARGIN_M = 0.0005
"""A waypoint keeps so far away from what stands still; on the way there it may touch."""
STEP_M = 0.002
"""Where it is close to something, an actuator is looked at each time its surface has moved so far."""
FURTHEST_M = 0.3
"""No waypoint is shifted farther."""
ENOUGH = 1.25
"""A shift is short enough if it is so many times as long as the least that any would have to be."""
TRIES = 20
"""So often a direction is tried."""
NEARLY_M = 0.0005
"""A shift is sought to within so much, where it is not found at once."""
EXACT_M = 1e-5

_DIGEST = hashlib.sha256(Path(_solids.__file__).read_bytes()).hexdigest()


def _compiled(kernel: Callable) -> Callable:
    """Kept on disk until this file changes, or that whose functions are inlined."""
    return stamped(numba.njit(cache=True)(kernel), _DIGEST)


# Poses on a way ---------------------------------------------------------------------------------
#
# A way is (13,): its first position, what is added to it, the turn's axis and angle, and the first
# rotation vector; a pose is (3, 4), rotation and position. Scalars throughout: bits do not depend on
# how many candidates are repaired together.


@_compiled
def _quaternion(r0, r1, r2):
    """Rotation vector to (w, x, y, z)."""
    angle = np.sqrt(r0 * r0 + r1 * r1 + r2 * r2)
    s = np.sin(angle / 2) / angle if angle > 1e-12 else 0.5
    return np.cos(angle / 2), s * r0, s * r1, s * r2


@_compiled
def _product(a, b):
    return (
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    )


@_compiled
def _vector(q):
    """The shortest rotation vector of (w, x, y, z), as its unit axis and its angle."""
    w, x, y, z = q
    if w < 0:
        w, x, y, z = -w, -x, -y, -z
    s = np.sqrt(x * x + y * y + z * z)
    if s < 1e-12:
        return 0.0, 0.0, 1.0, 0.0
    return x / s, y / s, z / s, 2 * np.arctan2(s, w)


@_compiled
def _lay(way, a, shift_a, b, shift_b):
    """The way from pose vector a (6,), shifted (3,), to b: as `run_rollout` interpolates."""
    qa, qb = _quaternion(a[3], a[4], a[5]), _quaternion(b[3], b[4], b[5])
    way[6], way[7], way[8], way[9] = _vector(_product(qb, (qa[0], -qa[1], -qa[2], -qa[3])))
    for k in range(3):
        way[k] = a[k] + shift_a[k]
        way[3 + k] = b[k] + shift_b[k] - way[k]
        way[10 + k] = a[3 + k]


@_compiled
def _rotation_on(way, s):
    angle = s * way[9]
    turn = _quaternion(angle * way[6], angle * way[7], angle * way[8])
    return _product(turn, _quaternion(way[10], way[11], way[12]))


@_compiled
def _pose_on(way, s, T):
    """Write into T (3, 4) the pose at share s of a way."""
    w, x, y, z = _rotation_on(way, s)
    T[0, 0], T[0, 1], T[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    T[1, 0], T[1, 1], T[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    T[2, 0], T[2, 1], T[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    for k in range(3):
        T[k, 3] = way[k] + s * way[3 + k]


@_compiled
def _at(T, points, i):
    """Point i of (n, 3) in a posed frame, in the world."""
    a, b, c = points[i, 0], points[i, 1], points[i, 2]
    return (
        T[0, 0] * a + T[0, 1] * b + T[0, 2] * c + T[0, 3],
        T[1, 0] * a + T[1, 1] * b + T[1, 2] * c + T[1, 3],
        T[2, 0] * a + T[2, 1] * b + T[2, 2] * c + T[2, 3],
    )


# Distances --------------------------------------------------------------------------------------


@_compiled
def _least(tool, solids, slack, T, limit):
    """The least signed distance [m] below `limit` of a posed tool, each solid's increased by its
    `slack`, with the solid and the point; the limit and -1 where there is none."""
    solid, point = -1, -1
    for j in range(len(slack)):
        ball = 0
        while ball < len(tool.next):
            x, y, z = _at(T, tool.centre_m, ball)
            if distance(solids, j, x, y, z) + slack[j] - tool.radius_m[ball] >= limit:
                ball = tool.next[ball]
                continue
            for i in range(tool.points[ball, 0], tool.points[ball, 1]):
                x, y, z = _at(T, tool.points_m, i)
                d = distance(solids, j, x, y, z) + slack[j]
                if d < limit:
                    limit, solid, point = d, j, i
            ball += 1
    return limit, solid, point


@_compiled
def _beyond_a_face(solids, j, p, q):
    """The least distance [m] of two world points to the side of a face of box j that is not the box's,
    for the face where this is largest: so far away is the straight line between them, at least."""
    best = -np.inf
    for k in range(3):
        a = in_frame(solids.T_box_world, j, k, p[0], p[1], p[2])
        b = in_frame(solids.T_box_world, j, k, q[0], q[1], q[2])
        best = max(best, max(min(a, b), min(-a, -b)) - solids.half_extents_m[j, k])
    return best


@_compiled
def _surely_clear(tool, solids, slack, ends, limit, moved, turned):
    """Whether nothing of a tool comes nearer than `limit` between two poses `ends` (2, 3, 4), from the
    middle of which it is at most `moved` [m] and turned by `turned` [rad] away."""
    boxes = solids.T_box_world.shape[0]
    for j in range(len(slack)):
        ball, floor = 0, limit - slack[j]
        while ball < len(tool.next):
            p, q = _at(ends[0], tool.centre_m, ball), _at(ends[1], tool.centre_m, ball)
            # An arc strays from its chord by its radius times the square of half its angle over 2.
            stray = 0.5 * turned * turned * tool.reach_m[ball]
            spare = floor + tool.radius_m[ball]
            if j < boxes and _beyond_a_face(solids, j, p, q) >= spare + stray:
                ball = tool.next[ball]
                continue
            x, y, z = 0.5 * (p[0] + q[0]), 0.5 * (p[1] + q[1]), 0.5 * (p[2] + q[2])
            # From the chord's middle, to which everything that moves is as near as from the arc's.
            far = moved + turned * tool.reach_m[ball] + stray
            if distance(solids, j, x, y, z) >= spare + far:
                ball = tool.next[ball]
                continue
            for i in range(tool.points[ball, 0], tool.points[ball, 1]):
                p, q = _at(ends[0], tool.points_m, i), _at(ends[1], tool.points_m, i)
                if j < boxes and _beyond_a_face(solids, j, p, q) >= floor + stray:
                    continue
                x, y, z = 0.5 * (p[0] + q[0]), 0.5 * (p[1] + q[1]), 0.5 * (p[2] + q[2])
                if distance(solids, j, x, y, z) < floor + far:
                    return False
            ball += 1
    return True


@_compiled
def _least_on_way(tool, solids, slack, way, T, ends):
    """As `_least` below 0, over a whole way, and the share of the way where it is.

    The way is halved until it is surely clear, or so short that a look at its middle does.
    """
    length = np.sqrt(way[3] ** 2 + way[4] ** 2 + way[5] ** 2)
    motion = length + way[9] * tool.reach_m[0]
    finest = 0
    while motion > STEP_M * 2**finest:
        finest += 1
    least, share, solid, point = 0.0, 1.0, -1, -1
    level, n = 0, 0
    while True:
        half = 0.5 / 2**level
        if level < finest:
            _pose_on(way, 2 * n * half, ends[0])
            _pose_on(way, 2 * (n + 1) * half, ends[1])
            if not _surely_clear(tool, solids, slack, ends, least, half * length, half * way[9]):
                level, n = level + 1, 2 * n
                continue
        else:
            s = (2 * n + 1) * half
            _pose_on(way, s, T)
            found, j, i = _least(tool, solids, slack, T, least)
            if j >= 0:
                least, share, solid, point = found, s, j, i
        while n % 2 and level:
            level, n = level - 1, n // 2
        if level == 0:
            return least, share, solid, point
        n += 1


@_compiled
def distances(tool, solids, poses):
    out, T, way = np.empty(len(poses)), np.empty((3, 4)), np.empty(13)
    none, still = np.zeros(solids.T_box_world.shape[0] + len(solids.cell_m)), np.zeros(3)
    for m in range(len(poses)):
        _lay(way, poses[m], still, poses[m], still)
        _pose_on(way, 0.0, T)
        found, solid, _ = _least(tool, solids, none, T, 1.0)
        out[m] = found if solid >= 0 else np.inf
    return out


# Repair -----------------------------------------------------------------------------------------


class Desk(NamedTuple):
    """What the functions below write on; made once, since allocations cost more than what they do."""

    way: np.ndarray
    """(13,)."""
    T: np.ndarray
    """(3, 4)."""
    ends: np.ndarray
    """(2, 3, 4)."""
    shift: np.ndarray
    """(3,) [m] that is being tried."""
    best: np.ndarray
    """(3,)."""
    normal: np.ndarray
    """(3,) of what is most in the way."""
    still: np.ndarray
    """(3,) zero."""
    slack: np.ndarray
    """(solids,) [m] how deep an actuator lies in each at first: so deep it may be on its first way."""
    none: np.ndarray
    """(solids,) zero."""

    @classmethod
    def of(cls, solids: int) -> Desk:
        three = (np.zeros(3) for _ in range(4))
        return cls(
            np.zeros(13), np.zeros((3, 4)), np.zeros((2, 3, 4)), *three, np.zeros(solids),
            np.zeros(solids),
        )  # fmt: skip


@_compiled
def repair(tool, solids, desk, stations):
    """Shift stations (M, n, 6) in place, the first of each row apart; returns which, (M, n) bool."""
    M, n, _ = stations.shape
    changed = np.zeros((M, n), np.bool_)
    for m in range(M):
        row = stations[m]
        _lay(desk.way, row[0], desk.still, row[0], desk.still)
        _pose_on(desk.way, 0.0, desk.T)
        for j in range(len(desk.slack)):
            desk.slack[j] = _depth(tool, solids, j, desk.T)
        for i in range(1, n):
            desk.shift[:] = 0
            least, solid = _need(tool, solids, desk, row, i, False)
            if solid < 0:
                continue
            changed[m, i] = True
            length, both = _shortest_shift(tool, solids, desk, row, i, least, solid)
            if length == np.inf:
                _stop_before(tool, solids, desk, row, i)
                continue
            row[i, :3] += desk.best
            if both:
                row[i - 1, :3] += desk.best
                changed[m, i - 1] = True
    return changed


@_compiled
def _depth(tool, solids, j, T):
    """How deep [m] a posed tool is in solid j."""
    depth = 0.0
    for i in range(len(tool.points_m)):
        x, y, z = _at(T, tool.points_m, i)
        depth = max(depth, -distance(solids, j, x, y, z))
    return depth


@_compiled
def _shortest_shift(tool, solids, desk, row, i, least, solid):
    """Write into `desk.best` the shortest shift found that clears station i; returns its length [m],
    inf if there is none, and whether station i - 1 has to follow.

    Args:
        least: [m] that any shift has to be long; solid: what asks for it.
    """
    boxes, shortest, with_before = solids.T_box_world.shape[0], np.inf, False
    frames = solids.T_box_world if solid < boxes else solids.T_mesh_world
    axes = solid if solid < boxes else solid - boxes
    for both in range(2 if i > 1 else 1):
        for d in range(8):
            if shortest <= max(ENOUGH * least, least + EXACT_M):
                break
            limit = FURTHEST_M if shortest == np.inf else shortest
            if both and not with_before:
                limit = min(limit, shortest / ENOUGH)
            if d == 0:
                length = _shift_along_normals(tool, solids, desk, row, i, both, limit)
            elif d == 1:
                length = _shift_along(tool, solids, desk, row, i, both, limit, 0.0, 0.0, 1.0)
            else:
                k, sign = (d - 2) // 2, 1.0 if d % 2 else -1.0
                x, y, z = frames[axes, k, 0], frames[axes, k, 1], frames[axes, k, 2]
                length = _shift_along(
                    tool, solids, desk, row, i, both, limit, sign * x, sign * y, sign * z
                )
            if length < shortest:
                shortest, with_before = length, both == 1
                desk.best[:] = desk.shift
    return shortest, with_before


@_compiled
def _shift_along(tool, solids, desk, row, i, both, limit, x, y, z):
    """Write into `desk.shift` what clears station i, and i - 1 if `both`, along a direction; returns
    its length [m], inf if that would not be below `limit`."""
    shift, length, least, clear = desk.shift, 0.0, 0.0, np.inf
    for n in range(TRIES):
        shift[0], shift[1], shift[2] = length * x, length * y, length * z
        need, solid = _need(tool, solids, desk, row, i, both)
        if solid < 0:
            clear = length
        else:
            # Whatever the direction, less than the need does not do: nothing clear is passed over.
            least = length + need
        if min(clear, least) >= limit or least >= clear - NEARLY_M:
            break
        # Something thin asks for little at a time; what was too much is taken back by halves.
        length = least if clear < np.inf or n < 3 else max(least, 1.3 * length)
        if clear < np.inf and n % 2:
            length = 0.5 * (least + clear)
    shift[0], shift[1], shift[2] = clear * x, clear * y, clear * z
    return clear if clear < limit else np.inf


@_compiled
def _shift_along_normals(tool, solids, desk, row, i, both, limit):
    """The same along the normals of what is in the way each time."""
    desk.shift[:] = 0
    for _ in range(TRIES):
        need, solid = _need(tool, solids, desk, row, i, both)
        length = np.sqrt(desk.shift[0] ** 2 + desk.shift[1] ** 2 + desk.shift[2] ** 2)
        if solid < 0:
            return length if length < limit else np.inf
        if length >= 2 * limit:
            break
        for k in range(3):
            desk.shift[k] += need * desk.normal[k]
    return np.inf


@_compiled
def _need(tool, solids, desk, stations, i, both):
    """How far [m] station i, shifted by `desk.shift`, must at least be shifted on to be clear, or, if
    it is, the way to it; the solid that asks most for it, or -1. Writes `desk.normal`.

    Args:
        both: station i - 1 is shifted as well.
    """
    way, T, worst, solid = desk.way, desk.T, 0.0, -1
    for k in range(i - 1 if both else i, i + 1):
        _lay(way, stations[k], desk.shift, stations[k], desk.shift)
        _pose_on(way, 0.0, T)
        found, j, point = _least(tool, solids, desk.none, T, MARGIN_M - EXACT_M)
        if j >= 0 and MARGIN_M - found > worst:
            worst, solid = MARGIN_M - found, j
            x, y, z = _at(T, tool.points_m, point)
            outward(solids, j, x, y, z, desk.normal)
    if solid >= 0:
        return worst, solid
    for k in range(i - 1 if both else i, i + 1):
        follows = both and k == i
        _lay(way, stations[k - 1], desk.shift if follows else desk.still, stations[k], desk.shift)
        slack = desk.slack if k == 1 else desk.none
        found, s, j, point = _least_on_way(tool, solids, slack, way, T, desk.ends)
        # A shift of one end moves the middle by half as much.
        need = -found / (1.0 if follows else max(s, 0.125))
        if need > max(worst, EXACT_M):
            worst, solid = need, j
            _pose_on(way, s, T)
            x, y, z = _at(T, tool.points_m, point)
            outward(solids, j, x, y, z, desk.normal)
    return worst, solid


@_compiled
def _stop_before(tool, solids, desk, row, i):
    """Put station i where the way to it is still clear."""
    way = desk.way
    _lay(way, row[i - 1], desk.still, row[i], desk.still)
    length = np.sqrt(way[3] ** 2 + way[4] ** 2 + way[5] ** 2)
    steps = int(np.ceil((length + way[9] * tool.reach_m[0]) / STEP_M))
    clear = 0
    for n in range(1, steps + 1):
        _pose_on(way, n / steps, desk.T)
        if _least(tool, solids, desk.slack if i == 1 else desk.none, desk.T, 0.0)[1] >= 0:
            break
        clear = n
    s = clear / max(steps, 1)
    x, y, z, angle = _vector(_rotation_on(way, s))
    for k in range(3):
        row[i, k] = way[k] + s * way[3 + k]
    row[i, 3], row[i, 4], row[i, 5] = angle * x, angle * y, angle * z
