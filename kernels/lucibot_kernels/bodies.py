"""Rigid bodies as particles meet them on a CPU: signed distance, normal, and an exchange of momentum.

The maths is Genesis's (its signed distance fields and its coupler), so a simulation does the same
with either; `lucibot.sim.particles` lends these functions Genesis's own memory.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lucibot_kernels.jit import compiled, inlined

PLANE, SPHERE = 0, 1
"""Kinds of shapes, by Genesis's numbers; everything else is a signed distance field."""
BLOCK = 2
"""A block of a field has 2^BLOCK cells along each axis."""
EPS = np.finfo(np.float32).eps
LEAST_INFLUENCE = np.float32(0.1)
NEGLIGIBLE = np.float32(2.302585093)
"""Beyond so many softnesses from a surface a body's influence is below `LEAST_INFLUENCE`."""


class Bodies(NamedTuple):
    """G shapes on L links in B environments, and their signed distance fields.

    All are float32 or int32, views of the simulator's memory; positions [m] in world axes.
    """

    kind: np.ndarray  # (G,) `PLANE`, `SPHERE`, or another
    data: np.ndarray  # (G, 7) a plane's normal in its own axes, or a sphere's radius [m]
    link: np.ndarray  # (G,) the link that a shape belongs to
    softness: np.ndarray  # (G,) [m] how far from the surface it acts
    friction: np.ndarray  # (G,)
    restitution: np.ndarray  # (G,)
    pos: np.ndarray  # (G, B, 3)
    quat: np.ndarray  # (G, B, 4) (w, x, y, z), shape to world
    to_field: np.ndarray  # (G, 4, 4) mesh [m] to cells of the field
    size: np.ndarray  # (G, 3) nodes of the field along each axis
    start: np.ndarray  # (G,) first node in `distance` and `gradient`
    cell: np.ndarray  # (G, 3) [m]
    furthest: np.ndarray  # (G,) [m] greatest distance in the field
    distance: np.ndarray  # (nodes,) [m]
    gradient: np.ndarray  # (nodes, 3)
    blocks: np.ndarray  # (G, 3) blocks along each axis of the field
    block_start: np.ndarray  # (G,) first block in `block_least`
    block_least: np.ndarray  # (blocks,) [m] least distance at the nodes of a block's cells
    velocity: np.ndarray  # (L, B, 3) [m/s] at `centre`
    spin: np.ndarray  # (L, B, 3) [rad/s]
    centre: np.ndarray  # (L, B, 3) about which a link's spin and torque are told
    force: np.ndarray  # (L, B, 3) [N], written: minus what particles exert on a link
    torque: np.ndarray  # (L, B, 3) [N m], written: minus theirs about `centre`
    into: np.ndarray  # (G, B, 3, 4) world [m] to cells; a plane's first row gives the distance [m]
    out: np.ndarray  # (G, B, 3, 3) turns a field's axes into the world's


def primitive(kind: int, environments: int, *, radius_m: float = 0.0) -> Bodies:
    """A plane z = 0 or a ball about the origin on a link of its own: what the kernels meet where there
    is no simulator. Without friction, at rest, with a softness of 2 mm."""
    B = environments
    floats = {
        "data": (7,), "softness": (), "friction": (), "restitution": (), "pos": (B, 3), "quat": (B, 4),
        "to_field": (4, 4), "cell": (3,), "furthest": (), "distance": (), "gradient": (3,),
        "block_least": (), "velocity": (B, 3), "spin": (B, 3), "centre": (B, 3), "force": (B, 3),
        "torque": (B, 3), "into": (B, 3, 4), "out": (B, 3, 3),
    }  # fmt: skip
    numbers = {"kind": (), "link": (), "size": (3,), "start": (), "blocks": (3,), "block_start": ()}
    made = Bodies(
        **{n: np.zeros((1, *s), np.float32) for n, s in floats.items()},
        **{n: np.zeros((1, *s), np.int32) for n, s in numbers.items()},
    )
    made.kind[0], made.softness[0], made.quat[..., 0] = kind, 0.002, 1
    made.data[0, :3] = (0, 0, 1) if kind == PLANE else (radius_m, 0, 0)
    return made


