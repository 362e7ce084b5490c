"""Quadrants functions that `_observe_kernels` draws with: one body, vertex, face or particle each.

A z-buffer word is (depth bits << 32) | (primitive << 8) | label, the last two being a primitive's
`tag`. For positive floats the order of the bits is the order of the numbers, so the least word is
the nearest primitive, and the lowest index on a tie; hence the result does not depend on the order
of drawing.

Only pixels in a window (x0, y0, x1, y1), the last exclusive, are drawn.

`lanes` threads share the rows of a primitive; `serial` means that nobody else draws into this
z-buffer, so that no atomics are needed.

Quadrants compiles with fast_math, where a comparison with NaN may be folded away: finiteness is
therefore tested on the bits.
"""

from dataclasses import dataclass

import quadrants as qd

F32 = qd.types.ndarray(dtype=qd.f32, ndim=1)
I32 = qd.types.ndarray(dtype=qd.i32, ndim=1)
I64 = qd.types.ndarray(dtype=qd.i64, ndim=1)
U8 = qd.types.ndarray(dtype=qd.u8, ndim=1)

NEAR_M = 0.01
NOTHING = 0x7FFFFF  # the primitive of a background pixel
LIMIT_BITS = 0x49742400  # 1e6 as f32: what lies farther away is diverged, not drawn

FX, FY, CX, CY, VIEW = 0, 1, 2, 3, 4  # of a camera: intrinsics, then T_cam_world's upper three rows
Camera = qd.types.vector(16, qd.f32)

TRANSFORM = 12  # numbers a body: from its frame to the camera's, 3 x 4

X, Y, U, Z, V, INVERSE_Z = range(6)  # of a vertex, in camera coordinates [m] and pixels
VERTEX = 6  # numbers a vertex


# Kernels take these as arguments. They are not frozen: Quadrants keeps the pointers of a launch with frozen
# ones under their ids and uses them again for whatever comes by the same id later, freed tensors and all.


@dataclass
class Scene:
    """What is drawn: B environments of Nb bodies with V vertices and F faces, and N particles."""

    camera: Camera
    height: qd.i32
    width: qd.i32
    cull: qd.i32  # leave out faces that turn away
    background: I64  # (H, W) words

    bodies: qd.i32
    vertices: qd.i32
    faces: qd.i32
    rest: F32  # (V, 3) [m] in the frame of its body
    vertex_body: I32  # (V,)
    face: I32  # (F, 3)
    face_label: I32  # (F,)
    body_label: I32  # (Nb,)
    body_drawn: U8  # (Nb,)
    position: F32  # (B, Nb, 3) [m, world]
    quaternion: F32  # (B, Nb, 4) wxyz

    particles: qd.i32
    particle: F32  # (B, N, 3) [m, world], at the next two strides
    stride_env: qd.i32
    stride_particle: qd.i32
    radius: F32  # (N,) [m]
    particle_label: I32  # (B, N) at the next stride
    label_stride: qd.i32  # 0 where all environments share their labels
    particle_drawn: U8  # (N,)


@dataclass
class Scratch:
    """Memory of as many environments as are drawn at a time: the slots."""

    transform: F32  # (slots, Nb, TRANSFORM)
    vertex: F32  # (slots, V, VERTEX)
    zbuffer: I64  # (slots, H, W)


@dataclass
class Pictures:
    """What comes out."""

    label: I32  # (B, H, W)
    depth: F32  # (B, H, W) [m]
    face: I32  # (B, H, W) where it is asked for


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
    scene: Scene, scratch: Scratch, base, a, b, c, tag, window, lane, lanes: qd.template(),
    serial: qd.template(),
):  # fmt: skip
    """Draw one triangle whose corners are (u, v, 1/z), in front of the near plane, into the z-buffer
    at `base`.

    Only pixels in the window count; all others are as if it were the whole image, to the bit.
    """
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    # Since v points down, corners that turn counter-clockwise to the eye have a negative area.
    if area < -1e-12 or (scene.cull == 0 and area > 1e-12):
        low_u = qd.min(a[0], b[0], c[0])
        low_v = qd.min(a[1], b[1], c[1])
        high_u = qd.max(a[0], b[0], c[0])
        high_v = qd.max(a[1], b[1], c[1])
        # Pixels whose centres lie in the box; clamped as floats, because casts overflow.
        w = qd.cast(scene.width, qd.f32)
        h = qd.cast(scene.height, qd.f32)
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
            step_p = qd.select(tall, 1, scene.width)
            step_q = qd.select(tall, scene.width, 1)
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
            first = base + y0 * scene.width + x0
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
                    put(scratch.zbuffer, line + i * step_q, 1.0 / inverse_z, tag, serial)


