"""Quadrants kernels of `clouds` that sort points into grids. Import through `runtime.kernels` only.

A grid sorts the points of one cloud by cell: `start[c]` to `start[c + 1]` are the places, in
`sorted`, of the points in cell c, with x running fastest, so that neighbours in x are one range.
`frame` holds a cloud's least corner (3), its extent (3) and the edge of a cell (1) [m]; `size` its
number of cells along x, y, z and of points.

Grids are sorted and looked through by one thread a cloud, as a CPU does.

Quadrants compiles with fast_math, so finiteness is tested on the bits.
"""

import quadrants as qd

F32 = qd.types.ndarray(dtype=qd.f32, ndim=1)
I32 = qd.types.ndarray(dtype=qd.i32, ndim=1)

FRAME = 7
SIZE = 4
CELLS_PER_POINT = 2
FAR2 = 3e38  # a squared distance beyond all others
MARGIN = 1.00001  # rounding must not exclude the nearest point
LIMIT_BITS = 0x5D5E0B6B  # 1e18 as f32: squares of larger numbers overflow


@qd.func
def usable(x, y, z):
    """Whether a point is finite and small enough for squared distances, judged by its bits."""
    a = qd.bit_cast(x, qd.i32) & 0x7FFFFFFF
    b = qd.bit_cast(y, qd.i32) & 0x7FFFFFFF
    c = qd.bit_cast(z, qd.i32) & 0x7FFFFFFF
    return a < LIMIT_BITS and b < LIMIT_BITS and c < LIMIT_BITS


@qd.func
def counts(point: qd.template(), o, box: qd.template(), b, boxed: qd.template()):
    """Whether the point at `o` is usable and within the box at `b`."""
    ok = usable(point[o], point[o + 1], point[o + 2])
    if qd.static(boxed):
        for k in qd.static(range(3)):
            ok = ok and point[o + k] >= box[b + k] and point[o + k] <= box[b + 3 + k]
    return ok


@qd.func
def cell_along(x, inverse_edge, cells):
    """The cell of a coordinate relative to the grid's corner, clamped to the grid."""
    # Clamped as a float first: the cast of a large float is undefined.
    return qd.cast(qd.min(qd.max(x * inverse_edge, 0.0), qd.cast(cells - 1, qd.f32)), qd.i32)


@qd.func
def cells_along(extent, edge, most):
    return qd.cast(qd.min(extent / edge, qd.cast(most, qd.f32)), qd.i32) + 1


@qd.kernel
def bounds(
    # In: points (clouds, N, 3) at these strides, number of points in use (clouds,).
    point: F32,
    stride_cloud: qd.i32,
    stride_point: qd.i32,
    length: I32,
    # Out: (clouds, 6), least and greatest corner; FAR2 and -FAR2 where no point is usable.
    box: F32,
):
    for cloud in range(length.shape[0]):
        low = qd.Vector([FAR2, FAR2, FAR2])
        high = qd.Vector([-FAR2, -FAR2, -FAR2])
        for i in range(length[cloud]):
            o = cloud * stride_cloud + i * stride_point
            if usable(point[o], point[o + 1], point[o + 2]):
                for k in qd.static(range(3)):
                    low[k] = qd.min(low[k], point[o + k])
                    high[k] = qd.max(high[k], point[o + k])
        for k in qd.static(range(3)):
            box[6 * cloud + k] = low[k]
            box[6 * cloud + 3 + k] = high[k]


