"""Quadrants functions and kernels of `gradients` that have to do with poses and points. Import through
`runtime.kernels` only.

All of them work in the type of the arrays that they are given, float32 or, to be checked against finite
differences, float64: `double` says which. A literal is a float32 by itself, so sums begin with `real`.
"""

import quadrants as qd

REAL = qd.types.ndarray(ndim=1)  # f32 or f64
I32 = qd.types.ndarray(dtype=qd.i32, ndim=1)
U8 = qd.types.ndarray(dtype=qd.u8, ndim=1)

FAR2 = 3e38
CHUNK = 64  # points that are compared in a row before it is asked whether the nearest is among them


@qd.func
def real(x, double: qd.template()):
    """A number in the type of the arrays."""
    if qd.static(double):
        return qd.cast(x, qd.f64)
    else:
        return qd.cast(x, qd.f32)


@qd.func
def vector(array: qd.template(), o):
    return qd.Vector([array[o], array[o + 1], array[o + 2]])


@qd.func
def add(array: qd.template(), o, value, serial: qd.template()):
    """Adds to an entry, which on a GPU others may be adding to."""
    if qd.static(serial):
        array[o] = array[o] + value
    else:
        qd.atomic_add(array[o], value)


@qd.func
def add_vector(array: qd.template(), o, value, serial: qd.template()):
    for k in qd.static(range(3)):
        add(array, o + k, value[k], serial)


@qd.func
def rotation(quaternion: qd.template(), o):
    """The matrix of the quaternion at `o`, which need not be normalised."""
    w = quaternion[o]
    x = quaternion[o + 1]
    y = quaternion[o + 2]
    z = quaternion[o + 3]
    s = 2 / (w * w + x * x + y * y + z * z)
    return qd.Matrix(
        [
            [1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)],
            [s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)],
            [s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)],
        ]
    )


@qd.func
def quaternion_gradient(quaternion: qd.template(), o, G):
    """From the gradient G (3, 3) of the matrix to that of the quaternion (4,) at `o`."""
    w = quaternion[o]
    v = vector(quaternion, o + 1)
    n = 1 / qd.sqrt(w * w + v.dot(v))
    w *= n
    v *= n
    # R p = p + 2 w (v x p) + 2 v x (v x p), summed over points p with gradients g, G = sum of g p^T.
    c = qd.Vector([G[2, 1] - G[1, 2], G[0, 2] - G[2, 0], G[1, 0] - G[0, 1]])
    dw = 2 * v.dot(c)
    dv = 2 * w * c + 2 * (G @ v + G.transpose() @ v - 2 * G.trace() * v)
    along = dw * w + dv.dot(v)
    dw = (dw - along * w) * n
    dv = (dv - along * v) * n
    return qd.Vector([dw, dv[0], dv[1], dv[2]])