@inlined
def rotate(q, v):
    """A vector (3 numbers) turned by a quaternion (4 numbers)."""
    w, x, y, z = q
    a, b, c = v
    s = np.float32(1) / (w * w + x * x + y * y + z * z)
    two = np.float32(2)
    return (
        s * (a * (x * x + w * w - y * y - z * z) + b * two * (x * y - w * z) + c * two * (x * z + w * y)),
        s * (a * two * (w * z + x * y) + b * (w * w - x * x + y * y - z * z) + c * two * (y * z - w * x)),
        s * (a * two * (x * z - w * y) + b * two * (w * x + y * z) + c * (w * w - x * x - y * y + z * z)),
    )  # fmt: skip


@compiled
def place(bodies):
    """Bring `into` and `out` up to date; to be called when shapes have moved."""
    T, o = bodies.to_field, bodies.pos
    for g in range(len(bodies.kind)):
        for b in range(o.shape[1]):
            q = bodies.quat[g, b]
            w, x, y, z = q[0], q[1], q[2], q[3]
            one, zero = np.float32(1), np.float32(0)
            into, out = bodies.into[g, b], bodies.out[g, b]
            if bodies.kind[g] == PLANE:
                n = bodies.data[g]
                n = unit(rotate((w, x, y, z), (n[0], n[1], n[2])))
                into[0, 0], into[0, 1], into[0, 2] = n
                into[0, 3] = -(n[0] * o[g, b, 0] + n[1] * o[g, b, 1] + n[2] * o[g, b, 2])
                continue
            x0, x1, x2 = rotate((w, x, y, z), (one, zero, zero))
            y0, y1, y2 = rotate((w, x, y, z), (zero, one, zero))
            z0, z1, z2 = rotate((w, x, y, z), (zero, zero, one))
            out[0, 0], out[0, 1], out[0, 2] = x0, y0, z0
            out[1, 0], out[1, 1], out[1, 2] = x1, y1, z1
            out[2, 0], out[2, 1], out[2, 2] = x2, y2, z2
            for r in range(3):
                # The rotation's inverse is its transpose.
                for c in range(3):
                    into[r, c] = (
                        T[g, r, 0] * out[c, 0] + T[g, r, 1] * out[c, 1] + T[g, r, 2] * out[c, 2]
                    )
                into[r, 3] = T[g, r, 3] - (
                    into[r, 0] * o[g, b, 0] + into[r, 1] * o[g, b, 1] + into[r, 2] * o[g, b, 2]
                )


@inlined
def in_field(bodies, g, b, p):
    """Where a world point lies in a shape's field, in cells, and whether that is inside of it."""
    T, size = bodies.into, bodies.size
    i = T[g, b, 0, 0] * p[0] + T[g, b, 0, 1] * p[1] + T[g, b, 0, 2] * p[2] + T[g, b, 0, 3]
    j = T[g, b, 1, 0] * p[0] + T[g, b, 1, 1] * p[1] + T[g, b, 1, 2] * p[2] + T[g, b, 1, 3]
    k = T[g, b, 2, 0] * p[0] + T[g, b, 2, 1] * p[1] + T[g, b, 2, 2] * p[2] + T[g, b, 2, 3]
    inside = 0 < i < size[g, 0] - 1 and 0 < j < size[g, 1] - 1 and 0 < k < size[g, 2] - 1
    return i, j, k, inside