@qd.kernel
def build_grids(
    # In: points (clouds, N, 3) at these strides, number of points in use (clouds,).
    point: F32,
    stride_cloud: qd.i32,
    stride_point: qd.i32,
    length: I32,
    # In: (clouds, 6), least and greatest corner of what counts; not read unless `boxed`.
    box: F32,
    points: qd.i32,
    cells: qd.i32,
    # Out: (clouds, 7), (clouds, 4), (clouds, cells + 1), (clouds, N, 3) and (clouds, N).
    frame: F32,
    size: I32,
    start: I32,
    sorted: F32,
    order: I32,
    boxed: qd.template(),
):
    for cloud in range(length.shape[0]):
        p0 = cloud * stride_cloud
        count = length[cloud]
        low = qd.Vector([FAR2, FAR2, FAR2])
        high = qd.Vector([-FAR2, -FAR2, -FAR2])
        used = 0
        for i in range(count):
            o = p0 + i * stride_point
            if counts(point, o, box, 6 * cloud, boxed):
                used += 1
                for k in qd.static(range(3)):
                    low[k] = qd.min(low[k], point[o + k])
                    high[k] = qd.max(high[k], point[o + k])
        if used == 0:
            low = qd.Vector([0.0, 0.0, 0.0])
            high = low
        extent = high - low
        longest = qd.max(extent[0], extent[1], extent[2])
        # The smallest cells whose number fits, by bisection of the logarithm of their edge. A few
        # points of many need few cells.
        most = qd.min(cells, qd.max(8, CELLS_PER_POINT * used))
        edge = qd.max(longest, 1e-6) * 1.01
        small = edge / 2097152.0
        for _ in range(24):
            middle = qd.sqrt(small) * qd.sqrt(edge)
            total = qd.cast(cells_along(extent[0], middle, most), qd.f32)
            total *= qd.cast(cells_along(extent[1], middle, most), qd.f32)
            total *= qd.cast(cells_along(extent[2], middle, most), qd.f32)
            if total <= qd.cast(most, qd.f32):
                edge = middle
            else:
                small = middle
        nx = cells_along(extent[0], edge, most)
        ny = cells_along(extent[1], edge, most)
        nz = cells_along(extent[2], edge, most)
        for k in qd.static(range(3)):
            frame[cloud * FRAME + k] = low[k]
            frame[cloud * FRAME + 3 + k] = extent[k]
        frame[cloud * FRAME + 6] = edge
        size[cloud * SIZE] = nx
        size[cloud * SIZE + 1] = ny
        size[cloud * SIZE + 2] = nz
        size[cloud * SIZE + 3] = used
        # Counting sort: count into start[c + 1], accumulate, then place from the back.
        s0 = cloud * (cells + 1)
        for c in range(nx * ny * nz + 1):
            start[s0 + c] = 0
        inverse = 1.0 / edge
        for i in range(count):
            o = p0 + i * stride_point
            if counts(point, o, box, 6 * cloud, boxed):
                cx = cell_along(point[o] - low[0], inverse, nx)
                cy = cell_along(point[o + 1] - low[1], inverse, ny)
                cz = cell_along(point[o + 2] - low[2], inverse, nz)
                start[s0 + (cz * ny + cy) * nx + cx] += 1
        total = 0
        for c in range(nx * ny * nz + 1):
            total += start[s0 + c]
            start[s0 + c] = total
        for k in range(count):
            i = count - 1 - k
            o = p0 + i * stride_point
            if counts(point, o, box, 6 * cloud, boxed):
                cx = cell_along(point[o] - low[0], inverse, nx)
                cy = cell_along(point[o + 1] - low[1], inverse, ny)
                cz = cell_along(point[o + 2] - low[2], inverse, nz)
                c = s0 + (cz * ny + cy) * nx + cx
                place = start[c] - 1
                start[c] = place
                order[cloud * points + place] = i
                for j in qd.static(range(3)):
                    sorted[(cloud * points + place) * 3 + j] = point[o + j]


@qd.func
def scan(sorted: qd.template(), first, last, x, y, z, best):
    """The least of `best` and the squared distances to the points first .. last."""
    nearest = best
    for i in range(first, last):
        dx = sorted[3 * i] - x
        dy = sorted[3 * i + 1] - y
        dz = sorted[3 * i + 2] - z
        nearest = qd.min(nearest, dx * dx + dy * dy + dz * dz)
    return nearest


@qd.func
def gap(x, cell, offset, edge, outside, slack):
    """A lower bound of the distance along one axis from x to the cells at `offset` from its own."""
    d = outside
    if offset > 0:
        d = qd.max(qd.cast(cell + offset, qd.f32) * edge - x - slack, outside)
    elif offset < 0:
        d = qd.max(x - qd.cast(cell + offset + 1, qd.f32) * edge - slack, outside)
    return qd.max(d, 0.0)


