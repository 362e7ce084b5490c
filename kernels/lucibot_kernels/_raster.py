"""Quadrants functions that `_observe_kernels` draws with: one body, vertex, face or particle each.

A z-buffer word is (depth bits << 32) | (primitive << 8) | label, the last two being a primitive's
`tag`. For positive floats the order of the bits is the order of the numbers, so the least word is
the nearest primitive, and the lowest index on a tie; hence the result does not depend on the order
of drawing. A vertex is a record of six numbers (x, y, u, z, v, 1/z), in camera coordinates [m] and
pixels.

Only pixels in a window (x0, y0, x1, y1), the last exclusive, are drawn.

`lanes` threads share the rows of a primitive; `serial` means that nobody else draws into this
z-buffer, so that no atomics are needed.

Quadrants compiles with fast_math, where a comparison with NaN may be folded away: finiteness is
therefore tested on the bits.
"""

import quadrants as qd

NEAR_M = 0.01
LIMIT_BITS = 0x49742400  # 1e6 as f32: what lies farther away is diverged, not drawn
AHEAD = 3  # offset of z in the record of a vertex


@qd.func
def tame(x):
    """Whether x is finite and below 1e6 in magnitude, judged by its bits."""
    return (qd.bit_cast(x, qd.i32) & 0x7FFFFFFF) < LIMIT_BITS


@qd.func
def put(zbuffer: qd.template(), index, z, tag, serial: qd.template()):
    word = (qd.cast(qd.bit_cast(z, qd.i32), qd.i64) << 32) | qd.cast(tag, qd.i64)
    if qd.static(serial):
        # Without a branch, so that the compiler can draw several pixels at once.
        zbuffer[index] = qd.min(zbuffer[index], word)
    else:
        if word < zbuffer[index]:
            qd.atomic_min(zbuffer[index], word)


@qd.func
def span(low, high, g, w, e):
    """Narrow low..high to the x where g * x + w >= e."""
    if qd.abs(g) > 1e-20:
        x = (e - w) / g
        if g > 0.0:
            low = qd.max(low, x)
        else:
            high = qd.min(high, x)
    elif w < e:
        high = -1.0
    return low, high


