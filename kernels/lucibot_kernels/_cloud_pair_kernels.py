"""Quadrants kernels of `clouds` that compare all points. Import through `runtime.kernels` only.

A CPU compares small clouds so, several points in one instruction. A GPU compares all clouds so: the
threads of a warp look at the same point and read it once.
"""

import quadrants as qd

from lucibot_kernels._cloud_grid_kernels import F32, FAR2, I32, usable

APART = 1e19  # where points are put that do not exist; 9e18 from all others or more
APART2 = 5e37  # a squared distance beyond those of points that do exist
TOGETHER = 4  # queries of one thread that share a look through a cloud


@qd.kernel
def pack(
    # In: points (clouds, N, 3) at these strides, number of points in use (clouds,).
    point: F32,
    stride_cloud: qd.i32,
    stride_point: qd.i32,
    length: I32,
    points: qd.i32,
    # Out: the usable points' coordinates (clouds, 3, N), their places among all (clouds, N), and how
    # many they are (clouds,).
    packed: F32,
    order: I32,
    used: I32,
):
    for cloud in range(used.shape[0]):
        count = 0
        for i in range(length[cloud]):
            o = cloud * stride_cloud + i * stride_point
            if usable(point[o], point[o + 1], point[o + 2]):
                for k in qd.static(range(3)):
                    packed[(cloud * 3 + k) * points + count] = point[o + k]
                order[cloud * points + count] = i
                count += 1
        used[cloud] = count


@qd.func
def nearest2_of_all(
    query: qd.template(), queries, p, first, last, target: qd.template(), points, q, count,
    together: qd.template(),
):  # fmt: skip
    """Squared distances [m^2] from `together` packed queries, the first one `first`, to the nearest
    of the first `count` packed points of a cloud; those behind `last` repeat it."""
    x0 = q * 3 * points
    y0 = x0 + points
    z0 = y0 + points
    at = qd.Vector([p * 3 * queries + qd.min(first + k, last) for k in range(together)])
    x = qd.Vector([query[at[k]] for k in range(together)])
    y = qd.Vector([query[at[k] + queries] for k in range(together)])
    z = qd.Vector([query[at[k] + 2 * queries] for k in range(together)])
    best = qd.Vector([FAR2 for _ in range(together)])
    for j in range(count):
        for k in qd.static(range(together)):
            dx = target[x0 + j] - x[k]
            dy = target[y0 + j] - y[k]
            dz = target[z0 + j] - z[k]
            best[k] = qd.min(best[k], dx * dx + dy * dy + dz * dz)
    return best


@qd.kernel
def nearest_of_all(
    # In: packed queries (clouds or 1, 3, N) with their order and sizes.
    query: F32,
    order: I32,
    query_used: I32,
    queries: qd.i32,
    # In: the packed clouds (clouds or 1, 3, M) to look through, and their sizes.
    target: F32,
    target_used: I32,
    points: qd.i32,
    # Out: (clouds, N) [m^2], in the queries' first order; not touched for unusable queries.
    distance2: F32,
    clouds: qd.i32,
):
    for cloud in range(clouds):
        p = cloud % query_used.shape[0]
        q = cloud % target_used.shape[0]
        used = query_used[p]
        if target_used[q] > 0:
            for block in range((used + TOGETHER - 1) // TOGETHER):
                first = TOGETHER * block
                best = nearest2_of_all(
                    query, queries, p, first, used - 1, target, points, q, target_used[q], TOGETHER
                )
                for k in qd.static(range(TOGETHER)):
                    i = p * queries + qd.min(first + k, used - 1)
                    distance2[cloud * queries + order[i]] = best[k]


@qd.kernel
def place(
    # In: points (clouds, N, 3) at these strides, number of points in use (clouds,).
    point: F32,
    stride_cloud: qd.i32,
    stride_point: qd.i32,
    length: I32,
    points: qd.i32,
    # Out: coordinates (clouds, 3, N), APART for points that are not usable.
    placed: F32,
):
    for item in range(length.shape[0] * points):
        cloud = item // points
        i = item % points
        o = cloud * stride_cloud + i * stride_point
        p = qd.Vector([APART, 0.0, 0.0])
        if i < length[cloud] and usable(point[o], point[o + 1], point[o + 2]):
            p = qd.Vector([point[o], point[o + 1], point[o + 2]])
        for k in qd.static(range(3)):
            placed[(cloud * 3 + k) * points + i] = p[k]


@qd.kernel
def nearest_of_all_parallel(
    # In: placed queries (clouds or 1, 3, N) and the placed clouds (clouds or 1, 3, M) to look
    # through.
    query: F32,
    queries: qd.i32,
    query_clouds: qd.i32,
    target: F32,
    points: qd.i32,
    target_clouds: qd.i32,
    # Out: (clouds, N) [m^2]; not touched for unusable queries and those without a neighbour.
    distance2: F32,
    clouds: qd.i32,
    together: qd.template(),
):
    blocks = (queries + together - 1) // together
    for item in range(clouds * blocks):
        cloud = item // blocks
        p = cloud % query_clouds
        first = item % blocks * together
        best = nearest2_of_all(
            query, queries, p, first, queries - 1, target, points, cloud % target_clouds, points,
            together,
        )  # fmt: skip
        for k in qd.static(range(together)):
            if (
                first + k < queries
                and query[p * 3 * queries + first + k] < APART
                and best[k] < APART2
            ):
                distance2[cloud * queries + first + k] = best[k]
