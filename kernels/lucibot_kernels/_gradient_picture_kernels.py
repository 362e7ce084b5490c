"""Quadrants kernels of soft pictures: silhouettes, depth and IoU, forward and backward. Import through
`runtime.kernels` only.

What is covered, and by which primitive, is decided by the z-buffer of `_observe_kernels`; here each pixel
is given its distance to the contour, and how that changes with what is drawn.

`lanes` threads share an environment, one on a CPU, where nothing is added up by two at once (`serial`).
"""

import quadrants as qd

from lucibot_kernels._gradient_kernels import I32, REAL, add, add_vector, real, vector

NEAR_M = 0.01
FX, FY, CX, CY = 0, 1, 2, 3  # of a camera
NONE = -1


@qd.func
def turns(count, lane, lanes):
    """How many of `count` things a lane has to do."""
    return (count - lane + lanes - 1) // lanes


@qd.kernel
def nearest_in_column(
    # In: the primitive of each pixel (B, H, W), NONE where there is none.
    primitive: I32,
    height: qd.i32,
    width: qd.i32,
    # Scratch: (B, W).
    below: I32,
    # Out: (B, H, W) the row of the nearest pixel of the other kind, covered or not, in the same column,
    # of equals the upper one; NONE where there is none.
    rows: I32,
    lanes: qd.template(),
    batch: qd.i32,
):
    for item in range(batch * lanes):
        b = item // lanes
        lane = item % lanes
        base = b * height * width
        for i in range(height):
            for turn in range(turns(width, lane, lanes)):
                p = base + i * width + lane + turn * lanes
                above = NONE
                if i > 0:
                    above = rows[p - width]
                    if (primitive[p] < 0) != (primitive[p - width] < 0):
                        above = i - 1
                rows[p] = above
        for k in range(height):
            i = height - 1 - k
            for turn in range(turns(width, lane, lanes)):
                j = lane + turn * lanes
                p = base + i * width + j
                under = NONE
                if k > 0:
                    under = below[b * width + j]
                    if (primitive[p] < 0) != (primitive[p + width] < 0):
                        under = i + 1
                below[b * width + j] = under
                above = rows[p]
                if under >= 0 and (above < 0 or under - i < i - above):
                    rows[p] = under


@qd.func
def row_of(primitive: qd.template(), rows: qd.template(), p, i, covered):
    """The row of the nearest pixel of a kind in the column of pixel p of row i; NONE if there is none."""
    r = i
    if (primitive[p] >= 0) != (covered == 1):
        r = rows[p]
    return r


@qd.kernel
def nearest_across(
    # In: as above, and what came out.
    primitive: I32,
    rows: I32,
    height: qd.i32,
    width: qd.i32,
    # Scratch: (B, lanes, 2, W).
    stack: I32,
    # Out: (B, H, W) the nearest pixel of the other kind; of equals that of the leftmost column, there the
    # upper one; NONE where there is none.
    across: I32,
    lanes: qd.template(),
    batch: qd.i32,
):
    # Along each row by the lower envelope of the columns' parabolas (Meijster and others, 2000).
    for item in range(batch * lanes):
        lane = item % lanes
        base = item // lanes * height * width
        site = item * 2 * width
        start = site + width
        for turn in range(turns(height, lane, lanes)):
            i = lane + turn * lanes
            row = base + i * width
            for covered in range(2):
                # What is looked for is of this kind, who looks is of the other.
                asked = False
                for j in range(width):
                    asked = asked or ((primitive[row + j] >= 0) != (covered == 1))
                top = -1
                if asked:
                    for j in range(width):
                        r = row_of(primitive, rows, row + j, i, covered)
                        if r >= 0:
                            g = (r - i) * (r - i)
                            going = top >= 0
                            while going:
                                s = stack[site + top]
                                x = stack[start + top]
                                h = row_of(primitive, rows, row + s, i, covered) - i
                                if (x - s) * (x - s) + h * h > (x - j) * (x - j) + g:
                                    top -= 1
                                    going = top >= 0
                                else:
                                    going = False
                            if top < 0:
                                top = 0
                                stack[site] = j
                                stack[start] = 0
                            else:
                                s = stack[site + top]
                                h = row_of(primitive, rows, row + s, i, covered) - i
                                x = 1 + (j * j - s * s + g - h * h) // (2 * (j - s))
                                if x < width:
                                    top += 1
                                    stack[site + top] = j
                                    stack[start + top] = x
                for k in range(width):
                    j = width - 1 - k
                    if (primitive[row + j] >= 0) != (covered == 1):
                        found = NONE
                        if top >= 0:
                            s = stack[site + top]
                            found = row_of(primitive, rows, row + s, i, covered) * width + s
                        across[row + j] = found
                    if top >= 0:
                        if j == stack[start + top]:
                            top -= 1


