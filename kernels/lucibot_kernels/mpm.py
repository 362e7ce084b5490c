"""The material point method on a CPU core: Genesis's MLS-MPM substep, about ten times as fast.

The same particles, grid, materials and coupling as Genesis's solver, which is the slow twin (tests
compare the two). What differs is how it is computed:

- Environments one after the other, each in a grid of its own that stays in the cache, with plain
  sums where Genesis adds atomically; within the grid, mass and momentum of a cell side by side.
- Principal stretches and directions from F^T F in blocks of `LANES` particles that the compiler
  turns into vector instructions; isotropic materials need no left singular vectors.
- CPIC asks once per cell, not once per particle and cell, on which side of a body a cell lies.

In one thing it is not Genesis's: see `particle_normals`.

An environment's numbers depend on nothing but its own, so any sharding gives the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lucibot_kernels.bodies import EPS, collide, distance_within, influence, normal, place
from lucibot_kernels.jit import compiled, inlined
from lucibot_kernels.mpm_materials import LANES, ROWS, stress_and_strain

VOLUME_SCALE = np.float32(1e3)
"""Genesis computes with masses and volumes that are so many times the real ones."""


class Particles(NamedTuple):
    """N particles in B environments; float32."""

    pos: np.ndarray  # (N, B, 3) [m, world]
    vel: np.ndarray  # (N, B, 3) [m/s]
    C: np.ndarray  # (N, B, 3, 3) [1/s] affine velocity
    F: np.ndarray  # (N, B, 3, 3) deformation gradient
    Jp: np.ndarray  # (N, B) volume that sand has gained [log]


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
    grid: (
        np.ndarray
    )  # (X * Y * Z * 4 + 4,) float32 mass and momentum, then velocity, of one environment
    side: np.ndarray  # (S, X * Y * Z, 3) float32 normals of the S separating bodies at the nodes
    seen: np.ndarray  # (X * Y * Z,) bool, nodes at which those are known
    apart: np.ndarray  # (N, 27) int8, which separating body lies between a particle and a node
    parted: np.ndarray  # (N,) bool, whether any does; (0,) without separating bodies
    near: np.ndarray  # (9 * 12,) float32 the stencil of one particle
    block: np.ndarray  # (ROWS * LANES,) float32


def scratch(particles: int, environments: int, cells, separating: int, dtype=np.float32) -> Scratch:
    """Memory for a scene with a grid of `cells` (X, Y, Z) and so many separating bodies; in double
    precision, where all arrays of a substep have it, its derivatives can be checked."""
    nodes, parted = int(np.prod(cells)), particles if separating else 0
    return Scratch(
        affine=np.zeros((particles, environments, 3, 3), dtype),
        grid=np.zeros(4 * nodes + 4, dtype),
        side=np.zeros((separating, nodes, 3), dtype),
        seen=np.zeros(nodes if separating else 0, np.bool_),
        apart=np.full((parted, 27), -1, np.int8),
        parted=np.zeros(parted, np.bool_),
        near=np.zeros(9 * 12, dtype),
        block=np.zeros(ROWS * LANES, dtype),
    )


@compiled
def particle_normals(pos, bodies, separating, normals):
    """CPIC's memory of each particle's side of each separating body, brought up to date.

    Args:
        pos: (N, B, 3) [m, world].
        separating: (S,) int32, shapes that part particles.
        normals: (S, N, B, 3) float32, written: a normal is kept where the new one points the other
            way, for then the body has passed through the particle, and as long as the particle is
            in the body's wall: in its middle, where both sides are as near, the nearest way out
            points anywhere, and from one such normal to the next the side would be forgotten.
    """
    N, B, _ = pos.shape
    place(bodies)
    for s in range(len(separating)):
        g = separating[s]
        for i in range(N):
            for b in range(B):
                at = (pos[i, b, 0], pos[i, b, 1], pos[i, b, 2])
                k0, k1, k2 = normals[s, i, b, 0], normals[s, i, b, 1], normals[s, i, b, 2]
                known = k0 != 0 or k1 != 0 or k2 != 0
                if known and distance_within(bodies, g, b, at, EPS) <= 0:
                    continue
                n = normal(bodies, g, b, at)
                if n[0] * k0 + n[1] * k1 + n[2] * k2 >= 0:
                    normals[s, i, b, 0], normals[s, i, b, 1], normals[s, i, b, 2] = n


@compiled
def substep(particles, matter, space, bodies, coupled, separating, normals, scratch):
    """Carry all environments a substep on, and write down the forces on `bodies`.

    Args:
        coupled: (G',) int32, the shapes that particles meet on the grid.
        separating, normals: see `particle_normals`; (0,) where there are none.
    """
    place(bodies)
    stress_and_strain(particles, matter, space, scratch.affine, scratch.block)
    for b in range(particles.pos.shape[1]):
        low, high = _box(b, particles.pos, space)
        if len(separating):
            _tell_apart(b, particles.pos, space, bodies, separating, normals, scratch, low, high)
        _to_grid(b, particles, matter, space, scratch, low, high)
        _on_grid(b, space, bodies, coupled, scratch, low, high)
        _from_grid(b, particles, matter, space, bodies, separating, normals, scratch)


@inlined
def _node(x, inv_dx):
    """The first of the three grid nodes that a particle touches along an axis, and how far from it
    the particle is, in cells."""
    u = x * inv_dx
    first = np.int32(np.floor(u - np.float32(0.5)))
    return first, u - np.float32(first)


@inlined
def _rows(space):
    """Rows of a slab of the grid, and nodes of a row. The masks, here and in `_index`, tell the
    compiler that a number is not negative, which spares every access to a grid a test for indices
    that count from the end."""
    return np.int64(space.cells[1]) & 0xFFFF, np.int64(space.cells[2]) & 0xFFFF


@inlined
def _index(i, j, k, Y, Z):
    """Of a node in a grid laid out flat."""
    return np.int64((i * Y + j) * Z + k) & 0x7FFFFFFF


@inlined
def _weights(f):
    """Of the three nodes: quadratic B-spline."""
    half = np.float32(0.5)
    a, b, c = np.float32(1.5) - f, f - np.float32(1), f - half
    return half * a * a, np.float32(0.75) - b * b, half * c * c


@compiled
def _box(b, pos, space):
    """First and last node (3 numbers each, the last excluded) that the particles of b touch. Whatever
    was put out of bounds, or where nothing is a number, is brought to a border first."""
    inv_dx, lower, upper = np.float32(1) / space.dx, space.lower, space.upper
    big = np.float32(1e30)
    a0 = a1 = a2 = big
    b0 = b1 = b2 = -big
    for p in range(len(pos)):
        for a in range(3):
            if not lower[a] <= pos[p, b, a] <= upper[a]:
                pos[p, b, a] = upper[a] if pos[p, b, a] > upper[a] else lower[a]
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
    that has the two on different sides, or -1; for those that are parted from any node."""
    inv_dx, dx = np.float32(1) / space.dx, space.dx
    o0, o1, o2 = space.offset[0], space.offset[1], space.offset[2]
    Y, Z = _rows(space)
    seen, side, apart, parted = scratch.seen, scratch.side, scratch.apart, scratch.parted
    for i in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            n = (i * Y + j) * Z
            seen[n + low[2] : n + high[2]] = False
    for p in range(len(pos)):
        i = _node(pos[p, b, 0], inv_dx)[0] - o0
        j = _node(pos[p, b, 1], inv_dx)[0] - o1
        k = _node(pos[p, b, 2], inv_dx)[0] - o2
        first = _index(i, j, k, Y, Z)
        for x in range(3):
            for y in range(3):
                n = first + (x * Y + y) * Z
                if seen[n] and seen[n + 1] and seen[n + 2]:
                    continue
                for z in range(3):
                    if not seen[n + z]:
                        seen[n + z] = True
                        at = (np.float32(i + x + o0) * dx, np.float32(j + y + o1) * dx,
                              np.float32(k + z + o2) * dx)  # fmt: skip
                        for s in range(len(separating)):
                            v = normal(bodies, separating[s], b, at)
                            side[s, n + z, 0], side[s, n + z, 1], side[s, n + z, 2] = v
        least = np.float32(0)
        for s in range(len(separating)):
            v = (normals[s, p, b, 0], normals[s, p, b, 1], normals[s, p, b, 2])
            for x in range(3):
                for y in range(3):
                    n = first + (x * Y + y) * Z
                    least = min(least, _toward(side, s, n, v), _toward(side, s, n + 1, v),
                                _toward(side, s, n + 2, v))  # fmt: skip
        parted[p] = least < 0
        if least >= 0:
            continue
        apart[p] = -1
        for s in range(len(separating) - 1, -1, -1):
            v = (normals[s, p, b, 0], normals[s, p, b, 1], normals[s, p, b, 2])
            for x in range(3):
                for y in range(3):
                    for z in range(3):
                        if _toward(side, s, first + (x * Y + y) * Z + z, v) < 0:
                            apart[p, 9 * x + 3 * y + z] = s


@inlined
def _toward(side, s, node, n):
    """Negative where a body's normal at a node points against `n`."""
    return side[s, node, 0] * n[0] + side[s, node, 1] * n[1] + side[s, node, 2] * n[2]


@compiled
def _to_grid(b, particles, matter, space, scratch, low, high):
    """Mass and momentum of environment b's particles to the nodes of its grid."""
    grid, dx = scratch.grid, space.dx
    inv_dx = np.float32(1) / dx
    o0, o1, o2 = space.offset[0], space.offset[1], space.offset[2]
    Y, Z = _rows(space)
    affine, parted, apart = scratch.affine, scratch.parted, scratch.apart
    pos, vel, mass = particles.pos, particles.vel, matter.mass
    for i in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            n = (i * Y + j) * Z
            grid[4 * (n + low[2]) : 4 * (n + high[2])] = 0
    for p in range(len(pos)):
        i, fx = _node(pos[p, b, 0], inv_dx)
        j, fy = _node(pos[p, b, 1], inv_dx)
        k, fz = _node(pos[p, b, 2], inv_dx)
        n = 4 * _index(i - o0, j - o1, k - o2, Y, Z)
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
                q0, q1, q2 = (
                    q[0] + X_ * a0 + Y_ * b0,
                    q[1] + X_ * a1 + Y_ * b1,
                    q[2] + X_ * a2 + Y_ * b2,
                )
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
    Y, Z = _rows(space)
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
def _from_grid(b, particles, matter, space, bodies, separating, normals, scratch):
    """Velocities from the grid to environment b's particles, which move."""
    grid, dx, dt = scratch.grid, space.dx, space.dt
    inv_dx = np.float32(1) / dx
    o0, o1, o2 = space.offset[0], space.offset[1], space.offset[2]
    Y, Z = _rows(space)
    parted, pos, vel, C = scratch.parted, particles.pos, particles.vel, particles.C
    lower, upper = space.lower, space.upper
    slab, line = 4 * Y * Z, 4 * Z
    near = scratch.near
    for p in range(len(pos)):
        at = (pos[p, b, 0], pos[p, b, 1], pos[p, b, 2])
        i, fx = _node(at[0], inv_dx)
        j, fy = _node(at[1], inv_dx)
        k, fz = _node(at[2], inv_dx)
        n = 4 * _index(i - o0, j - o1, k - o2, Y, Z)
        w = (_weights(fx), _weights(fy), _weights(fz))
        if len(parted) and parted[p]:
            _met(p, b, at, n, slab, line, vel, matter, space, bodies, separating, normals, scratch,
                 w, near)  # fmt: skip
            v, c = _gather(near, 0, 36, 12, w)
        else:
            v, c = _gather(grid, n, slab, line, w)
        s = np.float32(4) * inv_dx
        C[p, b, 0, 0], C[p, b, 0, 1] = s * (c[0] - fx * v[0]), s * (c[3] - fy * v[0])
        C[p, b, 1, 0], C[p, b, 1, 1] = s * (c[1] - fx * v[1]), s * (c[4] - fy * v[1])
        C[p, b, 2, 0], C[p, b, 2, 1] = s * (c[2] - fx * v[2]), s * (c[5] - fy * v[2])
        C[p, b, 0, 2] = s * (c[6] - fz * v[0])
        C[p, b, 1, 2] = s * (c[7] - fz * v[1])
        C[p, b, 2, 2] = s * (c[8] - fz * v[2])
        to = (at[0] + dt * v[0], at[1] + dt * v[1], at[2] + dt * v[2])
        v = _within(to, v, space)
        for a in range(3):
            # Written so that what is not a number ends at a border, where it is found.
            q = min(to[a], upper[a])
            pos[p, b, a] = q if q >= lower[a] else lower[a]
            vel[p, b, a] = v[a]


@inlined
def _gather(grid, at, slab, line, w):
    """Weighted over a stencil: the velocity, and its products with x, y and z of the node."""
    wx, wy, wz = w
    z0, z1, z2 = wz
    zz = z2 + z2
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
def _met(
    p, b, at, n, slab, line, vel, matter, space, bodies, separating, normals, scratch, w, near
):
    """The stencil of a particle that a body parts from some of its nodes, copied to `near`
    (9 * 12,): in those nodes' place is the velocity that the particle would have had it met the body."""
    wx, wy, wz = w
    grid = scratch.grid
    v = (vel[p, b, 0], vel[p, b, 1], vel[p, b, 2])
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
