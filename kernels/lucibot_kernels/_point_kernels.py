"""Quadrants kernels of `points`. Import through `runtime.kernels` only."""

import quadrants as qd

F32 = qd.types.ndarray(dtype=qd.f32, ndim=1)
I32 = qd.types.ndarray(dtype=qd.i32, ndim=1)
U8 = qd.types.ndarray(dtype=qd.u8, ndim=1)


@qd.kernel
def pose(
    # In: points (N, 3) of a body's frame, poses (B, 3) and (B, 4).
    point: F32,
    position: F32,
    quaternion: F32,
    points: qd.i32,
    # Out: (B, N, 3).
    out: F32,
):
    for item in range(position.shape[0] // 3 * points):
        b = item // points
        i = item % points
        w = quaternion[4 * b]
        q = qd.Vector([quaternion[4 * b + 1], quaternion[4 * b + 2], quaternion[4 * b + 3]])
        p = qd.Vector([point[3 * i], point[3 * i + 1], point[3 * i + 2]])
        t = 2.0 * q.cross(p)
        placed = p + w * t + q.cross(t)
        for k in qd.static(range(3)):
            out[3 * item + k] = placed[k] + position[3 * b + k]


@qd.kernel
def count(
    # In: masks (B, pixels).
    mask: U8,
    pixels: qd.i32,
    # Out: (B, lanes), how many pixels each lane's stretch of the image has.
    found: I32,
    lanes: qd.i32,
):
    for item in range(found.shape[0]):
        b = item // lanes
        first = qd.cast(item % lanes, qd.i64) * pixels // lanes
        last = (qd.cast(item % lanes, qd.i64) + 1) * pixels // lanes
        n = 0
        for p in range(qd.cast(first, qd.i32), qd.cast(last, qd.i32)):
            n += qd.cast(mask[b * pixels + p] != 0, qd.i32)
        found[item] = n


@qd.kernel
def unproject(
    # In: masks and depths (B, pixels), rays (pixels, 3), the camera's centre (3,).
    mask: U8,
    depth: F32,
    ray: F32,
    centre: F32,
    pixels: qd.i32,
    # In: (B, lanes) pixels before each lane's stretch, (B,) all pixels.
    before: I32,
    total: I32,
    most: qd.i32,
    lanes: qd.i32,
    # Out: (B, most, 3); only what is found is written.
    out: F32,
):
    for item in range(before.shape[0]):
        b = item // lanes
        first = qd.cast(item % lanes, qd.i64) * pixels // lanes
        last = (qd.cast(item % lanes, qd.i64) + 1) * pixels // lanes
        step = qd.max((total[b] + most - 1) // most, 1)
        rank = before[item]
        for p in range(qd.cast(first, qd.i32), qd.cast(last, qd.i32)):
            if mask[b * pixels + p] != 0:
                if rank % step == 0:
                    o = 3 * (b * most + rank // step)
                    for k in qd.static(range(3)):
                        out[o + k] = centre[k] + ray[3 * p + k] * depth[b * pixels + p]
                rank += 1