@qd.func
def crossing(scene: Scene, scratch: Scratch, p, q):
    """Where the edge from p (ahead of the near plane) to q (behind it) crosses: (u, v, 1/z)."""
    z = scratch.vertex[p + Z]
    t = (z - NEAR_M) / (z - scratch.vertex[q + Z])
    x = scratch.vertex[p + X] + t * (scratch.vertex[q + X] - scratch.vertex[p + X])
    y = scratch.vertex[p + Y] + t * (scratch.vertex[q + Y] - scratch.vertex[p + Y])
    return qd.Vector([
        scene.camera[FX] * x / NEAR_M + scene.camera[CX],
        scene.camera[FY] * y / NEAR_M + scene.camera[CY], 1.0 / NEAR_M,
    ])  # fmt: skip


@qd.func
def corner(scratch: Scratch, p):
    return qd.Vector([scratch.vertex[p + U], scratch.vertex[p + V], scratch.vertex[p + INVERSE_Z]])


@qd.func
def place_body(scene: Scene, scratch: Scratch, env, slot, body):
    """The transform of a body from its frame to the camera's."""
    p = (env * scene.bodies + body) * 3
    q = (env * scene.bodies + body) * 4
    to = (slot * scene.bodies + body) * TRANSFORM
    ok = scene.body_drawn[body] != 0
    for k in range(3):
        ok = ok and tame(scene.position[p + k])
    for k in range(4):
        ok = ok and tame(scene.quaternion[q + k])
    for k in range(TRANSFORM):
        # A body that is not drawn has all its vertices behind the camera.
        scratch.transform[to + k] = 0.0
    scratch.transform[to + TRANSFORM - 1] = -1.0
    if ok:
        w = scene.quaternion[q]
        x = scene.quaternion[q + 1]
        y = scene.quaternion[q + 2]
        z = scene.quaternion[q + 3]
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
                c = VIEW + 4 * i
                t = scene.camera[c + 3]
                for j in qd.static(range(3)):
                    t += scene.camera[c + j] * scene.position[p + j]
                    scratch.transform[to + 4 * i + j] = (
                        scene.camera[c] * R[0, j] + scene.camera[c + 1] * R[1, j]
                        + scene.camera[c + 2] * R[2, j]
                    )  # fmt: skip
                scratch.transform[to + 4 * i + 3] = t


@qd.func
def moved(scratch: Scratch, m, x, y, z):
    """One coordinate of a point of a body, by the row at m of its transform."""
    return (
        scratch.transform[m] * x + scratch.transform[m + 1] * y + scratch.transform[m + 2] * z
        + scratch.transform[m + 3]
    )  # fmt: skip


@qd.func
def place_vertex(scene: Scene, scratch: Scratch, slot, i):
    """The record of vertex i, whose body has been placed."""
    m = (slot * scene.bodies + scene.vertex_body[i]) * TRANSFORM
    o = (slot * scene.vertices + i) * VERTEX
    rx = scene.rest[3 * i]
    ry = scene.rest[3 * i + 1]
    rz = scene.rest[3 * i + 2]
    x = moved(scratch, m, rx, ry, rz)
    y = moved(scratch, m + 4, rx, ry, rz)
    z = moved(scratch, m + 8, rx, ry, rz)
    inverse_z = 1.0 / qd.max(z, NEAR_M)
    scratch.vertex[o + X] = x
    scratch.vertex[o + Y] = y
    scratch.vertex[o + U] = scene.camera[FX] * x * inverse_z + scene.camera[CX]
    scratch.vertex[o + Z] = z
    scratch.vertex[o + V] = scene.camera[FY] * y * inverse_z + scene.camera[CY]
    scratch.vertex[o + INVERSE_Z] = inverse_z


@qd.func
def draw_face(
    scene: Scene, scratch: Scratch, slot, f, window, lane, lanes: qd.template(),
    serial: qd.template(),
):  # fmt: skip
    """Draw face f, whose vertices have been placed, cut at the near plane."""
    first = slot * scene.vertices
    a = (first + scene.face[3 * f]) * VERTEX
    b = (first + scene.face[3 * f + 1]) * VERTEX
    c = (first + scene.face[3 * f + 2]) * VERTEX
    a_in = scratch.vertex[a + Z] >= NEAR_M
    b_in = scratch.vertex[b + Z] >= NEAR_M
    c_in = scratch.vertex[c + Z] >= NEAR_M
    inside = qd.cast(a_in, qd.i32) + qd.cast(b_in, qd.i32) + qd.cast(c_in, qd.i32)
    if inside > 0:
        p = corner(scratch, a)
        q = corner(scratch, b)
        r = corner(scratch, c)
        s = r
        if inside < 3:
            # Turn the corners so that a lone corner ahead of the plane, or the first of two, comes
            # first. What lies ahead is then the triangle p q r, or the quad p q r s.
            if (inside == 1 and b_in) or (inside == 2 and not a_in):
                a, b, c = b, c, a
            elif (inside == 1 and c_in) or (inside == 2 and not b_in):
                a, b, c = c, a, b
            p = corner(scratch, a)
            if inside == 1:
                q = crossing(scene, scratch, a, b)
                r = crossing(scene, scratch, a, c)
            else:
                q = corner(scratch, b)
                r = crossing(scene, scratch, b, c)
                s = crossing(scene, scratch, a, c)
        base = slot * scene.height * scene.width
        tag = (f << 8) | scene.face_label[f]
        for part in range(1 + qd.cast(inside == 2, qd.i32)):
            if part == 1:
                q = r
                r = s
            fill_triangle(scene, scratch, base, p, q, r, tag, window, lane, lanes, serial)


