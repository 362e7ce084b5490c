"""The transpose of `bodies`: how what a particle or a node feels of a rigid body changes with the body.

Each function here is named after the one in `bodies` that it transposes, takes what that one has taken
and the gradient of its result, and adds to `Pull`. A pose's gradient is told by a displacement of the
shape [m] and a turn of it about its own origin, a rotation vector in world axes [rad].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lucibot_kernels.bodies import (
    EPS,
    PLANE,
    SPHERE,
    distance_within,
    from_centre,
    from_middle,
    in_field,
    influence_at,
    length,
    reach,
)
from lucibot_kernels.jit import inlined


class Pull(NamedTuple):
    """Gradients with respect to what `Bodies` of the same G shapes and L links do; added to."""

    pos: np.ndarray  # (G, B, 3) of a shape's displacement
    turn: np.ndarray  # (G, B, 3) of its turn about `Bodies.pos`
    velocity: np.ndarray  # (L, B, 3)
    spin: np.ndarray  # (L, B, 3)
    centre: np.ndarray  # (L, B, 3)


def pull(shapes: int, links: int, environments: int, dtype=np.float32) -> Pull:
    """Zeros."""
    G, L, B = shapes, links, environments
    return Pull(*(np.zeros((n, B, 3), dtype) for n in (G, G, L, L, L)))


@inlined
def cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@inlined
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inlined
def add(to, i, b, v, sign):
    to[i, b, 0] += sign * v[0]
    to[i, b, 1] += sign * v[1]
    to[i, b, 2] += sign * v[2]


@inlined
def moved_under(bodies, g, b, p, slope, to):
    """`slope` is the gradient of a quantity with respect to a world point that the body takes along,
    at `p`: what a shift of the point would do, the opposite shift of the body does."""
    minus = np.float32(-1)
    add(to.pos, g, b, slope, minus)
    add(to.turn, g, b, cross(from_centre(bodies, g, b, p), slope), minus)


@inlined
def to_world(bodies, g, b, i, j, k):
    """A gradient with respect to the place in cells that `in_field` gives, as one to the world point."""
    T = bodies.into
    return (
        T[g, b, 0, 0] * i + T[g, b, 1, 0] * j + T[g, b, 2, 0] * k,
        T[g, b, 0, 1] * i + T[g, b, 1, 1] * j + T[g, b, 2, 1] * k,
        T[g, b, 0, 2] * i + T[g, b, 1, 2] * j + T[g, b, 2, 2] * k,
    )


@inlined
def influence(bodies, g, b, p, d_weight, to):
    """Of `influence` at a point that does not move: the slope of the exponential, then that of the
    distance (`signed_distance`), which is trilinear in the field's cells."""
    zero, one = np.float32(0), np.float32(1)
    softness, kind = bodies.softness[g], bodies.kind[g]
    distance = distance_within(bodies, g, b, p, reach(softness))
    weight = influence_at(distance, softness)
    if weight <= 0 or weight >= 1 or kind == PLANE:  # Planes stand still.
        return
    d_distance = -d_weight * weight / max(np.float32(1e-10), softness)
    if kind == SPHERE:
        a = from_centre(bodies, g, b, p)
        s = d_distance / max(length(a), EPS)
        moved_under(bodies, g, b, p, (s * a[0], s * a[1], s * a[2]), to)
        return
    i, j, k, inside = in_field(bodies, g, b, p)
    if not inside:
        m, cell = from_middle(bodies, g, i, j, k), bodies.cell
        s = d_distance / max(length(m), EPS)
        slope = s * m[0] * cell[g, 0], s * m[1] * cell[g, 1], s * m[2] * cell[g, 2]
        moved_under(bodies, g, b, p, to_world(bodies, g, b, slope[0], slope[1], slope[2]), to)
        return
    size, d = bodies.size, bodies.distance
    i0, j0, k0 = np.int32(i), np.int32(j), np.int32(k)
    fi, fj, fk = i - np.float32(i0), j - np.float32(j0), k - np.float32(k0)
    gi = gj = gk = zero
    for x in range(2):
        wi, si = (fi, one) if x else (one - fi, -one)
        for y in range(2):
            wj, sj = (fj, one) if y else (one - fj, -one)
            n = bodies.start[g] + ((i0 + x) * size[g, 1] + j0 + y) * size[g, 2] + k0
            along = (one - fk) * d[n] + fk * d[n + 1]
            gi += si * wj * along
            gj += wi * sj * along
            gk += wi * wj * (d[n + 1] - d[n])
    moved_under(
        bodies,
        g,
        b,
        p,
        to_world(bodies, g, b, d_distance * gi, d_distance * gj, d_distance * gk),
        to,
    )