@qd.func
def fill_triangle(
    zbuffer: qd.template(),
    base,
    width,
    height,
    a,
    b,
    c,
    tag,
    cull,
    window,
    lane,
    lanes: qd.template(),
    serial: qd.template(),
):
    """Draw one triangle whose corners are (u, v, 1/z), in front of the near plane.

    Only pixels in the window count; all others are as if it were the whole image, to the bit.
    """
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    # Since v points down, corners that turn counter-clockwise to the eye have a negative area.
    if area < -1e-12 or (cull == 0 and area > 1e-12):
        low_u = qd.min(a[0], b[0], c[0])
        low_v = qd.min(a[1], b[1], c[1])
        high_u = qd.max(a[0], b[0], c[0])
        high_v = qd.max(a[1], b[1], c[1])
        # Pixels whose centres lie in the box; clamped as floats, because casts overflow.
        w = qd.cast(width, qd.f32)
        h = qd.cast(height, qd.f32)
        x0 = qd.cast(qd.ceil(qd.min(qd.max(low_u, 0.0), w + 1.0) - 0.5), qd.i32)
        y0 = qd.cast(qd.ceil(qd.min(qd.max(low_v, 0.0), h + 1.0) - 0.5), qd.i32)
        x1 = qd.cast(qd.floor(qd.max(qd.min(high_u, w), -1.0) - 0.5), qd.i32)
        y1 = qd.cast(qd.floor(qd.max(qd.min(high_v, h), -1.0) - 0.5), qd.i32)
        # Coordinates relative to the first pixel centre keep the products below small and exact.
        u = qd.cast(x0, qd.f32) + 0.5
        v = qd.cast(y0, qd.f32) + 0.5
        ax = a[0] - u
        ay = a[1] - v
        bx = b[0] - u
        by = b[1] - v
        cx = c[0] - u
        cy = c[1] - v
        from_row = qd.max(window[1] - y0, 0)
        from_column = qd.max(window[0] - x0, 0)
        to_row = qd.min(window[3], y1 + 1) - y0
        to_column = qd.min(window[2], x1 + 1) - x0
        if to_column > from_column and to_row > from_row:
            s = 1.0 / area
            # Barycentric weights, affine in the pixel: w = g * x + h * y + k.
            ga = (by - cy) * s
            ha = (cx - bx) * s
            ka = (bx * cy - by * cx) * s
            gb = (cy - ay) * s
            hb = (ax - cx) * s
            kb = (cx * ay - cy * ax) * s
            gc = (ay - by) * s
            hc = (bx - ax) * s
            kc = (ax * by - ay * bx) * s
            # Rounding must not open cracks between neighbours: pixels on an edge belong to both.
            eps = -1e-6 * qd.abs(s)
            ea = eps * (qd.abs(bx * cy) + qd.abs(by * cx))
            eb = eps * (qd.abs(cx * ay) + qd.abs(cy * ax))
            ec = eps * (qd.abs(ax * by) + qd.abs(ay * bx))
            # 1/z is affine on the screen too; slivers extrapolate it, so it is kept between corners.
            gz = ga * a[2] + gb * b[2] + gc * c[2]
            hz = ha * a[2] + hb * b[2] + hc * c[2]
            kz = ka * a[2] + kb * b[2] + kc * c[2]
            low_z = qd.min(a[2], b[2], c[2])
            high_z = qd.max(a[2], b[2], c[2])
            # Line by line, along rows or columns, whichever are fewer: most faces are slivers.
            tall = y1 - y0 > x1 - x0
            step_p = qd.select(tall, 1, width)
            step_q = qd.select(tall, width, 1)
            from_p = qd.select(tall, from_column, from_row)
            to_p = qd.select(tall, to_column, to_row)
            from_q = qd.select(tall, from_row, from_column)
            to_q = qd.select(tall, to_row, to_column)
            last = qd.cast(qd.select(tall, y1 - y0, x1 - x0), qd.f32)
            if tall:
                ga, ha = ha, ga
                gb, hb = hb, gb
                gc, hc = hc, gc
                gz, hz = hz, gz
            first = base + y0 * width + x0
            for r in range((to_p - from_p - lane + lanes - 1) // lanes):
                j = from_p + lane + r * lanes
                p = qd.cast(j, qd.f32)
                low, high = span(0.0, last, ga, ha * p + ka, ea)
                low, high = span(low, high, gb, hb * p + kb, eb)
                low, high = span(low, high, gc, hc * p + kc, ec)
                z0 = hz * p + kz
                line = first + j * step_p
                # `low` may lie beyond the line, but `high` does not, so the casts are safe.
                i0 = qd.cast(qd.ceil(qd.min(low, last + 1.0)), qd.i32)
                i1 = qd.cast(qd.floor(qd.max(high, -1.0)), qd.i32)
                for i in range(qd.max(i0, from_q), qd.min(i1 + 1, to_q)):
                    inverse_z = qd.max(qd.min(gz * qd.cast(i, qd.f32) + z0, high_z), low_z)
                    put(zbuffer, line + i * step_q, 1.0 / inverse_z, tag, serial)


@qd.func
def crossing(camera, vertex: qd.template(), p, q):
    """Where the edge from p (ahead of the near plane) to q (behind it) crosses: (u, v, 1/z)."""
    z = vertex[p + AHEAD]
    t = (z - NEAR_M) / (z - vertex[q + AHEAD])
    x = vertex[p] + t * (vertex[q] - vertex[p])
    y = vertex[p + 1] + t * (vertex[q + 1] - vertex[p + 1])
    return qd.Vector(
        [camera[0] * x / NEAR_M + camera[2], camera[1] * y / NEAR_M + camera[3], 1.0 / NEAR_M]
    )


@qd.func
def corner(vertex: qd.template(), p):
    return qd.Vector([vertex[p + 2], vertex[p + 4], vertex[p + 5]])


@qd.func
def place_body(
    camera,
    position: qd.template(),
    quaternion: qd.template(),
    env_body,
    drawn,
    transform: qd.template(),
    to,
):
    """The transform of a body from its frame to the camera's, 3 x 4 numbers at `to`."""
    p = env_body * 3
    q = env_body * 4
    ok = drawn != 0
    for k in range(3):
        ok = ok and tame(position[p + k])
    for k in range(4):
        ok = ok and tame(quaternion[q + k])
    for k in range(12):
        # A body that is not drawn has all its vertices behind the camera.
        transform[to + k] = 0.0
    transform[to + 11] = -1.0
    if ok:
        w = quaternion[q]
        x = quaternion[q + 1]
        y = quaternion[q + 2]
        z = quaternion[q + 3]
        n = w * w + x * x + y * y + z * z
        if n > 1e-12:
            s = 2.0 / n
            R = qd.Matrix(
                [
                    [1.0 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)],
                    [s * (x * y + w * z), 1.0 - s * (x * x + z * z), s * (y * z - w * x)],
                    [s * (x * z - w * y), s * (y * z + w * x), 1.0 - s * (x * x + y * y)],
                ]
            )
            for i in qd.static(range(3)):
                c = 4 + 4 * i
                t = camera[c + 3]
                for j in qd.static(range(3)):
                    t += camera[c + j] * position[p + j]
                    transform[to + 4 * i + j] = (
                        camera[c] * R[0, j] + camera[c + 1] * R[1, j] + camera[c + 2] * R[2, j]
                    )
                transform[to + 4 * i + 3] = t