@qd.func
def ray_of(camera: qd.template(), pixel, width, double: qd.template()):
    """The direction of a pixel's centre, camera z 1."""
    x = real(pixel % width, double) + 0.5
    y = real(pixel // width, double) + 0.5
    return qd.Vector(
        [(x - camera[CX]) / camera[FX], (y - camera[CY]) / camera[FY], real(1, double)]
    )


@qd.func
def corner(camera: qd.template(), p):
    """The pixel (u, v) of a point of the camera's frame; what is nearer than NEAR_M is put there."""
    z = qd.max(p[2], NEAR_M)
    return qd.Vector([camera[FX] * p[0] / z + camera[CX], camera[FY] * p[1] / z + camera[CY]])


@qd.func
def to_segment(at, p, q):
    """From a point of the nearest place on a segment: the offset, and its share of the way to q."""
    way = q - p
    t = qd.min(qd.max((at - p).dot(way) / qd.max(way.dot(way), 1e-12), 0), 1)
    return at - p - t * way, t


@qd.func
def nearest_side(camera: qd.template(), vertex: qd.template(), face: qd.template(), f, v0, at):
    """Of a projected triangle the side that is nearest to a pixel: its two vertices, the share of the way
    from the first to the second, the offset (u, v) of the pixel from there."""
    best = at * 0
    least = at[0] * 0
    share = at[0] * 0
    side = 0
    for k in qd.static(range(3)):
        p = corner(camera, vector(vertex, 3 * (v0 + face[3 * f + k])))
        q = corner(camera, vector(vertex, 3 * (v0 + face[3 * f + (k + 1) % 3])))
        offset, t = to_segment(at, p, q)
        d2 = offset.dot(offset)
        if k == 0 or d2 < least:
            least = d2
            best = offset
            share = t
            side = k
    return side, share, best


@qd.func
def outside_sphere(camera: qd.template(), ray, c, radius):
    """How far [pixels] a ray passes a sphere at c, where the sphere is; and the offset of its centre from
    the ray [m]."""
    offset = c - ray * (c.dot(ray) / ray.dot(ray))
    focal = qd.sqrt(camera[FX] * camera[FY])
    return focal * (offset.norm() - radius) / qd.max(c[2], NEAR_M), offset


@qd.kernel
def contour_distance(
    # In: primitives and the nearest pixels of the other kind (B, H, W), faces (F, 3), radii (N,), camera.
    primitive: I32,
    across: I32,
    face: I32,
    radius: REAL,
    camera: REAL,
    height: qd.i32,
    width: qd.i32,
    faces: qd.i32,
    # In: vertices (B, V, 3) and particles (B, N, 3) in the camera's frame [m].
    vertex: REAL,
    vertices: qd.i32,
    centre: REAL,
    particles: qd.i32,
    # Out: (B, H, W) distance of what is not covered to the primitive of its nearest pixel [pixels], zero
    # at first; (B, H, W) depth of what is covered [m].
    distance: REAL,
    depth: REAL,
    lanes: qd.template(),
    batch: qd.i32,
    double: qd.template(),
):
    pixels = height * width
    for item in range(batch * lanes):
        b = item // lanes
        base = b * pixels
        v0 = b * vertices
        n0 = b * particles
        for turn in range(turns(pixels, item % lanes, lanes)):
            pixel = item % lanes + turn * lanes
            p = base + pixel
            ray = ray_of(camera, pixel, width, double)
            k = primitive[p]
            if k >= 0:
                if k < faces:
                    A = vector(vertex, 3 * (v0 + face[3 * k]))
                    n = (vector(vertex, 3 * (v0 + face[3 * k + 1])) - A).cross(
                        vector(vertex, 3 * (v0 + face[3 * k + 2])) - A
                    )
                    depth[p] = n.dot(A) / n.dot(ray)
                else:
                    c = vector(centre, 3 * (n0 + k - faces))
                    offset = c - ray * c[2]
                    turned = offset[0] * ray[1] - offset[1] * ray[0]
                    a = ray.dot(ray)
                    r = radius[k - faces]
                    gap = a * r * r - offset[0] ** 2 - offset[1] ** 2 - turned * turned
                    depth[p] = (ray.dot(c) - qd.sqrt(qd.max(gap, 0))) / a
            elif across[p] >= 0:
                k = primitive[base + across[p]]
                if k < faces:
                    at = qd.Vector([
                        real(pixel % width, double) + 0.5, real(pixel // width, double) + 0.5
                    ])  # fmt: skip
                    _side, _share, offset = nearest_side(camera, vertex, face, k, v0, at)
                    distance[p] = offset.norm()
                else:
                    d, _offset = outside_sphere(
                        camera, ray, vector(centre, 3 * (n0 + k - faces)), radius[k - faces]
                    )
                    distance[p] = qd.max(d, 0)


@qd.func
def tail(x):
    """Falls from 1/2 at 0 with the square of x; and its slope."""
    h = 0.5 / ((1 + x) * (1 + x))
    return h, -2 * h / (1 + x)


@qd.func
def soft(d, blur, covered):
    """Coverage of a pixel at a distance d from the contour on its side, and its slope in d."""
    h, slope = tail(d / blur)
    if covered:
        h = 1 - h
        slope = -slope
    return h, slope / blur


@qd.func
def on_its_side(
    distance: qd.template(), across, base, pixel, width, covered, double: qd.template()
):
    """The distance [pixels] of a pixel to the contour. From within it is that of the nearest pixel that
    is not covered, less what lies between that and the contour."""
    d = distance[base + pixel]
    if covered:
        dx = real(pixel % width - across % width, double)
        dy = real(pixel // width - across // width, double)
        d = qd.max(qd.sqrt(dx * dx + dy * dy) - distance[base + across], 0)
    return d


@qd.kernel
def soft_picture(
    # In: as they came from above; the background's depth (H, W) [m].
    primitive: I32,
    across: I32,
    distance: REAL,
    surface: REAL,
    background: REAL,
    height: qd.i32,
    width: qd.i32,
    blur_px: qd.f64,
    blur_m: qd.f64,
    # Out: (B, H, W) in 0..1, and [m], infinite at first.
    silhouette: REAL,
    depth: REAL,
    lanes: qd.template(),
    batch: qd.i32,
    hidden: qd.template(),
    double: qd.template(),
):
    pixels = height * width
    for item in range(batch * lanes):
        base = item // lanes * pixels
        for turn in range(turns(pixels, item % lanes, lanes)):
            pixel = item % lanes + turn * lanes
            p = base + pixel
            covered = primitive[p] >= 0
            s = real(1, double) * qd.cast(covered, qd.i32)
            if across[p] >= 0:
                d = on_its_side(distance, across[p], base, pixel, width, covered, double)
                s, _slope = soft(d, real(blur_px, double), covered)
            if covered or across[p] >= 0:
                z = surface[p]
                if not covered:
                    z = surface[base + across[p]]
                depth[p] = z
                if qd.static(hidden):
                    gap = background[pixel] - z
                    v, _slope = soft(qd.abs(gap), real(blur_m, double), gap > 0)
                    s *= v
            silhouette[p] = s


@qd.kernel
def soft_picture_backward(
    # In: as above, and gradients of what came out.
    primitive: I32,
    across: I32,
    distance: REAL,
    surface: REAL,
    background: REAL,
    height: qd.i32,
    width: qd.i32,
    blur_px: qd.f64,
    blur_m: qd.f64,
    silhouette_gradient: REAL,
    depth_gradient: REAL,
    # Out: of the distances and depths of `contour_distance`, zero at first.
    distance_gradient: REAL,
    surface_gradient: REAL,
    lanes: qd.template(),
    batch: qd.i32,
    hidden: qd.template(),
    serial: qd.template(),
    double: qd.template(),
):
    pixels = height * width
    for item in range(batch * lanes):
        base = item // lanes * pixels
        for turn in range(turns(pixels, item % lanes, lanes)):
            pixel = item % lanes + turn * lanes
            p = base + pixel
            covered = primitive[p] >= 0
            g = silhouette_gradient[p]
            s = real(1, double) * qd.cast(covered, qd.i32)
            slope = real(0, double)
            if across[p] >= 0:
                d = on_its_side(distance, across[p], base, pixel, width, covered, double)
                s, slope = soft(d, real(blur_px, double), covered)
                if d <= 0:
                    # Held at the contour, see `on_its_side`, it does not move with it.
                    slope = real(0, double)
            if covered or across[p] >= 0:
                dz = depth_gradient[p]
                o = p
                if not covered:
                    o = base + across[p]
                if qd.static(hidden):
                    gap = background[pixel] - surface[o]
                    v, by_gap = soft(qd.abs(gap), real(blur_m, double), gap > 0)
                    if gap < 0:
                        by_gap = -by_gap
                    dz -= g * s * by_gap
                    g *= v
                if dz != 0:
                    add(surface_gradient, o, dz, serial)
                if across[p] >= 0:
                    if covered:
                        add(distance_gradient, base + across[p], -g * slope, serial)
                    else:
                        add(distance_gradient, p, g * slope, serial)


@qd.func
def pull_corner(
    camera: qd.template(), vertex: qd.template(), gradient: qd.template(), o, gu, gv,
    serial: qd.template(),
):  # fmt: skip
    """Adds to a vertex what its pixel (u, v) is to change by."""
    p = vector(vertex, 3 * o)
    inverse = 1 / qd.max(p[2], NEAR_M)
    gx = camera[FX] * inverse * gu
    gy = camera[FY] * inverse * gv
    gz = -(gx * p[0] + gy * p[1]) * inverse
    if p[2] < NEAR_M:
        gz = gz * 0
    add_vector(gradient, 3 * o, qd.Vector([gx, gy, gz]), serial)


@qd.kernel
def contour_backward(
    # In: as in `contour_distance`, and gradients (B, H, W) of what came out.
    primitive: I32,
    across: I32,
    face: I32,
    radius: REAL,
    camera: REAL,
    height: qd.i32,
    width: qd.i32,
    faces: qd.i32,
    vertex: REAL,
    vertices: qd.i32,
    centre: REAL,
    particles: qd.i32,
    depth: REAL,
    distance_gradient: REAL,
    depth_gradient: REAL,
    # Out: (B, V, 3) and (B, N, 3), zero at first.
    vertex_gradient: REAL,
    centre_gradient: REAL,
    lanes: qd.template(),
    batch: qd.i32,
    serial: qd.template(),
    double: qd.template(),
):
    pixels = height * width
    for item in range(batch * lanes):
        b = item // lanes
        base = b * pixels
        v0 = b * vertices
        n0 = b * particles
        for turn in range(turns(pixels, item % lanes, lanes)):
            pixel = item % lanes + turn * lanes
            p = base + pixel
            k = primitive[p]
            ray = ray_of(camera, pixel, width, double)
            if k >= 0:
                g = depth_gradient[p]
                if g != 0:
                    if k < faces:
                        ia = v0 + face[3 * k]
                        ib = v0 + face[3 * k + 1]
                        ic = v0 + face[3 * k + 2]
                        A = vector(vertex, 3 * ia)
                        to_b = vector(vertex, 3 * ib) - A
                        to_c = vector(vertex, 3 * ic) - A
                        n = to_b.cross(to_c)
                        g /= n.dot(ray)
                        # From where the ray meets the plane to the first corner.
                        w = A - depth[p] * ray
                        gb = g * to_c.cross(w)
                        gc = g * w.cross(to_b)
                        add_vector(vertex_gradient, 3 * ia, g * n - gb - gc, serial)
                        add_vector(vertex_gradient, 3 * ib, gb, serial)
                        add_vector(vertex_gradient, 3 * ic, gc, serial)
                    else:
                        o = 3 * (n0 + k - faces)
                        out = depth[p] * ray - vector(centre, o)
                        along = out.dot(ray)
                        # Where the ray only touches the sphere, its depth has no finite slope.
                        if along * along > 1e-12 * out.dot(out):
                            add_vector(centre_gradient, o, g / along * out, serial)
            elif across[p] >= 0:
                g = distance_gradient[p]
                k = primitive[base + across[p]]
                if g != 0:
                    if k < faces:
                        at = qd.Vector([
                            real(pixel % width, double) + 0.5, real(pixel // width, double) + 0.5
                        ])  # fmt: skip
                        side, t, offset = nearest_side(camera, vertex, face, k, v0, at)
                        d = offset.norm()
                        if d > 0:
                            first = v0 + face[3 * k + side]
                            second = v0 + face[3 * k + (side + 1) % 3]
                            away = -g / d * offset
                            pull_corner(
                                camera, vertex, vertex_gradient, first, (1 - t) * away[0],
                                (1 - t) * away[1], serial,
                            )  # fmt: skip
                            pull_corner(
                                camera, vertex, vertex_gradient, second, t * away[0], t * away[1],
                                serial,
                            )  # fmt: skip
                    else:
                        o = 3 * (n0 + k - faces)
                        c = vector(centre, o)
                        d, offset = outside_sphere(camera, ray, c, radius[k - faces])
                        if d > 0:
                            away = g / offset.norm() * qd.sqrt(camera[FX] * camera[FY]) * offset
                            z = qd.max(c[2], NEAR_M)
                            away /= z
                            if c[2] > NEAR_M:
                                away[2] -= g * d / z
                            add_vector(centre_gradient, o, away, serial)


@qd.kernel
def soft_counts(
    # In: silhouettes (B, P), wanted (B or 1, P), which pixels count (B or 1, P).
    silhouette: REAL,
    wanted: REAL,
    weight: REAL,
    pixels: qd.i32,
    stride_wanted: qd.i32,
    stride_weight: qd.i32,
    # Out: (B, 2), overlap and union, zero at first.
    counts: REAL,
    lanes: qd.template(),
    batch: qd.i32,
    serial: qd.template(),
    double: qd.template(),
):
    for item in range(batch * lanes):
        b = item // lanes
        lane = item % lanes
        both = real(0, double)
        either = real(0, double)
        for turn in range(turns(pixels, lane, lanes)):
            p = lane + turn * lanes
            s = silhouette[b * pixels + p]
            m = wanted[b * stride_wanted + p]
            w = weight[b * stride_weight + p]
            both += w * qd.min(s, m)
            either += w * qd.max(s, m)
        add(counts, 2 * b, both, serial)
        add(counts, 2 * b + 1, either, serial)


@qd.kernel
def soft_counts_backward(
    # In: as above, and what overlap and union are to change by (B, 2).
    silhouette: REAL,
    wanted: REAL,
    weight: REAL,
    pixels: qd.i32,
    stride_wanted: qd.i32,
    stride_weight: qd.i32,
    slope: REAL,
    # Out: (B, P).
    gradient: REAL,
    lanes: qd.template(),
    batch: qd.i32,
):
    for item in range(batch * lanes):
        b = item // lanes
        lane = item % lanes
        of_both = slope[2 * b]
        of_either = slope[2 * b + 1]
        for turn in range(turns(pixels, lane, lanes)):
            p = lane + turn * lanes
            s = silhouette[b * pixels + p]
            m = wanted[b * stride_wanted + p]
            g = 0.5 * (of_both + of_either)
            if s < m:
                g = of_both
            if s > m:
                g = of_either
            gradient[b * pixels + p] = g * weight[b * stride_weight + p]