@inlined
def normal(bodies, g, b, p, d_normal, to):
    """Of `normal` at a point that does not move: it turns with the body, and changes from place to
    place in its field."""
    zero, one = np.float32(0), np.float32(1)
    kind, R = bodies.kind[g], bodies.out
    if kind == PLANE:
        return
    if kind == SPHERE:
        # A ball may turn as it likes.
        add(to.pos, g, b, _unit(from_centre(bodies, g, b, p), d_normal), np.float32(-1))
        return
    i, j, k, inside = in_field(bodies, g, b, p)
    size, d, cell = bodies.size, bodies.gradient, bodies.cell
    i0, j0, k0 = np.int32(i), np.int32(j), np.int32(k)
    fi, fj, fk = i - np.float32(i0), j - np.float32(j0), k - np.float32(k0)
    if inside:
        y0 = y1 = y2 = zero
        for x in range(2):
            wi = fi if x else one - fi
            for y in range(2):
                w = wi * (fj if y else one - fj)
                n = bodies.start[g] + ((i0 + x) * size[g, 1] + j0 + y) * size[g, 2] + k0
                y0 += w * ((one - fk) * d[n, 0] + fk * d[n + 1, 0])
                y1 += w * ((one - fk) * d[n, 1] + fk * d[n + 1, 1])
                y2 += w * ((one - fk) * d[n, 2] + fk * d[n + 1, 2])
        local = (y0, y1, y2)
    else:
        local = from_middle(bodies, g, i, j, k)
    z = (
        R[g, b, 0, 0] * local[0] + R[g, b, 0, 1] * local[1] + R[g, b, 0, 2] * local[2],
        R[g, b, 1, 0] * local[0] + R[g, b, 1, 1] * local[1] + R[g, b, 1, 2] * local[2],
        R[g, b, 2, 0] * local[0] + R[g, b, 2, 1] * local[1] + R[g, b, 2, 2] * local[2],
    )
    d_z = _unit(z, d_normal)
    add(to.turn, g, b, cross(z, d_z), one)
    h = (
        R[g, b, 0, 0] * d_z[0] + R[g, b, 1, 0] * d_z[1] + R[g, b, 2, 0] * d_z[2],
        R[g, b, 0, 1] * d_z[0] + R[g, b, 1, 1] * d_z[1] + R[g, b, 2, 1] * d_z[2],
        R[g, b, 0, 2] * d_z[0] + R[g, b, 1, 2] * d_z[1] + R[g, b, 2, 2] * d_z[2],
    )
    if not inside:
        gi, gj, gk = h[0] * cell[g, 0], h[1] * cell[g, 1], h[2] * cell[g, 2]
        moved_under(bodies, g, b, p, to_world(bodies, g, b, gi, gj, gk), to)
        return
    gi = gj = gk = zero
    for x in range(2):
        wi, si = (fi, one) if x else (one - fi, -one)
        for y in range(2):
            wj, sj = (fj, one) if y else (one - fj, -one)
            n = bodies.start[g] + ((i0 + x) * size[g, 1] + j0 + y) * size[g, 2] + k0
            first = h[0] * d[n, 0] + h[1] * d[n, 1] + h[2] * d[n, 2]
            second = h[0] * d[n + 1, 0] + h[1] * d[n + 1, 1] + h[2] * d[n + 1, 2]
            along = (one - fk) * first + fk * second
            gi += si * wj * along
            gj += wi * sj * along
            gk += wi * wj * (second - first)
    moved_under(bodies, g, b, p, to_world(bodies, g, b, gi, gj, gk), to)