@inlined
def from_middle(bodies, g, i, j, k):
    """From the middle of a shape's field to a place in cells, [m] along the field's axes."""
    size, cell, half = bodies.size, bodies.cell, np.float32(0.5)
    return (
        (i - half * np.float32(size[g, 0] - 1)) * cell[g, 0],
        (j - half * np.float32(size[g, 1] - 1)) * cell[g, 1],
        (k - half * np.float32(size[g, 2] - 1)) * cell[g, 2],
    )


@inlined
def from_centre(bodies, g, b, p):
    o = bodies.pos
    return p[0] - o[g, b, 0], p[1] - o[g, b, 1], p[2] - o[g, b, 2]


@inlined
def signed_distance(bodies, g, b, p):
    """[m] from a world point (3 numbers) to a shape; beyond its field, more than any inside it."""
    kind = bodies.kind[g]
    if kind == PLANE:
        T = bodies.into
        return T[g, b, 0, 0] * p[0] + T[g, b, 0, 1] * p[1] + T[g, b, 0, 2] * p[2] + T[g, b, 0, 3]
    if kind == SPHERE:
        return length(from_centre(bodies, g, b, p)) - bodies.data[g, 0]
    i, j, k, inside = in_field(bodies, g, b, p)
    if not inside:
        return length(from_middle(bodies, g, i, j, k)) + bodies.furthest[g]
    size, d = bodies.size, bodies.distance
    i0, j0, k0 = np.int32(i), np.int32(j), np.int32(k)
    fi, fj, fk = i - np.float32(i0), j - np.float32(j0), k - np.float32(k0)
    one = np.float32(1)
    row = size[g, 2]
    slab = size[g, 1] * row
    n = bodies.start[g] + i0 * slab + j0 * row + k0
    ei, ej, ek = one - fi, one - fj, one - fk
    near = ej * (ek * d[n] + fk * d[n + 1]) + fj * (ek * d[n + row] + fk * d[n + row + 1])
    n += slab
    far = ej * (ek * d[n] + fk * d[n + 1]) + fj * (ek * d[n + row] + fk * d[n + row + 1])
    return ei * near + fi * far


@inlined
def normal(bodies, g, b, p):
    """The outward unit vector (3 numbers) of a shape at a world point."""
    kind, T, R = bodies.kind[g], bodies.into, bodies.out
    if kind == PLANE:
        return T[g, b, 0, 0], T[g, b, 0, 1], T[g, b, 0, 2]
    if kind == SPHERE:
        return unit(from_centre(bodies, g, b, p))
    i, j, k, inside = in_field(bodies, g, b, p)
    if inside:
        size, d = bodies.size, bodies.gradient
        i0, j0, k0 = np.int32(i), np.int32(j), np.int32(k)
        fi, fj, fk = i - np.float32(i0), j - np.float32(j0), k - np.float32(k0)
        one = np.float32(1)
        x = y = z = np.float32(0)
        for a in range(2):
            wi = fi if a else one - fi
            for c in range(2):
                wij = wi * (fj if c else one - fj)
                n = bodies.start[g] + ((i0 + a) * size[g, 1] + j0 + c) * size[g, 2] + k0
                w0, w1 = wij * (one - fk), wij * fk
                x += w0 * d[n, 0] + w1 * d[n + 1, 0]
                y += w0 * d[n, 1] + w1 * d[n + 1, 1]
                z += w0 * d[n, 2] + w1 * d[n + 1, 2]
    else:
        x, y, z = from_middle(bodies, g, i, j, k)
    return unit((
        R[g, b, 0, 0] * x + R[g, b, 0, 1] * y + R[g, b, 0, 2] * z,
        R[g, b, 1, 0] * x + R[g, b, 1, 1] * y + R[g, b, 1, 2] * z,
        R[g, b, 2, 0] * x + R[g, b, 2, 1] * y + R[g, b, 2, 2] * z,
    ))  # fmt: skip


@inlined
def length(v):
    return np.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])


@inlined
def unit(v):
    s = np.float32(1) / max(length(v), EPS)
    return v[0] * s, v[1] * s, v[2] * s