@qd.func
def nearest2(
    x, y, z, best, frame: qd.template(), size: qd.template(), start: qd.template(),
    sorted: qd.template(), cloud, points, cells,
):  # fmt: skip
    """The least of `best` and the squared distance [m^2] from a point to the nearest of a cloud.

    The block of cells around the point's own grows shell by shell until nothing outside can be
    nearer than what was found.
    """
    f = cloud * FRAME
    edge = frame[f + 6]
    inverse = 1.0 / edge
    nx = size[cloud * SIZE]
    ny = size[cloud * SIZE + 1]
    nz = size[cloud * SIZE + 2]
    # Relative to the grid's corner, as when the points were sorted.
    rx = x - frame[f]
    ry = y - frame[f + 1]
    rz = z - frame[f + 2]
    ox = qd.max(-rx, rx - frame[f + 3], 0.0)
    oy = qd.max(-ry, ry - frame[f + 4], 0.0)
    oz = qd.max(-rz, rz - frame[f + 5], 0.0)
    cx = cell_along(rx, inverse, nx)
    cy = cell_along(ry, inverse, ny)
    cz = cell_along(rz, inverse, nz)
    # Rounding may put a point into the neighbour of the cell that its coordinates name.
    slack = edge * (1e-5 + 5e-7 * qd.cast(qd.max(nx, ny, nz), qd.f32))
    s0 = cloud * (cells + 1)
    p0 = cloud * points
    result = best
    radius = 1
    going = ox * ox + oy * oy + oz * oz < result * MARGIN
    while going:
        z_from = qd.max(-radius, -cz)
        z_to = qd.min(radius, nz - 1 - cz)
        y_from = qd.max(-radius, -cy)
        y_to = qd.min(radius, ny - 1 - cy)
        x_from = qd.max(cx - radius, 0)
        x_to = qd.min(cx + radius, nx - 1)
        for dz in range(z_from, z_to + 1):
            gz = gap(rz, cz, dz, edge, oz, slack)
            if gz * gz < result * MARGIN:
                for dy in range(y_from, y_to + 1):
                    gy = gap(ry, cy, dy, edge, oy, slack)
                    if gz * gz + gy * gy < result * MARGIN:
                        row = s0 + ((cz + dz) * ny + cy + dy) * nx
                        shell = qd.abs(dz) == radius or qd.abs(dy) == radius
                        if shell or radius == 1:
                            first = p0 + start[row + x_from]
                            last = p0 + start[row + x_to + 1]
                            result = scan(sorted, first, last, x, y, z, result)
                        else:
                            # The middle of this row was seen in an earlier shell.
                            if cx - radius >= 0:
                                first = p0 + start[row + cx - radius]
                                last = p0 + start[row + cx - radius + 1]
                                result = scan(sorted, first, last, x, y, z, result)
                            if cx + radius < nx:
                                first = p0 + start[row + cx + radius]
                                last = p0 + start[row + cx + radius + 1]
                                result = scan(sorted, first, last, x, y, z, result)
        radius += 1
        # What is left lies beyond one of the block's faces that are not the grid's.
        bound = FAR2
        if cx - radius >= 0:
            g = gap(rx, cx, -radius, edge, ox, slack)
            bound = qd.min(bound, g * g + oy * oy + oz * oz)
        if cx + radius < nx:
            g = gap(rx, cx, radius, edge, ox, slack)
            bound = qd.min(bound, g * g + oy * oy + oz * oz)
        if cy - radius >= 0:
            g = gap(ry, cy, -radius, edge, oy, slack)
            bound = qd.min(bound, g * g + ox * ox + oz * oz)
        if cy + radius < ny:
            g = gap(ry, cy, radius, edge, oy, slack)
            bound = qd.min(bound, g * g + ox * ox + oz * oz)
        if cz - radius >= 0:
            g = gap(rz, cz, -radius, edge, oz, slack)
            bound = qd.min(bound, g * g + ox * ox + oy * oy)
        if cz + radius < nz:
            g = gap(rz, cz, radius, edge, oz, slack)
            bound = qd.min(bound, g * g + ox * ox + oy * oy)
        going = bound < result * MARGIN
    return result


@qd.kernel
def nearest(
    # In: the sorted queries (clouds or 1, N, 3), their order and sizes.
    query: F32,
    order: I32,
    query_size: I32,
    queries: qd.i32,
    query_clouds: qd.i32,
    # In: the grids (clouds or 1) to search.
    frame: F32,
    size: I32,
    start: I32,
    sorted: F32,
    points: qd.i32,
    cells: qd.i32,
    target_clouds: qd.i32,
    # Out: (clouds, N) [m^2], in the queries' first order; not touched for unusable queries.
    distance2: F32,
    clouds: qd.i32,
):
    for cloud in range(clouds):
        a = cloud % query_clouds
        b = cloud % target_clouds
        if size[b * SIZE + 3] > 0:
            x0 = 0.0
            y0 = 0.0
            z0 = 0.0
            last = -1.0
            for k in range(query_size[a * SIZE + 3]):
                i = a * queries + k
                x = query[3 * i]
                y = query[3 * i + 1]
                z = query[3 * i + 2]
                # The query before this one was probably close: its nearest point is within reach
                # of this one too. The margin keeps the bound above the truth despite rounding.
                best = FAR2
                if last >= 0.0:
                    dx = x - x0
                    dy = y - y0
                    dz = z - z0
                    reach = last + qd.sqrt(dx * dx + dy * dy + dz * dz)
                    best = reach * reach * 1.0001 + 1e-30
                d2 = nearest2(x, y, z, best, frame, size, start, sorted, b, points, cells)
                last = qd.sqrt(d2)
                x0 = x
                y0 = y
                z0 = z
                distance2[cloud * queries + order[i]] = d2


@qd.kernel
def least(
    # In: as in `nearest`.
    query: F32,
    query_size: I32,
    queries: qd.i32,
    query_clouds: qd.i32,
    frame: F32,
    size: I32,
    start: I32,
    sorted: F32,
    points: qd.i32,
    cells: qd.i32,
    target_clouds: qd.i32,
    # In and out: (clouds,) squared distance [m^2], FAR2 at first.
    distance2: F32,
    clouds: qd.i32,
):
    for cloud in range(clouds):
        a = cloud % query_clouds
        b = cloud % target_clouds
        used = query_size[a * SIZE + 3]
        if size[b * SIZE + 3] > 0 and used > 0:
            # Any pair is a bound that lets most queries end at once.
            i = a * queries
            j = b * points
            best = scan(
                sorted, j, j + 1, query[3 * i], query[3 * i + 1], query[3 * i + 2],
                distance2[cloud],
            )  # fmt: skip
            for k in range(used):
                i = a * queries + k
                best = nearest2(
                    query[3 * i], query[3 * i + 1], query[3 * i + 2], best,
                    frame, size, start, sorted, b, points, cells,
                )  # fmt: skip
            distance2[cloud] = best
