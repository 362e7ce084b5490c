"""Quadrants kernels of `affordance`. Import through `runtime.kernels` only.

One thread's work is one environment (and one way to turn the hand): sums go one after the other, so
that an environment's bits do not depend on the batch that it is in.
"""

import quadrants as qd

from lucibot_kernels._point_kernels import F32, LIMIT_BITS, U8, rotation


@qd.func
def usable(p):
    """Whether all three coordinates are finite and not absurd."""
    fine = True
    for k in qd.static(range(3)):
        fine = fine and (qd.bit_cast(p[k], qd.i32) & 0x7FFFFFFF) < LIMIT_BITS
    return fine


@qd.func
def vector(array: qd.template(), o):
    return qd.Vector([array[o], array[o + 1], array[o + 2]])


@qd.func
def blurred(square, slack):
    """A length whose square this is; quadratic below the slack."""
    return qd.sqrt(square + slack * slack) - slack


@qd.kernel
def tip_distance(
    # In: area (M, 3) of the body's frame, which of it counts (K, M), poses (K, B, 3) and (K, B, 4).
    area: F32,
    counted: U8,
    position: F32,
    quaternion: F32,
    # In: tips (K, F, 3) [world] and which are seen (K, F), the camera's centre (3,).
    tip: F32,
    seen: U8,
    eye: F32,
    environments: qd.i32,
    points: qd.i32,
    tips: qd.i32,
    depth_share: qd.f32,
    slack: qd.f32,
    blur: qd.f32,
    cap: qd.f32,
    # Out: (K, B), NaN at first.
    out: F32,
):
    for item in range(out.shape[0]):
        k = item // environments
        R = rotation(quaternion, 4 * item)
        t = vector(position, 3 * item)
        e = vector(eye, 0)
        known = 0
        for m in range(points):
            known += qd.cast(counted[k * points + m], qd.i32)
        total = 0.0
        found = 0
        for f in range(tips):
            if seen[k * tips + f] != 0 and known > 0:
                goal = vector(tip, 3 * (k * tips + f))
                sight = (goal - e).normalized()
                cost = cap
                if usable(t) and usable(R @ qd.Vector([1.0, 1.0, 1.0])):
                    # Twice through the area: the nearest first, then what is about as near.
                    least = 1e30
                    for m in range(points):
                        if counted[k * points + m] != 0:
                            p = R @ vector(area, 3 * m) + t - goal
                            along = p.dot(sight)
                            square = p.dot(p) - (1.0 - depth_share * depth_share) * along * along
                            least = qd.min(least, blurred(qd.max(square, 0.0), slack))
                    weight = 0.0
                    mean = 0.0
                    for m in range(points):
                        if counted[k * points + m] != 0:
                            p = R @ vector(area, 3 * m) + t - goal
                            along = p.dot(sight)
                            square = p.dot(p) - (1.0 - depth_share * depth_share) * along * along
                            d = blurred(qd.max(square, 0.0), slack)
                            w = qd.exp((least - d) / blur)
                            weight += w
                            mean += w * d
                    mean /= weight
                    cost = cap * mean / (cap + mean)
                total += cost
                found += 1
        if found > 0:
            out[item] = total / qd.cast(found, qd.f32)


@qd.func
def into_hand(frame: qd.template(), r, p):
    """A point of the body's frame in that of the hand, turned in the r-th way."""
    o = 12 * r
    return qd.Vector([
        frame[o] * p[0] + frame[o + 1] * p[1] + frame[o + 2] * p[2] + frame[o + 3],
        frame[o + 4] * p[0] + frame[o + 5] * p[1] + frame[o + 6] * p[2] + frame[o + 7],
        frame[o + 8] * p[0] + frame[o + 9] * p[1] + frame[o + 10] * p[2] + frame[o + 11],
    ])  # fmt: skip