@qd.func
def place_vertex(
    camera, rest: qd.template(), i, transform: qd.template(), m, vertex: qd.template(), o
):
    """The record (x, y, u, z, v, 1/z) at `o` of a vertex whose body's transform is at `m`."""
    rx = rest[3 * i]
    ry = rest[3 * i + 1]
    rz = rest[3 * i + 2]
    x = transform[m] * rx + transform[m + 1] * ry + transform[m + 2] * rz + transform[m + 3]
    y = transform[m + 4] * rx + transform[m + 5] * ry + transform[m + 6] * rz + transform[m + 7]
    z = transform[m + 8] * rx + transform[m + 9] * ry + transform[m + 10] * rz + transform[m + 11]
    inverse_z = 1.0 / qd.max(z, NEAR_M)
    vertex[o] = x
    vertex[o + 1] = y
    vertex[o + 2] = camera[0] * x * inverse_z + camera[2]
    vertex[o + 3] = z
    vertex[o + 4] = camera[1] * y * inverse_z + camera[3]
    vertex[o + 5] = inverse_z


@qd.func
def draw_face(
    camera, face: qd.template(), f, label, vertex: qd.template(), first_vertex,
    zbuffer: qd.template(), base, height, width, cull, window, lane, lanes: qd.template(),
    serial: qd.template(),
):  # fmt: skip
    """Draw face f, whose vertices count from `first_vertex`, cut at the near plane."""
    a = (first_vertex + face[3 * f]) * 6
    b = (first_vertex + face[3 * f + 1]) * 6
    c = (first_vertex + face[3 * f + 2]) * 6
    a_in = vertex[a + AHEAD] >= NEAR_M
    b_in = vertex[b + AHEAD] >= NEAR_M
    c_in = vertex[c + AHEAD] >= NEAR_M
    inside = qd.cast(a_in, qd.i32) + qd.cast(b_in, qd.i32) + qd.cast(c_in, qd.i32)
    if inside > 0:
        p = corner(vertex, a)
        q = corner(vertex, b)
        r = corner(vertex, c)
        s = r
        if inside < 3:
            # Turn the corners so that a lone corner ahead of the plane, or the first of two, comes
            # first. What lies ahead is then the triangle p q r, or the quad p q r s.
            if (inside == 1 and b_in) or (inside == 2 and not a_in):
                a, b, c = b, c, a
            elif (inside == 1 and c_in) or (inside == 2 and not b_in):
                a, b, c = c, a, b
            p = corner(vertex, a)
            if inside == 1:
                q = crossing(camera, vertex, a, b)
                r = crossing(camera, vertex, a, c)
            else:
                q = corner(vertex, b)
                r = crossing(camera, vertex, b, c)
                s = crossing(camera, vertex, a, c)
        tag = (f << 8) | label
        for part in range(1 + qd.cast(inside == 2, qd.i32)):
            if part == 1:
                q = r
                r = s
            fill_triangle(
                zbuffer, base, width, height, p, q, r, tag, cull, window, lane, lanes, serial
            )


@qd.func
def tangents(x, z, r):
    """The slopes x/z of the two lines through the origin that touch a circle ahead of it."""
    root = r * qd.sqrt(qd.max(x * x + z * z - r * r, 0.0))
    s = 1.0 / (z * z - r * r)
    return (x * z - root) * s, (x * z + root) * s