@qd.kernel
def nearest_index(
    # In: queries (clouds, 3, N) and the clouds (clouds, 3, M) to look through.
    query: REAL,
    queries: qd.i32,
    target: REAL,
    points: qd.i32,
    clouds: qd.i32,
    # Out: (clouds, N) [m^2], and the nearest point, the first of equals.
    distance2: REAL,
    index: I32,
    together: qd.template(),
    double: qd.template(),
):
    blocks = (queries + together - 1) // together
    for item in range(clouds * blocks):
        cloud = item // blocks
        first = item % blocks * together
        p = 3 * cloud * queries
        x0 = 3 * cloud * points
        y0 = x0 + points
        z0 = y0 + points
        at = qd.Vector([p + qd.min(first + k, queries - 1) for k in range(together)])
        x = qd.Vector([query[at[k]] for k in range(together)])
        y = qd.Vector([query[at[k] + queries] for k in range(together)])
        z = qd.Vector([query[at[k] + 2 * queries] for k in range(together)])
        best = qd.Vector([real(FAR2, double) for _ in range(together)])
        chunk = qd.Vector([0 for _ in range(together)])
        for c in range((points + CHUNK - 1) // CHUNK):
            low = qd.Vector([real(FAR2, double) for _ in range(together)])
            for j in range(c * CHUNK, qd.min((c + 1) * CHUNK, points)):
                for k in qd.static(range(together)):
                    dx = target[x0 + j] - x[k]
                    dy = target[y0 + j] - y[k]
                    dz = target[z0 + j] - z[k]
                    low[k] = qd.min(low[k], dx * dx + dy * dy + dz * dz)
            for k in qd.static(range(together)):
                if low[k] < best[k]:
                    best[k] = low[k]
                    chunk[k] = c
        for k in qd.static(range(together)):
            if first + k < queries:
                least = real(FAR2, double)
                found = chunk[k] * CHUNK
                for j in range(chunk[k] * CHUNK, qd.min((chunk[k] + 1) * CHUNK, points)):
                    dx = target[x0 + j] - x[k]
                    dy = target[y0 + j] - y[k]
                    dz = target[z0 + j] - z[k]
                    d2 = dx * dx + dy * dy + dz * dz
                    if d2 < least:
                        least = d2
                        found = j
                distance2[cloud * queries + first + k] = least
                index[cloud * queries + first + k] = found


@qd.kernel
def pull_to_nearest(
    # In: points (clouds, N, 3) and others (clouds, M, 3), the nearest other of each (clouds, N), what
    # each point's distance weighs (clouds, N).
    point: REAL,
    points: qd.i32,
    other: REAL,
    others: qd.i32,
    index: I32,
    weight: REAL,
    clouds: qd.i32,
    # In and out: the gradients (clouds, N, 3) and (clouds, M, 3), added to.
    point_gradient: REAL,
    other_gradient: REAL,
    lanes: qd.i32,
    serial: qd.template(),
    double: qd.template(),
):
    for item in range(clouds * lanes):
        cloud = item // lanes
        for turn in range((points - item % lanes + lanes - 1) // lanes):
            i = cloud * points + item % lanes + turn * lanes
            if weight[i] != 0:
                j = cloud * others + index[i]
                apart = vector(point, 3 * i) - vector(other, 3 * j)
                d = apart.norm()
                # Where points meet, the distance has no direction to grow in: none is taken.
                if d > 0:
                    g = weight[i] / d * apart
                    add_vector(point_gradient, 3 * i, g, True)
                    add_vector(other_gradient, 3 * j, -g, serial)


@qd.kernel
def pose(
    # In: points (N, 3) of bodies' frames, the body of each (N,), poses (B, Nb, 3) and (B, Nb, 4).
    rest: REAL,
    body: I32,
    points: qd.i32,
    position: REAL,
    quaternion: REAL,
    bodies: qd.i32,
    # Out: (B, N, 3) of the world.
    out: REAL,
    batch: qd.i32,
):
    for item in range(batch * points):
        n = item % points
        at = item // points * bodies + body[n]
        p = rotation(quaternion, 4 * at) @ vector(rest, 3 * n) + vector(position, 3 * at)
        for k in qd.static(range(3)):
            out[3 * item + k] = p[k]


@qd.kernel
def pose_backward(
    # In: as in `pose`, and the gradient (B, N, 3) of what came out.
    rest: REAL,
    body: I32,
    points: qd.i32,
    position: REAL,
    quaternion: REAL,
    bodies: qd.i32,
    gradient: REAL,
    # Out: (B, Nb, 3) and (B, Nb, 4).
    position_gradient: REAL,
    quaternion_gradients: REAL,
    batch: qd.i32,
    double: qd.template(),
):
    for item in range(batch * bodies):
        first = item // bodies * points
        total = qd.Vector([real(0, double) for _ in range(3)])
        G = qd.Matrix([[real(0, double) for _ in range(3)] for _ in range(3)])
        for n in range(points):
            if body[n] == item % bodies:
                g = vector(gradient, 3 * (first + n))
                total += g
                G += g.outer_product(vector(rest, 3 * n))
        q = quaternion_gradient(quaternion, 4 * item, G)
        for k in qd.static(range(3)):
            position_gradient[3 * item + k] = total[k]
        for k in qd.static(range(4)):
            quaternion_gradients[4 * item + k] = q[k]


@qd.func
def tip_square(p, sight, depth_share):
    """Squared distance of a point from a tip, of which what lies along the sight counts less."""
    along = p.dot(sight)
    return qd.max(p.dot(p) - (1 - depth_share * depth_share) * along * along, 0)


@qd.kernel
def tip_distance(
    # In: as in `_affordance_kernels.tip_distance`, and which poses are usable (K, B).
    area: REAL,
    counted: U8,
    position: REAL,
    quaternion: REAL,
    usable: U8,
    tip: REAL,
    seen: U8,
    eye: REAL,
    environments: qd.i32,
    points: qd.i32,
    tips: qd.i32,
    depth_share: qd.f64,
    slack_m: qd.f64,
    blur_m: qd.f64,
    cap_m: qd.f64,
    # Out: (K, B), NaN at first, and its gradient (K, B, 3) and (K, B, 4), zero at first.
    out: REAL,
    position_gradient: REAL,
    quaternion_gradients: REAL,
    double: qd.template(),
):
    for item in range(out.shape[0]):
        k = item // environments
        share = real(depth_share, double)
        slack = real(slack_m, double)
        blur = real(blur_m, double)
        cap = real(cap_m, double)
        known = 0
        for m in range(points):
            known += qd.cast(counted[k * points + m], qd.i32)
        total = real(0, double)
        found = 0
        dt = qd.Vector([real(0, double) for _ in range(3)])
        G = qd.Matrix([[real(0, double) for _ in range(3)] for _ in range(3)])
        for f in range(tips):
            if seen[k * tips + f] != 0 and known > 0:
                cost = cap
                if usable[item] != 0:
                    R = rotation(quaternion, 4 * item)
                    t = vector(position, 3 * item)
                    goal = vector(tip, 3 * (k * tips + f))
                    sight = (goal - vector(eye, 0)).normalized()
                    least = real(1e30, double)
                    for m in range(points):
                        if counted[k * points + m] != 0:
                            p = R @ vector(area, 3 * m) + t - goal
                            square = tip_square(p, sight, share)
                            least = qd.min(least, qd.sqrt(square + slack * slack) - slack)
                    weight = real(0, double)
                    mean = real(0, double)
                    for m in range(points):
                        if counted[k * points + m] != 0:
                            p = R @ vector(area, 3 * m) + t - goal
                            square = tip_square(p, sight, share)
                            d = qd.sqrt(square + slack * slack) - slack
                            w = qd.exp((least - d) / blur)
                            weight += w
                            mean += w * d
                    mean /= weight
                    cost = cap * mean / (cap + mean)
                    slope = cap * cap / ((cap + mean) * (cap + mean))
                    for m in range(points):
                        if counted[k * points + m] != 0:
                            x = vector(area, 3 * m)
                            p = R @ x + t - goal
                            root = qd.sqrt(tip_square(p, sight, share) + slack * slack)
                            d = root - slack
                            w = qd.exp((least - d) / blur) / weight * (1 - (d - mean) / blur)
                            g = p - (1 - share * share) * p.dot(sight) * sight
                            g *= slope * w / root
                            dt += g
                            G += g.outer_product(x)
                total += cost
                found += 1
        if found > 0:
            n = 1 / real(found, double)
            out[item] = total * n
            if usable[item] != 0:
                q = quaternion_gradient(quaternion, 4 * item, G)
                for c in qd.static(range(3)):
                    position_gradient[3 * item + c] = dt[c] * n
                for c in qd.static(range(4)):
                    quaternion_gradients[4 * item + c] = q[c] * n
