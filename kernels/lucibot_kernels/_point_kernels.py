"""Quadrants kernels of `points`. Import through `runtime.kernels` only."""

import quadrants as qd

LIMIT_BITS = 0x49742400  # 1e6 as f32: what lies farther away is diverged, near nothing

F32 = qd.types.ndarray(dtype=qd.f32, ndim=1)
I32 = qd.types.ndarray(dtype=qd.i32, ndim=1)
U8 = qd.types.ndarray(dtype=qd.u8, ndim=1)
WORDS = qd.types.ndarray(ndim=1)  # i64 (eight pixels) or u8 (one)


@qd.func
def stretch(lane, lanes, words):
    """First and last word, exclusive, of a lane's stretch of an image."""
    first = qd.cast(lane, qd.i64) * words // lanes
    last = (qd.cast(lane, qd.i64) + 1) * words // lanes
    return qd.cast(first, qd.i32), qd.cast(last, qd.i32)


@qd.kernel
def count(
    # In: masks (B, words, size).
    mask: U8,
    words: qd.i32,
    # Out: (B, lanes), how many pixels each lane's stretch of the image has.
    found: I32,
    lanes: qd.i32,
    size: qd.template(),
):
    for item in range(found.shape[0]):
        first, last = stretch(item % lanes, lanes, words)
        o = item // lanes * words * size
        n = 0
        for p in range(first * size, last * size):
            n += qd.cast(mask[o + p] != 0, qd.i32)
        found[item] = n


@qd.kernel
def unproject(
    # In: masks (B, words, size), the same as words of `size` pixels (B, words), depths (B, pixels),
    # rays (pixels, 3), the camera's centre (3,).
    mask: U8,
    word: WORDS,
    depth: F32,
    ray: F32,
    centre: F32,
    words: qd.i32,
    # In: (B, lanes) pixels before each lane's stretch, (B,) all pixels.
    before: I32,
    total: I32,
    most: qd.i32,
    lanes: qd.i32,
    # Out: (B, most, 3); only what is found is written.
    out: F32,
    size: qd.template(),
):
    for item in range(before.shape[0]):
        b = item // lanes
        first, last = stretch(item % lanes, lanes, words)
        # Of n pixels m are kept, the i-th of them is number i * n / m; see `thinning.even_ranks`.
        n = qd.max(total[b], 1)
        m = qd.min(n, most)
        whole = n // m
        rest = n % m
        start = qd.cast(before[item], qd.i64)
        at_least = (start * m + n - 1) // n
        slot = qd.cast(at_least, qd.i32)
        # The next pixel that gives a point is found by counting down, and the remainder of its
        # number's division is carried along: dividing would take most of the time.
        left = qd.cast(at_least * n // m - start, qd.i32)
        carried = qd.cast(at_least * n % m, qd.i32)
        for w in range(first, last):
            # Most words of an image are empty.
            if word[b * words + w] != 0:
                for k in range(size):
                    p = w * size + k
                    at = b * words * size + p
                    if mask[at] != 0:
                        if left == 0:
                            o = 3 * (b * most + slot)
                            for i in qd.static(range(3)):
                                out[o + i] = centre[i] + ray[3 * p + i] * depth[at]
                            left = whole
                            carried += rest
                            if carried >= m:
                                carried -= m
                                left += 1
                            slot += 1
                        left -= 1


@qd.func
def rotation(quaternion: qd.template(), o):
    """The matrix of the unit quaternion at `o`."""
    w = quaternion[o]
    x = quaternion[o + 1]
    y = quaternion[o + 2]
    z = quaternion[o + 3]
    return qd.Matrix(
        [
            [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
            [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)],
            [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)],
        ]
    )


@qd.kernel
def near_surface(
    # In: points at these strides, (B, N, 3) of the world or, if `posed`, (N, 3) of a body's frame
    # with poses (B, 3) and (B, 4).
    point: F32,
    stride_env: qd.i32,
    stride_point: qd.i32,
    points: qd.i32,
    position: F32,
    quaternion: F32,
    # In: the surface's points (M, 3) sorted by cell, the place of each cell's first (cells + 1,),
    # whether a cell or one beside it has any (cells,); least corner and size of the grid; poses.
    surface: F32,
    start: I32,
    near: U8,
    x_low: qd.f32,
    y_low: qd.f32,
    z_low: qd.f32,
    edge_m: qd.f32,
    nx: qd.i32,
    ny: qd.i32,
    nz: qd.i32,
    reach_m: qd.f32,
    surface_position: F32,
    surface_quaternion: F32,
    # Out: (B,), 0 at first.
    out: I32,
    posed: qd.template(),
    lanes: qd.i32,
):
    for item in range(out.shape[0] * lanes):
        b = item // lanes
        # From the points' frame to the surface's.
        R = rotation(surface_quaternion, 4 * b).transpose()
        t = -qd.Vector([
            surface_position[3 * b], surface_position[3 * b + 1], surface_position[3 * b + 2]
        ])  # fmt: skip
        if qd.static(posed):
            t += qd.Vector([position[3 * b], position[3 * b + 1], position[3 * b + 2]])
        t = R @ t - qd.Vector([x_low, y_low, z_low])
        if qd.static(posed):
            R = R @ rotation(quaternion, 4 * b)
        inverse = 1.0 / edge_m
        found = 0
        i = item % lanes
        while i < points and found == 0:
            o = b * stride_env + i * stride_point
            p = R @ qd.Vector([point[o], point[o + 1], point[o + 2]]) + t
            inside = True
            for k in qd.static(range(3)):
                inside = inside and (qd.bit_cast(p[k], qd.i32) & 0x7FFFFFFF) < LIMIT_BITS
            if inside:
                # Cells on the grid's border are empty, so what is outside is near to nothing.
                x = qd.cast(qd.floor(p[0] * inverse), qd.i32)
                y = qd.cast(qd.floor(p[1] * inverse), qd.i32)
                z = qd.cast(qd.floor(p[2] * inverse), qd.i32)
                inside = x >= 0 and x < nx and y >= 0 and y < ny and z >= 0 and z < nz
                if inside and near[(z * ny + y) * nx + x] != 0:
                    for dz in range(qd.max(z - 1, 0), qd.min(z + 2, nz)):
                        for dy in range(qd.max(y - 1, 0), qd.min(y + 2, ny)):
                            row = (dz * ny + dy) * nx
                            first = start[row + qd.max(x - 1, 0)]
                            last = start[row + qd.min(x + 2, nx)]
                            for j in range(first, last):
                                ex = surface[3 * j] - x_low - p[0]
                                ey = surface[3 * j + 1] - y_low - p[1]
                                ez = surface[3 * j + 2] - z_low - p[2]
                                if ex * ex + ey * ey + ez * ez < reach_m * reach_m:
                                    found = 1
            i += lanes
        if found == 1:
            # Threads that write it write the same.
            out[b] = 1