@qd.func
def ahead(camera, position: qd.template(), o):
    """A particle's centre in camera coordinates [m]; z = -1e6 if it is not to be drawn."""
    px = position[o]
    py = position[o + 1]
    pz = position[o + 2]
    x = camera[4] * px + camera[5] * py + camera[6] * pz + camera[7]
    y = camera[8] * px + camera[9] * py + camera[10] * pz + camera[11]
    z = camera[12] * px + camera[13] * py + camera[14] * pz + camera[15]
    if not (tame(px) and tame(py) and tame(pz)):
        z = -1e6
    return x, y, z


@qd.func
def sphere_box(camera, x, y, z, r, width, height):
    """Pixels (x0, y0, x1, y1) that a sphere ahead of the near plane may cover, the last exclusive."""
    w = qd.cast(width, qd.f32)
    h = qd.cast(height, qd.f32)
    u0 = 0.0
    u1 = w
    v0 = 0.0
    v1 = h
    # A sphere that reaches the camera's plane may cover any pixel.
    if z - r > 1e-4:
        left, right = tangents(x, z, r)
        top, bottom = tangents(y, z, r)
        u0 = qd.min(qd.max(camera[0] * left + camera[2], 0.0), w + 1.0)
        u1 = qd.max(qd.min(camera[0] * right + camera[2], w), -1.0)
        v0 = qd.min(qd.max(camera[1] * top + camera[3], 0.0), h + 1.0)
        v1 = qd.max(qd.min(camera[1] * bottom + camera[3], h), -1.0)
    return qd.Vector(
        [
            qd.cast(qd.ceil(u0 - 0.5), qd.i32),
            qd.cast(qd.ceil(v0 - 0.5), qd.i32),
            qd.cast(qd.floor(u1 - 0.5), qd.i32) + 1,
            qd.cast(qd.floor(v1 - 0.5), qd.i32) + 1,
        ]
    )


@qd.func
def draw_particle(
    camera, position: qd.template(), o, r, tag, zbuffer: qd.template(), base, height, width,
    window, lane, lanes: qd.template(), serial: qd.template(),
):  # fmt: skip
    """Draw the sphere of radius r around position[o : o + 3], exactly: silhouette and depth."""
    x, y, z = ahead(camera, position, o)
    if z + r > NEAR_M:
        box = sphere_box(camera, x, y, z, r, width, height)
        x0 = qd.max(box[0], window[0])
        y0 = qd.max(box[1], window[1])
        x1 = qd.min(box[2], window[2])
        y1 = qd.min(box[3], window[3])
        inverse_fx = 1.0 / camera[0]
        inverse_fy = 1.0 / camera[1]
        for row in range((y1 - y0 - lane + lanes - 1) // lanes):
            i = y0 + lane + row * lanes
            dy = (qd.cast(i, qd.f32) + 0.5 - camera[3]) * inverse_fy
            ey = y - z * dy
            for j in range(x0, x1):
                # The ray t * (dx, dy, 1) meets the sphere where the distance of its line from the
                # centre allows; written with the offset (ex, ey) of the centre from the ray, since
                # the usual discriminant cancels.
                dx = (qd.cast(j, qd.f32) + 0.5 - camera[2]) * inverse_fx
                ex = x - z * dx
                a = dx * dx + dy * dy + 1.0
                turn = ex * dy - ey * dx
                gap = a * r * r - (ex * ex + ey * ey + turn * turn)
                if gap >= 0.0:
                    b = dx * x + dy * y + z
                    root = qd.sqrt(gap)
                    t = (b - root) / a
                    if t < NEAR_M:
                        t = (b + root) / a
                    if t >= NEAR_M:
                        put(zbuffer, base + i * width + j, t, tag, serial)


@qd.func
def grown(box, other):
    """The smallest box (x0, y0, x1, y1) that holds both."""
    return qd.Vector(
        [
            qd.min(box[0], other[0]), qd.min(box[1], other[1]),
            qd.max(box[2], other[2]), qd.max(box[3], other[3]),
        ]
    )  # fmt: skip


@qd.func
def resolve(
    zbuffer: qd.template(), at, label: qd.template(), depth: qd.template(), face: qd.template(),
    out, faces, with_face: qd.template(),
):  # fmt: skip
    word = zbuffer[at]
    depth[out] = qd.bit_cast(qd.cast(word >> 32, qd.i32), qd.f32)
    label[out] = qd.cast(word, qd.i32) & 0xFF
    if qd.static(with_face):
        primitive = qd.cast(word, qd.i32) >> 8
        face[out] = qd.select(primitive < faces, primitive, -1)