@qd.kernel
def depth_in_hand(
    # In: points at these strides, (B, N, 3) of the world or, if `posed`, (N, 3) of the frame of a
    # thing with poses (B, 3) and (B, 4).
    point: F32,
    stride_env: qd.i32,
    stride_point: qd.i32,
    points: qd.i32,
    thing_position: F32,
    thing_quaternion: F32,
    # In: poses of the body that is held, the hand's frames (R, 3, 4) in it, half its size (3,).
    position: F32,
    quaternion: F32,
    frame: F32,
    half: F32,
    turns: qd.i32,
    reach: qd.f32,
    # Out: (B, R).
    out: F32,
    posed: qd.template(),
):
    for item in range(out.shape[0]):
        b = item // turns
        r = item % turns
        # From the points' frame to that of the body that is held.
        R = rotation(quaternion, 4 * b).transpose()
        t = -vector(position, 3 * b)
        if qd.static(posed):
            t += vector(thing_position, 3 * b)
        t = R @ t
        if qd.static(posed):
            R = R @ rotation(thing_quaternion, 4 * b)
        hx = half[0]
        hy = half[1]
        hz = half[2]
        squares = 0.0
        cubes = 0.0
        for i in range(points):
            o = b * stride_env + i * stride_point
            p = R @ vector(point, o) + t
            if usable(p) and p.dot(p) < reach * reach:
                q = into_hand(frame, r, p)
                depth = qd.min(hx - qd.abs(q[0]), hy - qd.abs(q[1]), hz - qd.abs(q[2]))
                if depth > 0.0:
                    squares += depth * depth
                    cubes += depth * depth * depth
        if squares > 0.0:
            out[item] = cubes / squares


@qd.func
def distance_at(field: qd.template(), low: qd.template(), inverse, n0, n1, n2, p):
    """The field at a point of the world, between the middles of its cells; beyond them as at the
    border."""
    x = qd.min(qd.max((p[0] - low[0]) * inverse, 0.0), qd.cast(n0 - 1, qd.f32))
    y = qd.min(qd.max((p[1] - low[1]) * inverse, 0.0), qd.cast(n1 - 1, qd.f32))
    z = qd.min(qd.max((p[2] - low[2]) * inverse, 0.0), qd.cast(n2 - 1, qd.f32))
    i = qd.min(qd.cast(x, qd.i32), n0 - 2)
    j = qd.min(qd.cast(y, qd.i32), n1 - 2)
    k = qd.min(qd.cast(z, qd.i32), n2 - 2)
    x -= qd.cast(i, qd.f32)
    y -= qd.cast(j, qd.f32)
    z -= qd.cast(k, qd.f32)
    o = (i * n1 + j) * n2 + k
    a = (field[o] * (1.0 - z) + field[o + 1] * z) * (1.0 - y)
    a += (field[o + n2] * (1.0 - z) + field[o + n2 + 1] * z) * y
    o += n1 * n2
    b = (field[o] * (1.0 - z) + field[o + 1] * z) * (1.0 - y)
    b += (field[o + n2] * (1.0 - z) + field[o + n2 + 1] * z) * y
    return a * (1.0 - x) + b * x


@qd.kernel
def depth_in_solids(
    # In: samples of the hand in each way it may turn (R, S, 3), of the frame of the body that is
    # held; that body's poses.
    sample: F32,
    samples: qd.i32,
    turns: qd.i32,
    position: F32,
    quaternion: F32,
    # In: distances (n0, n1, n2), negative inside, the middle of its first cell (3,), 1 / cell.
    field: F32,
    low: F32,
    inverse: qd.f32,
    n0: qd.i32,
    n1: qd.i32,
    n2: qd.i32,
    # Out: (B, R).
    out: F32,
):
    for item in range(out.shape[0]):
        b = item // turns
        r = item % turns
        R = rotation(quaternion, 4 * b)
        t = vector(position, 3 * b)
        squares = 0.0
        cubes = 0.0
        if usable(t) and usable(R @ qd.Vector([1.0, 1.0, 1.0])):
            for s in range(samples):
                p = R @ vector(sample, 3 * (r * samples + s)) + t
                depth = -distance_at(field, low, inverse, n0, n1, n2, p)
                if depth > 0.0:
                    squares += depth * depth
                    cubes += depth * depth * depth
        if squares > 0.0:
            out[item] = cubes / squares