@inlined
def reach(softness):
    """[m] from its surface beyond which a shape has no influence."""
    return NEGLIGIBLE * max(np.float32(1e-10), softness)


@inlined
def distance_within(bodies, g, b, p, limit):
    """The signed distance [m] of a world point to a shape, or `limit` where it is no less."""
    if bodies.kind[g] > SPHERE:
        # The least distance in the block of the field around the point spares most points a look
        # at the field itself, which is large and seldom in the cache.
        i, j, k, inside = in_field(bodies, g, b, p)
        if inside:
            size = bodies.blocks
            i, j, k = np.int32(i) >> BLOCK, np.int32(j) >> BLOCK, np.int32(k) >> BLOCK
            n = bodies.block_start[g] + (i * size[g, 1] + j) * size[g, 2] + k
            if bodies.block_least[n] > np.float32(1.0001) * limit:
                return limit
    return min(signed_distance(bodies, g, b, p), limit)


@inlined
def influence_at(distance, softness):
    """Of a shape at a signed distance [m]: 1 at its surface and inside, falling off over its
    softness, and 0 where it is below `LEAST_INFLUENCE`."""
    if distance >= reach(softness):
        return np.float32(0)
    return min(np.exp(-distance / max(np.float32(1e-10), softness)), np.float32(1))


@inlined
def influence(bodies, g, b, p):
    """Of a shape at a world point, see `influence_at`."""
    softness = bodies.softness[g]
    return influence_at(distance_within(bodies, g, b, p, reach(softness)), softness)


@inlined
def push(bodies, g, b, p, force):
    """A force [N] of particles on a shape's link at a world point, written down for its solver."""
    link = bodies.link[g]
    c, f, t = bodies.centre, bodies.force, bodies.torque
    x, y, z = p[0] - c[link, b, 0], p[1] - c[link, b, 1], p[2] - c[link, b, 2]
    f[link, b, 0] -= force[0]
    f[link, b, 1] -= force[1]
    f[link, b, 2] -= force[2]
    t[link, b, 0] -= y * force[2] - z * force[1]
    t[link, b, 1] -= z * force[0] - x * force[2]
    t[link, b, 2] -= x * force[1] - y * force[0]


@inlined
def collide(bodies, g, b, p, v, mass, n, weight, dt):
    """The velocity (3 numbers) of `mass` [kg] at a world point after it has met a shape with normal
    `n`; the link takes what momentum is lost. `weight` in [0, 1] is the shape's influence."""
    link = bodies.link[g]
    c, lin, spin = bodies.centre, bodies.velocity, bodies.spin
    x, y, z = p[0] - c[link, b, 0], p[1] - c[link, b, 1], p[2] - c[link, b, 2]
    wx, wy, wz = spin[link, b, 0], spin[link, b, 1], spin[link, b, 2]
    # Relative to the body's surface there.
    rx = v[0] - (wy * z - wz * y + lin[link, b, 0])
    ry = v[1] - (wz * x - wx * z + lin[link, b, 1])
    rz = v[2] - (wx * y - wy * x + lin[link, b, 2])
    inward = rx * n[0] + ry * n[1] + rz * n[2]
    if inward >= 0:
        return v
    tx, ty, tz = rx - inward * n[0], ry - inward * n[1], rz - inward * n[2]
    slip = np.sqrt(tx * tx + ty * ty + tz * tz + EPS)
    kept = max(np.float32(0), slip + inward * bodies.friction[g]) / slip
    bounce = -inward * bodies.restitution[g]
    dx = weight * (tx * kept + n[0] * bounce - rx)
    dy = weight * (ty * kept + n[1] * bounce - ry)
    dz = weight * (tz * kept + n[2] * bounce - rz)
    s = -mass / dt
    push(bodies, g, b, p, (s * dx, s * dy, s * dz))
    return v[0] + dx, v[1] + dy, v[2] + dz