@inlined
def _unit(v, d_unit):
    """Of `unit`."""
    far = length(v)
    s = np.float32(1) / max(far, EPS)
    n = (v[0] * s, v[1] * s, v[2] * s)
    along = dot(n, d_unit) if far > EPS else np.float32(0)
    return (
        s * (d_unit[0] - along * n[0]),
        s * (d_unit[1] - along * n[1]),
        s * (d_unit[2] - along * n[2]),
    )


@inlined
def collide(bodies, g, b, p, v, n, weight, d_after, to):
    """Of `collide`, without the push that it writes down: gradients with respect to `v`, `p`, `n` and
    `weight`, in this order; those of the link are added."""
    link, zero = bodies.link[g], np.float32(0)
    c, lin, spin = bodies.centre, bodies.velocity, bodies.spin
    arm = (p[0] - c[link, b, 0], p[1] - c[link, b, 1], p[2] - c[link, b, 2])
    w = (spin[link, b, 0], spin[link, b, 1], spin[link, b, 2])
    u = cross(w, arm)
    r = (
        v[0] - (u[0] + lin[link, b, 0]),
        v[1] - (u[1] + lin[link, b, 1]),
        v[2] - (u[2] + lin[link, b, 2]),
    )
    inward = dot(r, n)
    if inward >= 0:
        nothing = (zero * inward, zero * inward, zero * inward)
        return d_after, nothing, nothing, zero * inward
    t = (r[0] - inward * n[0], r[1] - inward * n[1], r[2] - inward * n[2])
    slip = np.sqrt(dot(t, t) + EPS)
    kept = max(zero, slip + inward * bodies.friction[g]) / slip
    bounce = -inward * bodies.restitution[g]
    # after = v + weight (t kept + n bounce - r)
    change = (
        t[0] * kept + n[0] * bounce - r[0],
        t[1] * kept + n[1] * bounce - r[1],
        t[2] * kept + n[2] * bounce - r[2],
    )
    d_weight = dot(d_after, change)
    h = (weight * d_after[0], weight * d_after[1], weight * d_after[2])
    d_kept = dot(h, t)
    d_inward = -bodies.restitution[g] * dot(h, n)
    d_slip = zero * inward
    if kept > 0:
        # kept = 1 + inward friction / slip
        d_inward += d_kept * bodies.friction[g] / slip
        d_slip = -d_kept * inward * bodies.friction[g] / (slip * slip)
    s = d_slip / slip
    d_t = (kept * h[0] + s * t[0], kept * h[1] + s * t[1], kept * h[2] + s * t[2])
    d_inward -= dot(d_t, n)
    d_n = (
        bounce * h[0] - inward * d_t[0] + d_inward * r[0],
        bounce * h[1] - inward * d_t[1] + d_inward * r[1],
        bounce * h[2] - inward * d_t[2] + d_inward * r[2],
    )
    d_r = (
        d_t[0] - h[0] + d_inward * n[0],
        d_t[1] - h[1] + d_inward * n[1],
        d_t[2] - h[2] + d_inward * n[2],
    )
    # r = v - spin x (p - centre) - velocity
    minus = np.float32(-1)
    add(to.velocity, link, b, d_r, minus)
    add(to.spin, link, b, cross(arm, d_r), minus)
    d_p = cross(w, d_r)
    add(to.centre, link, b, d_p, minus)
    return (
        (d_after[0] + d_r[0], d_after[1] + d_r[1], d_after[2] + d_r[2]), d_p, d_n, d_weight,
    )  # fmt: skip
