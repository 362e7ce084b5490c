"""Quadrants kernels of `groups`. Import through `runtime.kernels` only.

Quadrants compiles with fast_math, so finiteness is tested on the bits.
"""

import quadrants as qd

F32 = qd.types.ndarray(dtype=qd.f32, ndim=1)
I32 = qd.types.ndarray(dtype=qd.i32, ndim=1)

FAR_CELLS = 1e6  # cells beyond are one; the points in them are compared all the same
WIDER = 1.001  # of a cell than the reach: rounding must not part neighbours by two cells


@qd.func
def cell_of(point: qd.template(), o, inverse_edge):
    cell = qd.Vector([0, 0, 0])
    for k in qd.static(range(3)):
        x = qd.floor(point[o + k] * inverse_edge)
        cell[k] = qd.cast(qd.max(qd.min(x, FAR_CELLS), -FAR_CELLS), qd.i32)
    return cell


@qd.func
def bucket(cell, buckets):
    """The bucket of a cell; `buckets` is a power of two. Cells may share one."""
    mixed = cell[0] * 73856093 ^ cell[1] * 19349663 ^ cell[2] * 83492791
    return (mixed ^ (mixed >> 15)) & (buckets - 1)


@qd.func
def root_of(parent: qd.template(), base, i):
    r = i
    while parent[base + r] != r:
        # Halving the path keeps later walks short.
        parent[base + r] = parent[base + parent[base + r]]
        r = parent[base + r]
    return r


@qd.func
def linked(point: qd.template(), o, p, reach_m):
    distance2 = qd.cast(0.0, qd.f64)
    for k in qd.static(range(3)):
        d = qd.cast(point[o + k], qd.f64) - qd.cast(point[p + k], qd.f64)
        distance2 += d * d
    return distance2 <= reach_m * reach_m


@qd.kernel
def groups(
    # In: points (B, N, 3) at these strides.
    point: F32,
    stride_env: qd.i32,
    stride_point: qd.i32,
    points: qd.i32,
    reach_m: qd.f64,
    least: qd.i32,
    buckets: qd.i32,
    # Scratch: (B, buckets + 1), (B, N), (B, N) and (B, N).
    start: I32,
    order: I32,
    parent: I32,
    size: I32,
    # Out: (B, N) and (B,).
    group: I32,
    count: I32,
):
    for b in range(count.shape[0]):
        p0 = b * stride_env
        base = b * points
        s0 = b * (buckets + 1)
        inverse_edge = qd.cast(1.0 / (reach_m * WIDER), qd.f32)
        finite = True
        for i in range(points):
            for k in qd.static(range(3)):
                bits = qd.bit_cast(point[p0 + i * stride_point + k], qd.i32) & 0x7FFFFFFF
                finite = finite and bits < 0x7F800000
        kept = 0
        if finite:
            # Counting sort: count into start[c + 1], accumulate, then place from the back.
            for c in range(buckets + 1):
                start[s0 + c] = 0
            for i in range(points):
                c = bucket(cell_of(point, p0 + i * stride_point, inverse_edge), buckets)
                start[s0 + c] += 1
            total = 0
            for c in range(buckets + 1):
                total += start[s0 + c]
                start[s0 + c] = total
            for i in range(points):
                c = bucket(cell_of(point, p0 + i * stride_point, inverse_edge), buckets)
                start[s0 + c] -= 1
                order[base + start[s0 + c]] = i
                parent[base + i] = i
                size[base + i] = 0
            # A root is the first point of its group: the later of two roots joins the earlier.
            for i in range(points):
                o = p0 + i * stride_point
                cell = cell_of(point, o, inverse_edge)
                for n in range(27):
                    near = cell + qd.Vector([n % 3 - 1, n // 3 % 3 - 1, n // 9 - 1])
                    c = s0 + bucket(near, buckets)
                    for place in range(start[c], start[c + 1]):
                        j = order[base + place]
                        if j < i:
                            if linked(point, o, p0 + j * stride_point, reach_m):
                                r = root_of(parent, base, i)
                                s = root_of(parent, base, j)
                                parent[base + qd.max(r, s)] = qd.min(r, s)
            for i in range(points):
                # Roots come before what hangs on them, so one step leads to the root.
                parent[base + i] = parent[base + parent[base + i]]
                size[base + parent[base + i]] += 1
        for i in range(points):
            group[base + i] = -1
        if finite:
            for r in range(points):
                if parent[base + r] == r and size[base + r] >= least:
                    kept += 1
                    rank = 0
                    for s in range(points):
                        if parent[base + s] == s and size[base + s] >= least:
                            larger = size[base + s] > size[base + r]
                            equal = size[base + s] == size[base + r]
                            if larger or (equal and s < r):
                                rank += 1
                    group[base + r] = rank
            for i in range(points):
                # A root is no later than its points, and keeps its own number.
                group[base + i] = group[base + parent[base + i]]
        count[b] = kept


@qd.func
def first_of(parent: qd.template(), base, i):
    """The root of i as of now, while other threads link, too."""
    r = i
    p = parent[base + r]
    while p != r:
        # A plain store could undo a link that another thread has made meanwhile.
        q = parent[base + p]
        qd.atomic_min(parent[base + r], q)
        r = p
        p = q
    return r


@qd.kernel
def roots(
    # In: points (B, N, 3) at these strides.
    point: F32,
    stride_env: qd.i32,
    stride_point: qd.i32,
    points: qd.i32,
    reach_m: qd.f64,
    # In: 0 .. N - 1 (B, N). Out: the first point of the group of each.
    parent: I32,
    batch: qd.i32,
):
    # No parent comes after its child, so a root is the first point of its group, whatever the order.
    for item in range(batch * points):
        i = item % points
        base = item - i
        p0 = item // points * stride_env
        for j in range(i):
            if linked(point, p0 + i * stride_point, p0 + j * stride_point, reach_m):
                r = first_of(parent, base, i)
                s = first_of(parent, base, j)
                while r != s:
                    first = qd.min(r, s)
                    # What was the later one's parent hangs together with the first one, too.
                    r = qd.atomic_min(parent[base + qd.max(r, s)], first)
                    s = first
    for item in range(batch * points):
        i = item % points
        parent[item] = first_of(parent, item - i, i)
