"""The material point method on a CPU core: Genesis's MLS-MPM substep, about ten times as fast.

The same particles, grid, materials and coupling as Genesis's solver, which is the slow twin (tests
compare the two). What differs is how it is computed:

- Environments one after the other, each in a grid of its own that stays in the cache, with plain
  sums where Genesis adds atomically; within the grid, mass and momentum of a cell side by side.
- Principal stretches and directions from F^T F in blocks of `LANES` particles that the compiler
  turns into vector instructions; isotropic materials need no left singular vectors.
- CPIC asks once per cell, not once per particle and cell, on which side of a body a cell lies.

An environment's numbers depend on nothing but its own, so any sharding gives the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lucibot_kernels.bodies import (
    EPS,
    Bodies,
    collide,
    compiled,
    influence,
    inlined,
    normal,
    place,
)

ELASTIC, ELASTOPLASTIC, SAND = 0, 1, 2
"""Kinds of materials."""
LANES = 16
VOLUME_SCALE = np.float32(1e3)
"""Genesis computes with masses and volumes that are so many times the real ones."""


class Particles(NamedTuple):
    """N particles in B environments at the beginning, or the end, of a substep; float32."""

    pos: np.ndarray  # (N, B, 3) [m, world]
    vel: np.ndarray  # (N, B, 3) [m/s]
    C: np.ndarray  # (N, B, 3, 3) [1/s] affine velocity
    F: np.ndarray  # (N, B, 3, 3) deformation gradient
    Jp: np.ndarray  # (N, B) volume that sand has gained [log]


class Matter(NamedTuple):
    """What N particles are made of, in one of M materials."""

    material: np.ndarray  # (N,) int32
    mass: np.ndarray  # (N,) float32 [kg], scaled
    volume: np.float32  # [m^3] of one, scaled
    kind: np.ndarray  # (M,) int32 `ELASTIC`, `ELASTOPLASTIC`, `SAND`
    mu: np.ndarray  # (M,) float32 [Pa]
    lam: np.ndarray  # (M,) float32 [Pa]
    strength: np.ndarray  # (M,) float32 yield stress [Pa], or sand's alpha


class Space(NamedTuple):
    """Grid, time and bounds."""

    cells: np.ndarray  # (3,) int32, along each axis
    offset: np.ndarray  # (3,) int32, the first cell
    dx: np.float32  # [m]
    dt: np.float32  # [s]
    gravity: np.ndarray  # (B, 3) float32 [m/s^2]
    lower: np.ndarray  # (3,) float32 [m] what particles cannot leave
    upper: np.ndarray  # (3,) float32


class Scratch(NamedTuple):
    """Memory of one process; nothing in it outlives a substep."""

    affine: np.ndarray  # (N, B, 3, 3) float32 stress and affine momentum
    grid: np.ndarray  # (X * Y * Z * 4 + 4,) float32 mass and momentum, then velocity, of one environment
    side: np.ndarray  # (S, X * Y * Z, 3) float32 normals of the S separating bodies at the nodes
    seen: np.ndarray  # (X * Y * Z,) bool, nodes at which those are known
    apart: np.ndarray  # (N, 27) int8, which separating body lies between a particle and a node
    parted: np.ndarray  # (N,) bool, whether any does; (0,) without separating bodies
    near: np.ndarray  # (9 * 12,) float32 the stencil of one particle
    block: np.ndarray  # (ROWS * LANES,) float32


def scratch(particles: int, environments: int, cells, separating: int) -> Scratch:
    """Memory for a scene with a grid of `cells` (X, Y, Z) and so many separating bodies."""
    nodes, parted = int(np.prod(cells)), particles if separating else 0
    return Scratch(
        affine=np.zeros((particles, environments, 3, 3), np.float32),
        grid=np.zeros(4 * nodes + 4, np.float32),
        side=np.zeros((separating, nodes, 3), np.float32),
        seen=np.zeros(nodes if separating else 0, np.bool_),
        apart=np.full((parted, 27), -1, np.int8),
        parted=np.zeros(parted, np.bool_),
        near=np.zeros(9 * 12, np.float32),
        block=np.zeros(ROWS * LANES, np.float32),
    )


# Rows of a block: F (9), then V (9), then the squares of the principal stretches (3), then det F.
ROWS = 22


@inlined
def _rotation(app, aqq, apq):
    """Cosine and sine of the Jacobi rotation that makes the element (p, q) vanish."""
    d, two = aqq - app, np.float32(2)
    root = np.sqrt(d * d + np.float32(4) * apq * apq)
    t = two * apq / (d + (root if d >= 0 else -root) + np.float32(1e-30))
    c = np.float32(1) / np.sqrt(t * t + np.float32(1))
    return c, t * c, t


@inlined
def _sweep(a, b, c, d, e, f, V):
    """One Jacobi sweep over a symmetric matrix [[a, d, e], [d, b, f], [e, f, c]]; V collects."""
    v0, v1, v2, v3, v4, v5, v6, v7, v8 = V
    k, s, t = _rotation(a, b, d)
    a, b = a - t * d, b + t * d
    d = np.float32(0)
    e, f = k * e - s * f, s * e + k * f
    v0, v1, v3, v4, v6, v7 = (
        k * v0 - s * v1, s * v0 + k * v1, k * v3 - s * v4, s * v3 + k * v4,
        k * v6 - s * v7, s * v6 + k * v7,
    )  # fmt: skip
    k, s, t = _rotation(a, c, e)
    a, c = a - t * e, c + t * e
    e = np.float32(0)
    d, f = k * d - s * f, s * d + k * f
    v0, v2, v3, v5, v6, v8 = (
        k * v0 - s * v2, s * v0 + k * v2, k * v3 - s * v5, s * v3 + k * v5,
        k * v6 - s * v8, s * v6 + k * v8,
    )  # fmt: skip
    k, s, t = _rotation(b, c, f)
    b, c = b - t * f, c + t * f
    f = np.float32(0)
    d, e = k * d - s * e, s * d + k * e
    v1, v2, v4, v5, v7, v8 = (
        k * v1 - s * v2, s * v1 + k * v2, k * v4 - s * v5, s * v4 + k * v5,
        k * v7 - s * v8, s * v7 + k * v8,
    )  # fmt: skip
    return a, b, c, d, e, f, (v0, v1, v2, v3, v4, v5, v6, v7, v8)


@compiled
def stretches(w):
    """Fill a block (ROWS * LANES,) with V, the squared stretches and det F of the F in it."""
    for n in range(LANES):
        x0, x1, x2 = w[n], w[1 * LANES + n], w[2 * LANES + n]
        x3, x4, x5 = w[3 * LANES + n], w[4 * LANES + n], w[5 * LANES + n]
        x6, x7, x8 = w[6 * LANES + n], w[7 * LANES + n], w[8 * LANES + n]
        one, zero = np.float32(1), np.float32(0)
        a = x0 * x0 + x3 * x3 + x6 * x6
        b = x1 * x1 + x4 * x4 + x7 * x7
        c = x2 * x2 + x5 * x5 + x8 * x8
        d = x0 * x1 + x3 * x4 + x6 * x7
        e = x0 * x2 + x3 * x5 + x6 * x8
        f = x1 * x2 + x4 * x5 + x7 * x8
        V = (one, zero, zero, zero, one, zero, zero, zero, one)
        a, b, c, d, e, f, V = _sweep(a, b, c, d, e, f, V)
        a, b, c, d, e, f, V = _sweep(a, b, c, d, e, f, V)
        a, b, c, d, e, f, V = _sweep(a, b, c, d, e, f, V)
        a, b, c, d, e, f, V = _sweep(a, b, c, d, e, f, V)
        w[9 * LANES + n], w[10 * LANES + n], w[11 * LANES + n] = V[0], V[1], V[2]
        w[12 * LANES + n], w[13 * LANES + n], w[14 * LANES + n] = V[3], V[4], V[5]
        w[15 * LANES + n], w[16 * LANES + n], w[17 * LANES + n] = V[6], V[7], V[8]
        w[18 * LANES + n], w[19 * LANES + n], w[20 * LANES + n] = a, b, c
        w[21 * LANES + n] = (
            x0 * (x4 * x8 - x5 * x7) - x1 * (x3 * x8 - x5 * x6) + x2 * (x3 * x7 - x4 * x6)
        )  # fmt: skip


@compiled
def particle_normals(pos, bodies, separating, normals):
    """CPIC's memory of each particle's side of each separating body, brought up to date.

    Args:
        pos: (N, B, 3) [m, world].
        separating: (S,) int32, shapes that part particles.
        normals: (S, N, B, 3) float32, written: a normal is kept where the new one points the other
            way, for then the body has passed through the particle.
    """
    N, B, _ = pos.shape
    place(bodies)
    for s in range(len(separating)):
        g = separating[s]
        for i in range(N):
            for b in range(B):
                n = normal(bodies, g, b, (pos[i, b, 0], pos[i, b, 1], pos[i, b, 2]))
                k0, k1, k2 = normals[s, i, b, 0], normals[s, i, b, 1], normals[s, i, b, 2]
                if n[0] * k0 + n[1] * k1 + n[2] * k2 >= 0:
                    normals[s, i, b, 0], normals[s, i, b, 1], normals[s, i, b, 2] = n


@compiled
def stress_and_strain(now, after, matter, space, affine, w):
    """The new F and Jp of all particles, and their stress with their affine momentum in `affine`."""
    N, B, _ = now.pos.shape
    inv_dx = np.float32(1) / space.dx
    scale = -space.dt * matter.volume * np.float32(4) * inv_dx * inv_dx
    one = np.float32(1)
    C, F = now.C.reshape(N * B, 9), now.F.reshape(N * B, 9)
    F_new, out = after.F.reshape(N * B, 9), affine.reshape(N * B, 9)
    Jp, Jp_new = now.Jp.reshape(N * B), after.Jp.reshape(N * B)
    dt = space.dt
    for first in range(0, N * B, LANES):
        count = min(LANES, N * B - first)
        for n in range(count):
            c, f = C[first + n], F[first + n]
            for row in range(3):
                for col in range(3):
                    w[(3 * row + col) * LANES + n] = f[3 * row + col] + dt * (
                        c[3 * row] * f[col] + c[3 * row + 1] * f[3 + col] + c[3 * row + 2] * f[6 + col]
                    )
        stretches(w)
        for n in range(count):
            at = first + n
            p = at // B
            m = matter.material[p]
            J = w[21 * LANES + n]
            s0, s1, s2 = np.sqrt(w[18 * LANES + n]), np.sqrt(w[19 * LANES + n]), np.sqrt(w[20 * LANES + n])
            if J < 0:  # Turned inside out: by convention the least stretch carries the sign.
                if s0 <= s1 and s0 <= s2:
                    s0 = -s0
                elif s1 <= s2:
                    s1 = -s1
                else:
                    s2 = -s2
            mu, lam = matter.mu[m], matter.lam[m]
            r0 = r1 = r2 = one  # New over old stretch.
            pressure = lam * J * (J - one)
            Jp_new[at] = Jp[at]
            if matter.kind[m] == SAND:
                e0, e1, e2, gained = _flow_of_sand(s0, s1, s2, Jp[at], mu, lam, matter.strength[m])
                Jp_new[at] = gained
                t0, t1, t2 = np.exp(e0), np.exp(e1), np.exp(e2)
                # The stress of logarithmic strain, without a pressure of its own.
                trace = lam * (e0 + e1 + e2)
                two = np.float32(2) * mu
                k0, k1, k2 = two * e0 + trace, two * e1 + trace, two * e2 + trace
                pressure = np.float32(0)
            else:
                t0, t1, t2 = s0, s1, s2
                if matter.kind[m] == ELASTOPLASTIC:
                    t0, t1, t2 = _flow_of_dough(s0, s1, s2, matter.strength[m] / (np.float32(2) * mu))
                two = np.float32(2) * mu
                k0, k1, k2 = two * (t0 - one) * t0, two * (t1 - one) * t1, two * (t2 - one) * t2
            s0, s1, s2 = _not_zero(s0), _not_zero(s1), _not_zero(s2)
            r0, r1, r2 = t0 / s0, t1 / s1, t2 / s2
            k0, k1, k2 = k0 / (s0 * s0), k1 / (s1 * s1), k2 / (s2 * s2)
            new, a, c, mass = F_new[at], out[at], C[at], matter.mass[p]
            x0, x1, x2 = w[n], w[LANES + n], w[2 * LANES + n]
            x3, x4, x5 = w[3 * LANES + n], w[4 * LANES + n], w[5 * LANES + n]
            x6, x7, x8 = w[6 * LANES + n], w[7 * LANES + n], w[8 * LANES + n]
            v0, v1, v2 = w[9 * LANES + n], w[10 * LANES + n], w[11 * LANES + n]
            v3, v4, v5 = w[12 * LANES + n], w[13 * LANES + n], w[14 * LANES + n]
            v6, v7, v8 = w[15 * LANES + n], w[16 * LANES + n], w[17 * LANES + n]
            # F V: the left singular vectors, each as long as its stretch.
            u0, u1, u2 = x0 * v0 + x1 * v3 + x2 * v6, x0 * v1 + x1 * v4 + x2 * v7, x0 * v2 + x1 * v5 + x2 * v8
            u3, u4, u5 = x3 * v0 + x4 * v3 + x5 * v6, x3 * v1 + x4 * v4 + x5 * v7, x3 * v2 + x4 * v5 + x5 * v8
            u6, u7, u8 = x6 * v0 + x7 * v3 + x8 * v6, x6 * v1 + x7 * v4 + x8 * v7, x6 * v2 + x7 * v5 + x8 * v8
            if r0 == one and r1 == one and r2 == one:
                new[0], new[1], new[2] = x0, x1, x2
                new[3], new[4], new[5] = x3, x4, x5
                new[6], new[7], new[8] = x6, x7, x8
            else:
                new[0] = r0 * u0 * v0 + r1 * u1 * v1 + r2 * u2 * v2
                new[1] = r0 * u0 * v3 + r1 * u1 * v4 + r2 * u2 * v5
                new[2] = r0 * u0 * v6 + r1 * u1 * v7 + r2 * u2 * v8
                new[3] = r0 * u3 * v0 + r1 * u4 * v1 + r2 * u5 * v2
                new[4] = r0 * u3 * v3 + r1 * u4 * v4 + r2 * u5 * v5
                new[5] = r0 * u3 * v6 + r1 * u4 * v7 + r2 * u5 * v8
                new[6] = r0 * u6 * v0 + r1 * u7 * v1 + r2 * u8 * v2
                new[7] = r0 * u6 * v3 + r1 * u7 * v4 + r2 * u8 * v5
                new[8] = r0 * u6 * v6 + r1 * u7 * v7 + r2 * u8 * v8
            xy = k0 * u0 * u3 + k1 * u1 * u4 + k2 * u2 * u5
            xz = k0 * u0 * u6 + k1 * u1 * u7 + k2 * u2 * u8
            yz = k0 * u3 * u6 + k1 * u4 * u7 + k2 * u5 * u8
            a[0] = scale * (k0 * u0 * u0 + k1 * u1 * u1 + k2 * u2 * u2 + pressure) + mass * c[0]
            a[1] = scale * xy + mass * c[1]
            a[2] = scale * xz + mass * c[2]
            a[3] = scale * xy + mass * c[3]
            a[4] = scale * (k0 * u3 * u3 + k1 * u4 * u4 + k2 * u5 * u5 + pressure) + mass * c[4]
            a[5] = scale * yz + mass * c[5]
            a[6] = scale * xz + mass * c[6]
            a[7] = scale * yz + mass * c[7]
            a[8] = scale * (k0 * u6 * u6 + k1 * u7 * u7 + k2 * u8 * u8 + pressure) + mass * c[8]


@inlined
def _not_zero(s):
    least = np.float32(1e-6)
    return s if s > least or s < -least else least


@inlined
def _flow_of_dough(s0, s1, s2, limit):
    """Stretches after a von Mises return in logarithmic strain whose deviator is limited."""
    least, third = np.float32(0.05), np.float32(1 / 3)
    s0, s1, s2 = max(s0, least), max(s1, least), max(s2, least)
    # log(s) = 2 atanh((s - 1) / (s + 1)) bounds the strain cheaply: most particles do not flow.
    spread = max(s0, s1, s2) / min(s0, s1, s2) - np.float32(1)
    if spread * np.float32(0.81649658) < limit:
        return s0, s1, s2
    e0, e1, e2 = np.log(s0), np.log(s1), np.log(s2)
    mean = third * (e0 + e1 + e2)
    d0, d1, d2 = e0 - mean, e1 - mean, e2 - mean
    size = np.sqrt(d0 * d0 + d1 * d1 + d2 * d2 + EPS)
    if size <= limit:
        return s0, s1, s2
    kept = limit / size
    return np.exp(mean + kept * d0), np.exp(mean + kept * d1), np.exp(mean + kept * d2)


@inlined
def _flow_of_sand(s0, s1, s2, Jp, mu, lam, alpha):
    """Logarithmic strains after a Drucker-Prager return (Klar et al. 2016), and the volume gained."""
    least, zero, third = np.float32(1e-4), np.float32(0), np.float32(1 / 3)
    e0, e1, e2 = np.log(max(abs(s0), least)), np.log(max(abs(s1), least)), np.log(max(abs(s2), least))
    trace = e0 + e1 + e2 + Jp
    if trace >= 0:
        return zero, zero, zero, trace
    d0, d1, d2 = e0 - third * trace, e1 - third * trace, e2 - third * trace
    size = np.sqrt(d0 * d0 + d1 * d1 + d2 * d2 + EPS)
    two = np.float32(2)
    excess = size + (np.float32(3) * lam + two * mu) / (two * mu) * trace * alpha
    cut = max(zero, excess) / size
    return e0 - cut * d0, e1 - cut * d1, e2 - cut * d2, zero


@compiled
def substep(now, after, matter, space, bodies, coupled, separating, normals, scratch):
    """One substep of all environments: from `now` to `after` (`Particles`), with forces on `bodies`.

    Args:
        coupled: (G',) int32, the shapes that particles meet on the grid.
        separating, normals: see `particle_normals`; (0,) where there are none.
    """
    place(bodies)
    stress_and_strain(now, after, matter, space, scratch.affine, scratch.block)
    for b in range(now.pos.shape[1]):
        low, high = _box(b, now.pos, space)
        if len(separating):
            _tell_apart(b, now.pos, space, bodies, separating, normals, scratch, low, high)
        _to_grid(b, now, matter, space, scratch, low, high)
        _on_grid(b, space, bodies, coupled, scratch, low, high)
        _from_grid(b, now, after, matter, space, bodies, separating, normals, scratch)


@inlined
def _node(x, inv_dx):
    """The first of the three grid nodes that a particle touches along an axis, and how far from it
    the particle is, in cells."""
    u = x * inv_dx
    first = np.int32(np.floor(u - np.float32(0.5)))
    return first, u - np.float32(first)


@inlined
def _weights(f):
    """Of the three nodes: quadratic B-spline."""
    half = np.float32(0.5)
    a, b, c = np.float32(1.5) - f, f - np.float32(1), f - half
    return half * a * a, np.float32(0.75) - b * b, half * c * c


@compiled
def _box(b, pos, space):
    """First and last node (3 numbers each, the last excluded) that the particles of b touch."""
    inv_dx = np.float32(1) / space.dx
    big = np.float32(1e30)
    a0 = a1 = a2 = big
    b0 = b1 = b2 = -big
    for p in range(len(pos)):
        x, y, z = pos[p, b, 0], pos[p, b, 1], pos[p, b, 2]
        a0, a1, a2 = min(a0, x), min(a1, y), min(a2, z)
        b0, b1, b2 = max(b0, x), max(b1, y), max(b2, z)
    o = space.offset
    low = (_node(a0, inv_dx)[0] - o[0], _node(a1, inv_dx)[0] - o[1], _node(a2, inv_dx)[0] - o[2])
    high = (_node(b0, inv_dx)[0] - o[0] + 3, _node(b1, inv_dx)[0] - o[1] + 3,
            _node(b2, inv_dx)[0] - o[2] + 3)  # fmt: skip
    return low, high


@compiled
def _tell_apart(b, pos, space, bodies, separating, normals, scratch, low, high):
    """For each particle of environment b and each node of its stencil: the first separating body
    that has the two on different sides, or -1."""
    inv_dx, dx = np.float32(1) / space.dx, space.dx
    o0, o1, o2 = space.offset[0], space.offset[1], space.offset[2]
    Y, Z = space.cells[1], space.cells[2]
    seen, side, apart, parted = scratch.seen, scratch.side, scratch.apart, scratch.parted
    for i in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            n = (i * Y + j) * Z
            seen[n + low[2] : n + high[2]] = False
    for p in range(len(pos)):
        i = _node(pos[p, b, 0], inv_dx)[0] - o0
        j = _node(pos[p, b, 1], inv_dx)[0] - o1
        k = _node(pos[p, b, 2], inv_dx)[0] - o2
        for x in range(3):
            for y in range(3):
                n = ((i + x) * Y + j + y) * Z + k
                for z in range(3):
                    if not seen[n + z]:
                        seen[n + z] = True
                        at = (np.float32(i + x + o0) * dx, np.float32(j + y + o1) * dx,
                              np.float32(k + z + o2) * dx)  # fmt: skip
                        for s in range(len(separating)):
                            v = normal(bodies, separating[s], b, at)
                            side[s, n + z, 0], side[s, n + z, 1], side[s, n + z, 2] = v
        any_ = False
        for s in range(len(separating) - 1, -1, -1):
            n0, n1, n2 = normals[s, p, b, 0], normals[s, p, b, 1], normals[s, p, b, 2]
            last = s == len(separating) - 1
            for x in range(3):
                for y in range(3):
                    n, to = ((i + x) * Y + j + y) * Z + k, 9 * x + 3 * y
                    for z in range(3):
                        toward = side[s, n + z, 0] * n0 + side[s, n + z, 1] * n1 + side[s, n + z, 2] * n2
                        any_ |= toward < 0
                        if last or toward < 0:
                            apart[p, to + z] = s if toward < 0 else -1
        parted[p] = any_


@compiled
def _to_grid(b, now, matter, space, scratch, low, high):
    """Mass and momentum of environment b's particles to the nodes of its grid."""
    grid, dx = scratch.grid, space.dx
    inv_dx = np.float32(1) / dx
    o0, o1, o2 = space.offset[0], space.offset[1], space.offset[2]
    Y, Z = space.cells[1], space.cells[2]
    affine, parted, apart = scratch.affine, scratch.parted, scratch.apart
    pos, vel, mass = now.pos, now.vel, matter.mass
    for i in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            n = (i * Y + j) * Z
            grid[4 * (n + low[2]) : 4 * (n + high[2])] = 0
    for p in range(len(pos)):
        i, fx = _node(pos[p, b, 0], inv_dx)
        j, fy = _node(pos[p, b, 1], inv_dx)
        k, fz = _node(pos[p, b, 2], inv_dx)
        n = 4 * (((i - o0) * Y + j - o1) * Z + k - o2)
        m = mass[p]
        a0, a1, a2 = affine[p, b, 0, 0] * dx, affine[p, b, 1, 0] * dx, affine[p, b, 2, 0] * dx
        b0, b1, b2 = affine[p, b, 0, 1] * dx, affine[p, b, 1, 1] * dx, affine[p, b, 2, 1] * dx
        c0, c1, c2 = affine[p, b, 0, 2] * dx, affine[p, b, 1, 2] * dx, affine[p, b, 2, 2] * dx
        w = (_weights(fx), _weights(fy), _weights(fz))
        # Momentum at the stencil's first node; that at node (x, y, z) is q + x a + y b + z c.
        q = (
            m * vel[p, b, 0] - a0 * fx - b0 * fy - c0 * fz,
            m * vel[p, b, 1] - a1 * fx - b1 * fy - c1 * fz,
            m * vel[p, b, 2] - a2 * fx - b2 * fy - c2 * fz,
        )
        whole = not (len(parted) and parted[p])
        for x in range(3):
            for y in range(3):
                W, X_, Y_ = w[0][x] * w[1][y], np.float32(x), np.float32(y)
                q0, q1, q2 = q[0] + X_ * a0 + Y_ * b0, q[1] + X_ * a1 + Y_ * b1, q[2] + X_ * a2 + Y_ * b2
                for z in range(3):
                    if whole or apart[p, 9 * x + 3 * y + z] < 0:
                        at, weight, Z_ = n + 4 * (Z * (x * Y + y) + z), W * w[2][z], np.float32(z)
                        grid[at] += weight * m
                        grid[at + 1] += weight * (q0 + Z_ * c0)
                        grid[at + 2] += weight * (q1 + Z_ * c1)
                        grid[at + 3] += weight * (q2 + Z_ * c2)


@compiled
def _on_grid(b, space, bodies, coupled, scratch, low, high):
    """Momentum to velocity on the grid of environment b: gravity, bodies, bounds."""
    grid, dx, dt = scratch.grid, space.dx, space.dt
    o0, o1, o2 = space.offset[0], space.offset[1], space.offset[2]
    Y, Z = space.cells[1], space.cells[2]
    g0, g1, g2 = dt * space.gravity[b, 0], dt * space.gravity[b, 1], dt * space.gravity[b, 2]
    for i in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            for k in range(low[2], high[2]):
                n = 4 * ((i * Y + j) * Z + k)
                mass = grid[n]
                if mass <= EPS:
                    grid[n + 1] = grid[n + 2] = grid[n + 3] = np.float32(0)
                    continue
                s = np.float32(1) / mass
                v = (s * grid[n + 1] + g0, s * grid[n + 2] + g1, s * grid[n + 3] + g2)
                at = (np.float32(i + o0) * dx, np.float32(j + o1) * dx, np.float32(k + o2) * dx)
                for c in range(len(coupled)):
                    g = coupled[c]
                    weight = influence(bodies, g, b, at)
                    if weight > 0:
                        v = collide(bodies, g, b, at, v, mass / VOLUME_SCALE,
                                    normal(bodies, g, b, at), weight, dt)  # fmt: skip
                grid[n + 1], grid[n + 2], grid[n + 3] = _within(at, v, space)


@compiled
def _from_grid(b, now, after, matter, space, bodies, separating, normals, scratch):
    """Velocities from the grid to environment b's particles, which move."""
    grid, dx, dt = scratch.grid, space.dx, space.dt
    inv_dx = np.float32(1) / dx
    o0, o1, o2 = space.offset[0], space.offset[1], space.offset[2]
    Y, Z = space.cells[1], space.cells[2]
    parted, pos, new_pos, new_vel, new_C = scratch.parted, now.pos, after.pos, after.vel, after.C
    lower, upper = space.lower, space.upper
    slab, line = 4 * Y * Z, 4 * Z
    near = scratch.near
    for p in range(len(pos)):
        at = (pos[p, b, 0], pos[p, b, 1], pos[p, b, 2])
        i, fx = _node(at[0], inv_dx)
        j, fy = _node(at[1], inv_dx)
        k, fz = _node(at[2], inv_dx)
        n = 4 * (((i - o0) * Y + j - o1) * Z + k - o2)
        w = (_weights(fx), _weights(fy), _weights(fz))
        if len(parted) and parted[p]:
            _met(p, b, at, n, slab, line, now, matter, space, bodies, separating, normals, scratch,
                 w, near)  # fmt: skip
            v, c = _gather(near, 0, 36, 12, w)
        else:
            v, c = _gather(grid, n, slab, line, w)
        s = np.float32(4) * inv_dx
        new_C[p, b, 0, 0], new_C[p, b, 0, 1] = s * (c[0] - fx * v[0]), s * (c[3] - fy * v[0])
        new_C[p, b, 1, 0], new_C[p, b, 1, 1] = s * (c[1] - fx * v[1]), s * (c[4] - fy * v[1])
        new_C[p, b, 2, 0], new_C[p, b, 2, 1] = s * (c[2] - fx * v[2]), s * (c[5] - fy * v[2])
        new_C[p, b, 0, 2] = s * (c[6] - fz * v[0])
        new_C[p, b, 1, 2] = s * (c[7] - fz * v[1])
        new_C[p, b, 2, 2] = s * (c[8] - fz * v[2])
        to = (at[0] + dt * v[0], at[1] + dt * v[1], at[2] + dt * v[2])
        v = _within(to, v, space)
        for a in range(3):
            # Written so that what is not a number ends at a border, where it is found.
            q = min(to[a], upper[a])
            new_pos[p, b, a] = q if q >= lower[a] else lower[a]
            new_vel[p, b, a] = v[a]


@inlined
def _gather(grid, at, slab, line, w):
    """Weighted over a stencil: the velocity, and its products with x, y and z of the node."""
    wx, wy, wz = w
    z0, z1, z2 = wz
    zz, two = z2 + z2, np.float32(2)
    v0 = v1 = v2 = x0 = x1 = x2 = y0 = y1 = y2 = h0 = h1 = h2 = np.float32(0)
    for x in range(3):
        s0 = s1 = s2 = np.float32(0)
        for y in range(3):
            n = at + slab * x + line * y
            a0, a1, a2 = grid[n + 1], grid[n + 2], grid[n + 3]
            b0, b1, b2 = grid[n + 5], grid[n + 6], grid[n + 7]
            c0, c1, c2 = grid[n + 9], grid[n + 10], grid[n + 11]
            W = wx[x] * wy[y]
            r0, r1, r2 = (
                W * (z0 * a0 + z1 * b0 + z2 * c0), W * (z0 * a1 + z1 * b1 + z2 * c1),
                W * (z0 * a2 + z1 * b2 + z2 * c2),
            )  # fmt: skip
            s0, s1, s2 = s0 + r0, s1 + r1, s2 + r2
            Y = np.float32(y)
            y0, y1, y2 = y0 + Y * r0, y1 + Y * r1, y2 + Y * r2
            h0 += W * (z1 * b0 + zz * c0)
            h1 += W * (z1 * b1 + zz * c1)
            h2 += W * (z1 * b2 + zz * c2)
        X = np.float32(x)
        v0, v1, v2 = v0 + s0, v1 + s1, v2 + s2
        x0, x1, x2 = x0 + X * s0, x1 + X * s1, x2 + X * s2
    return (v0, v1, v2), (x0, x1, x2, y0, y1, y2, h0, h1, h2)


@inlined
def _met(p, b, at, n, slab, line, now, matter, space, bodies, separating, normals, scratch, w, near):
    """The stencil of a particle that a body parts from some of its nodes, copied to `near`
    (9 * 12,): in those nodes' place is the velocity that the particle would have had it met the body."""
    wx, wy, wz = w
    grid = scratch.grid
    v = (now.vel[p, b, 0], now.vel[p, b, 1], now.vel[p, b, 2])
    for x in range(3):
        for y in range(3):
            for z in range(3):
                to, start = 12 * (3 * x + y) + 4 * z, n + slab * x + line * y + 4 * z
                s = scratch.apart[p, 9 * x + 3 * y + z]
                if s < 0:
                    near[to + 1], near[to + 2] = grid[start + 1], grid[start + 2]
                    near[to + 3] = grid[start + 3]
                    continue
                weight = wx[x] * wy[y] * wz[z]
                normal_ = (normals[s, p, b, 0], normals[s, p, b, 1], normals[s, p, b, 2])
                near[to + 1], near[to + 2], near[to + 3] = collide(
                    bodies, separating[s], b, at, v, matter.mass[p] * weight / VOLUME_SCALE,
                    normal_, np.float32(1), space.dt,
                )  # fmt: skip


@inlined
def _within(at, v, space):
    """A velocity without what leads out of bounds."""
    zero = np.float32(0)
    lower, upper = space.lower, space.upper
    out0 = (at[0] >= upper[0] and v[0] >= 0) or (at[0] <= lower[0] and v[0] <= 0)
    out1 = (at[1] >= upper[1] and v[1] >= 0) or (at[1] <= lower[1] and v[1] <= 0)
    out2 = (at[2] >= upper[2] and v[2] >= 0) or (at[2] <= lower[2] and v[2] <= 0)
    return zero if out0 else v[0], zero if out1 else v[1], zero if out2 else v[2]