@qd.func
def tangents(x, z, r):
    """The slopes x/z of the two lines through the origin that touch a circle ahead of it."""
    root = r * qd.sqrt(qd.max(x * x + z * z - r * r, 0.0))
    s = 1.0 / (z * z - r * r)
    return (x * z - root) * s, (x * z + root) * s


@qd.func
def ahead(scene: Scene, env, n):
    """The centre of particle n in camera coordinates [m]; z = -1e6 if it is not to be drawn."""
    o = env * scene.stride_env + n * scene.stride_particle
    px = scene.particle[o]
    py = scene.particle[o + 1]
    pz = scene.particle[o + 2]
    c = scene.camera
    x = c[VIEW] * px + c[VIEW + 1] * py + c[VIEW + 2] * pz + c[VIEW + 3]
    y = c[VIEW + 4] * px + c[VIEW + 5] * py + c[VIEW + 6] * pz + c[VIEW + 7]
    z = c[VIEW + 8] * px + c[VIEW + 9] * py + c[VIEW + 10] * pz + c[VIEW + 11]
    if not (tame(px) and tame(py) and tame(pz)):
        z = -1e6
    return x, y, z


@qd.func
def sphere_box(scene: Scene, x, y, z, r):
    """Pixels (x0, y0, x1, y1) that a sphere ahead of the near plane may cover, the last exclusive."""
    w = qd.cast(scene.width, qd.f32)
    h = qd.cast(scene.height, qd.f32)
    u0 = 0.0
    u1 = w
    v0 = 0.0
    v1 = h
    # A sphere that reaches the camera's plane may cover any pixel.
    if z - r > 1e-4:
        c = scene.camera
        left, right = tangents(x, z, r)
        top, bottom = tangents(y, z, r)
        u0 = qd.min(qd.max(c[FX] * left + c[CX], 0.0), w + 1.0)
        u1 = qd.max(qd.min(c[FX] * right + c[CX], w), -1.0)
        v0 = qd.min(qd.max(c[FY] * top + c[CY], 0.0), h + 1.0)
        v1 = qd.max(qd.min(c[FY] * bottom + c[CY], h), -1.0)
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
    scene: Scene, scratch: Scratch, env, slot, n, window, lane, lanes: qd.template(),
    serial: qd.template(),
):  # fmt: skip
    """Draw particle n as a sphere, exactly: silhouette and depth."""
    x, y, z = ahead(scene, env, n)
    r = scene.radius[n]
    if scene.particle_drawn[n] != 0 and z + r > NEAR_M:
        base = slot * scene.height * scene.width
        tag = ((scene.faces + n) << 8) | scene.particle_label[env * scene.label_stride + n]
        box = sphere_box(scene, x, y, z, r)
        x0 = qd.max(box[0], window[0])
        y0 = qd.max(box[1], window[1])
        x1 = qd.min(box[2], window[2])
        y1 = qd.min(box[3], window[3])
        inverse_fx = 1.0 / scene.camera[FX]
        inverse_fy = 1.0 / scene.camera[FY]
        for row in range((y1 - y0 - lane + lanes - 1) // lanes):
            i = y0 + lane + row * lanes
            dy = (qd.cast(i, qd.f32) + 0.5 - scene.camera[CY]) * inverse_fy
            ey = y - z * dy
            for j in range(x0, x1):
                # The ray t * (dx, dy, 1) meets the sphere where the distance of its line from the
                # centre allows; written with the offset (ex, ey) of the centre from the ray, since
                # the usual discriminant cancels.
                dx = (qd.cast(j, qd.f32) + 0.5 - scene.camera[CX]) * inverse_fx
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
                        put(scratch.zbuffer, base + i * scene.width + j, t, tag, serial)


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
def resolve(scratch: Scratch, at, pictures: Pictures, out, faces, with_face: qd.template()):
    """From the z-buffer to the pictures. With 1 particles, which come after the faces, are no face; with 2
    they are."""
    word = scratch.zbuffer[at]
    pictures.depth[out] = qd.bit_cast(qd.cast(word >> 32, qd.i32), qd.f32)
    pictures.label[out] = qd.cast(word, qd.i32) & 0xFF
    if qd.static(with_face):
        primitive = qd.cast(word, qd.i32) >> 8
        limit = faces
        if qd.static(with_face == 2):
            limit = NOTHING
        pictures.face[out] = qd.select(primitive < limit, primitive, -1)
