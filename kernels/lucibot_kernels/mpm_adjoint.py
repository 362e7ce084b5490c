"""The transpose of `mpm.substep`: from gradients after a substep to gradients before it.

Beside `mpm` in what it is called and in what order it goes, backwards: each kernel here transposes the
one of the same name there. What a substep was made of is computed again from the particles as they were
before it. Frozen, that is without a gradient of their own, are which body parts a particle from which
node (CPIC), the remembered normal at which it then meets the body, and which of several branches a
number took: whether something is out of bounds, touches a body, slides on it, flows.

How hard particles push a body back is left out: here bodies are where they were.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lucibot_kernels import bodies_adjoint as back
from lucibot_kernels.bodies import EPS, collide, influence, normal, place
from lucibot_kernels.jit import compiled, inlined
from lucibot_kernels.mpm import (
    VOLUME_SCALE,
    Particles,
    Scratch,
    _box,
    _index,
    _met,
    _node,
    _on_grid,
    _rows,
    _tell_apart,
    _to_grid,
    _weights,
)
from lucibot_kernels.mpm import scratch as forward_scratch
from lucibot_kernels.mpm_materials import stress_and_strain
from lucibot_kernels.mpm_materials_adjoint import SMALL
from lucibot_kernels.mpm_materials_adjoint import stress_and_strain as stress_and_strain_back


class Memory(NamedTuple):
    """Memory of one process; nothing in it outlives a substep."""

    forward: Scratch
    F: np.ndarray  # (N, B, 3, 3) new deformation gradients
    Jp: np.ndarray  # (N, B)
    momentum: np.ndarray  # (X * Y * Z * 4 + 4,) the grid as particles have left it
    d_grid: np.ndarray  # likewise, gradients with respect to velocity, then to mass and momentum
    d_affine: np.ndarray  # (N, B, 3, 3)
    chain: np.ndarray  # (G' + 1, 3) velocity of a node before it has met each of the bodies
    small: np.ndarray  # (SMALL, 3, 3)


def memory(
    particles: int, environments: int, cells, coupled: int, separating: int, dtype=np.float32
) -> Memory:
    """Memory for a scene as `mpm.scratch` takes it, with so many coupled shapes."""
    N, B = particles, environments
    forward = forward_scratch(N, B, cells, separating, dtype)
    return Memory(
        forward=forward, F=np.zeros((N, B, 3, 3), dtype), Jp=np.zeros((N, B), dtype),
        momentum=np.zeros_like(forward.grid), d_grid=np.zeros_like(forward.grid),
        d_affine=np.zeros((N, B, 3, 3), dtype), chain=np.zeros((coupled + 1, 3), dtype),
        small=np.zeros((SMALL, 3, 3), dtype),
    )  # fmt: skip


def nothing(particles: int, environments: int, dtype=np.float32) -> Particles:
    """Gradients of zero with respect to particles."""
    N, B = particles, environments
    return Particles(
        pos=np.zeros((N, B, 3), dtype), vel=np.zeros((N, B, 3), dtype),
        C=np.zeros((N, B, 3, 3), dtype), F=np.zeros((N, B, 3, 3), dtype),
        Jp=np.zeros((N, B), dtype),
    )  # fmt: skip


@compiled
def substep(particles, matter, space, bodies, coupled, separating, normals, memory, d, to):
    """
    Args:
        particles: before the substep; only read.
        bodies, coupled, separating, normals: as the substep had them; forces that are written down on
            `bodies` mean nothing.
        d: gradients with respect to particles (as `Particles`): on entry to those after the substep,
            on return to those before it.
        to: a `bodies_adjoint.Pull`, added to.
    """
    place(bodies)
    scratch, new_F, new_Jp = memory.forward, memory.F, memory.Jp
    N, B, _ = particles.pos.shape
    for p in range(N):
        for b in range(B):
            new_Jp[p, b] = particles.Jp[p, b]
            for a in range(9):
                new_F[p, b, a // 3, a % 3] = particles.F[p, b, a // 3, a % 3]
    strained = Particles(particles.pos, particles.vel, particles.C, new_F, new_Jp)
    stress_and_strain(strained, matter, space, scratch.affine, scratch.block)
    grid, momentum = scratch.grid, memory.momentum
    Y, Z = _rows(space)
    for b in range(B):
        low, high = _box(b, particles.pos, space)
        if len(separating):
            _tell_apart(b, particles.pos, space, bodies, separating, normals, scratch, low, high)
        _to_grid(b, particles, matter, space, scratch, low, high)
        for i in range(low[0], high[0]):
            for j in range(low[1], high[1]):
                n = (i * Y + j) * Z
                for at in range(4 * (n + low[2]), 4 * (n + high[2])):
                    momentum[at], memory.d_grid[at] = grid[at], np.float32(0)
        _on_grid(b, space, bodies, coupled, scratch, low, high)
        _from_grid_back(b, particles, matter, space, bodies, separating, normals, memory, d, to)
        _on_grid_back(b, space, bodies, coupled, memory, low, high, to)
        _to_grid_back(b, particles, matter, space, memory, d)
    stress_and_strain_back(
        particles, matter, space, memory.d_affine, d, scratch.block, memory.small
    )


@inlined
def _slopes(f):
    """Derivatives of the weights of three nodes (`mpm._weights`) with respect to `f`."""
    half, two = np.float32(0.5), np.float32(2)
    return f - np.float32(1.5), two * (np.float32(1) - f), f - half


@inlined
def _free(at, v, space):
    """Along which axes `mpm._within` lets a velocity be: 1, elsewhere 0."""
    zero, one = np.float32(0), np.float32(1)
    lower, upper = space.lower, space.upper
    out0 = (at[0] >= upper[0] and v[0] >= 0) or (at[0] <= lower[0] and v[0] <= 0)
    out1 = (at[1] >= upper[1] and v[1] >= 0) or (at[1] <= lower[1] and v[1] <= 0)
    out2 = (at[2] >= upper[2] and v[2] >= 0) or (at[2] <= lower[2] and v[2] <= 0)
    return zero if out0 else one, zero if out1 else one, zero if out2 else one


@compiled
def _from_grid_back(b, particles, matter, space, bodies, separating, normals, memory, d, to):
    """Transposes `mpm._from_grid`: gradients of the grid's velocities into `d_grid`, and what weights
    and moving do to positions. Velocities' own gradients begin anew: only particles that a body parts
    from nodes (`mpm._met`) take any of theirs to the next."""
    scratch, d_grid = memory.forward, memory.d_grid
    grid, dx, dt = scratch.grid, space.dx, space.dt
    inv_dx, zero = np.float32(1) / dx, np.float32(0)
    o0, o1, o2 = space.offset[0], space.offset[1], space.offset[2]
    Y, Z = _rows(space)
    slab, line = 4 * Y * Z, 4 * Z
    parted, pos, vel = scratch.parted, particles.pos, particles.vel
    lower, upper, near = space.lower, space.upper, scratch.near
    s = np.float32(4) * inv_dx
    for p in range(len(pos)):
        at = (pos[p, b, 0], pos[p, b, 1], pos[p, b, 2])
        i, fx = _node(at[0], inv_dx)
        j, fy = _node(at[1], inv_dx)
        k, fz = _node(at[2], inv_dx)
        n = 4 * _index(i - o0, j - o1, k - o2, Y, Z)
        w = (_weights(fx), _weights(fy), _weights(fz))
        h = (_slopes(fx), _slopes(fy), _slopes(fz))
        away = bool(len(parted)) and parted[p]
        if away:
            _met(p, b, at, n, slab, line, vel, matter, space, bodies, separating, normals, scratch,
                 w, near)  # fmt: skip
        # The velocity that the particle got, to know where it went.
        v0 = v1 = v2 = zero * fx
        for x in range(3):
            for y in range(3):
                for z in range(3):
                    W = w[0][x] * w[1][y] * w[2][z]
                    q, m = 12 * (3 * x + y) + 4 * z, n + slab * x + line * y + 4 * z
                    v0 += W * (near[q + 1] if away else grid[m + 1])
                    v1 += W * (near[q + 2] if away else grid[m + 2])
                    v2 += W * (near[q + 3] if away else grid[m + 3])
        goes = (at[0] + dt * v0, at[1] + dt * v1, at[2] + dt * v2)
        free = _free(goes, (v0, v1, v2), space)
        c = d.C[p, b]
        g0 = d.pos[p, b, 0] if lower[0] <= goes[0] <= upper[0] else zero
        g1 = d.pos[p, b, 1] if lower[1] <= goes[1] <= upper[1] else zero
        g2 = d.pos[p, b, 2] if lower[2] <= goes[2] <= upper[2] else zero
        u0 = dt * g0 + free[0] * d.vel[p, b, 0]
        u1 = dt * g1 + free[1] * d.vel[p, b, 1]
        u2 = dt * g2 + free[2] * d.vel[p, b, 2]
        d_v0 = d_v1 = d_v2 = zero * fx
        d_f0 = d_f1 = d_f2 = zero * fx
        for x in range(3):
            for y in range(3):
                for z in range(3):
                    q, m = 12 * (3 * x + y) + 4 * z, n + slab * x + line * y + 4 * z
                    W = w[0][x] * w[1][y] * w[2][z]
                    e0, e1, e2 = np.float32(x) - fx, np.float32(y) - fy, np.float32(z) - fz
                    # v = sum W v_node, C = s sum W v_node (x) (node - f)
                    t0 = u0 + s * (c[0, 0] * e0 + c[0, 1] * e1 + c[0, 2] * e2)
                    t1 = u1 + s * (c[1, 0] * e0 + c[1, 1] * e1 + c[1, 2] * e2)
                    t2 = u2 + s * (c[2, 0] * e0 + c[2, 1] * e1 + c[2, 2] * e2)
                    a0 = near[q + 1] if away else grid[m + 1]
                    a1 = near[q + 2] if away else grid[m + 2]
                    a2 = near[q + 3] if away else grid[m + 3]
                    d_W = a0 * t0 + a1 * t1 + a2 * t2
                    sW = s * W
                    d_f0 += d_W * h[0][x] * w[1][y] * w[2][z] - sW * (
                        a0 * c[0, 0] + a1 * c[1, 0] + a2 * c[2, 0]
                    )
                    d_f1 += d_W * w[0][x] * h[1][y] * w[2][z] - sW * (
                        a0 * c[0, 1] + a1 * c[1, 1] + a2 * c[2, 1]
                    )
                    d_f2 += d_W * w[0][x] * w[1][y] * h[2][z] - sW * (
                        a0 * c[0, 2] + a1 * c[1, 2] + a2 * c[2, 2]
                    )
                    part = scratch.apart[p, 9 * x + 3 * y + z] if away else -1
                    if part < 0:
                        d_grid[m + 1] += W * t0
                        d_grid[m + 2] += W * t1
                        d_grid[m + 3] += W * t2
                        continue
                    side = (normals[part, p, b, 0], normals[part, p, b, 1], normals[part, p, b, 2])
                    d_vel, d_at, _, _ = back.collide(
                        bodies, separating[part], b, at, (vel[p, b, 0], vel[p, b, 1], vel[p, b, 2]),
                        side, np.float32(1), (W * t0, W * t1, W * t2), to,
                    )  # fmt: skip
                    d_v0, d_v1, d_v2 = d_v0 + d_vel[0], d_v1 + d_vel[1], d_v2 + d_vel[2]
                    g0, g1, g2 = g0 + d_at[0], g1 + d_at[1], g2 + d_at[2]
        d.vel[p, b, 0], d.vel[p, b, 1], d.vel[p, b, 2] = d_v0, d_v1, d_v2
        d.pos[p, b, 0], d.pos[p, b, 1] = g0 + inv_dx * d_f0, g1 + inv_dx * d_f1
        d.pos[p, b, 2] = g2 + inv_dx * d_f2
        d.C[p, b] = zero


@compiled
def _on_grid_back(b, space, bodies, coupled, memory, low, high, to):
    """Transposes `mpm._on_grid`: gradients of the grid's velocities become those of mass and momentum;
    bodies are met backwards."""
    momentum, d_grid, chain = memory.momentum, memory.d_grid, memory.chain
    dx, dt, one = space.dx, space.dt, np.float32(1)
    o0, o1, o2 = space.offset[0], space.offset[1], space.offset[2]
    Y, Z = _rows(space)
    g0, g1, g2 = dt * space.gravity[b, 0], dt * space.gravity[b, 1], dt * space.gravity[b, 2]
    for i in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            for k in range(low[2], high[2]):
                n = 4 * ((i * Y + j) * Z + k)
                mass = momentum[n]
                if mass <= EPS:
                    d_grid[n] = d_grid[n + 1] = d_grid[n + 2] = d_grid[n + 3] = np.float32(0)
                    continue
                s = one / mass
                v = (s * momentum[n + 1] + g0, s * momentum[n + 2] + g1, s * momentum[n + 3] + g2)
                at = (np.float32(i + o0) * dx, np.float32(j + o1) * dx, np.float32(k + o2) * dx)
                for c in range(len(coupled)):
                    g = coupled[c]
                    chain[c, 0], chain[c, 1], chain[c, 2] = v
                    weight = influence(bodies, g, b, at)
                    if weight > 0:
                        v = collide(bodies, g, b, at, v, mass / VOLUME_SCALE,
                                    normal(bodies, g, b, at), weight, dt)  # fmt: skip
                free = _free(at, v, space)
                d_v = (free[0] * d_grid[n + 1], free[1] * d_grid[n + 2], free[2] * d_grid[n + 3])
                for c in range(len(coupled) - 1, -1, -1):
                    g = coupled[c]
                    weight = influence(bodies, g, b, at)
                    if weight > 0:
                        v = (chain[c, 0], chain[c, 1], chain[c, 2])
                        d_v, _, d_normal, d_weight = back.collide(
                            bodies, g, b, at, v, normal(bodies, g, b, at), weight, d_v, to
                        )
                        back.influence(bodies, g, b, at, d_weight, to)
                        back.normal(bodies, g, b, at, d_normal, to)
                # v = momentum / mass + dt gravity
                d_grid[n] = (
                    -s
                    * s
                    * (
                        momentum[n + 1] * d_v[0]
                        + momentum[n + 2] * d_v[1]
                        + momentum[n + 3] * d_v[2]
                    )
                )
                d_grid[n + 1], d_grid[n + 2], d_grid[n + 3] = s * d_v[0], s * d_v[1], s * d_v[2]


@compiled
def _to_grid_back(b, particles, matter, space, memory, d):
    """Transposes `mpm._to_grid`: gradients of the grid's mass and momentum to velocities, positions
    (through the weights) and `d_affine`."""
    scratch, d_grid, d_affine = memory.forward, memory.d_grid, memory.d_affine
    dx, zero = space.dx, np.float32(0)
    inv_dx = np.float32(1) / dx
    o0, o1, o2 = space.offset[0], space.offset[1], space.offset[2]
    Y, Z = _rows(space)
    parted, apart, affine = scratch.parted, scratch.apart, scratch.affine
    pos, vel, mass = particles.pos, particles.vel, matter.mass
    for p in range(len(pos)):
        i, fx = _node(pos[p, b, 0], inv_dx)
        j, fy = _node(pos[p, b, 1], inv_dx)
        k, fz = _node(pos[p, b, 2], inv_dx)
        n = 4 * _index(i - o0, j - o1, k - o2, Y, Z)
        m, A, d_A = mass[p], affine[p, b], d_affine[p, b]
        w = (_weights(fx), _weights(fy), _weights(fz))
        h = (_slopes(fx), _slopes(fy), _slopes(fz))
        whole = not (len(parted) and parted[p])
        v0, v1, v2 = m * vel[p, b, 0], m * vel[p, b, 1], m * vel[p, b, 2]
        d_v0 = d_v1 = d_v2 = d_f0 = d_f1 = d_f2 = zero * fx
        d_A[:] = zero
        for x in range(3):
            for y in range(3):
                for z in range(3):
                    if not whole and apart[p, 9 * x + 3 * y + z] >= 0:
                        continue
                    at = n + 4 * (Z * (x * Y + y) + z)
                    W = w[0][x] * w[1][y] * w[2][z]
                    d_m, t0, t1, t2 = d_grid[at], d_grid[at + 1], d_grid[at + 2], d_grid[at + 3]
                    e0, e1, e2 = (
                        dx * (np.float32(x) - fx), dx * (np.float32(y) - fy),
                        dx * (np.float32(z) - fz),
                    )  # fmt: skip
                    # mass += W m, momentum += W (m v + affine (node - f) dx)
                    d_v0, d_v1, d_v2 = d_v0 + W * t0, d_v1 + W * t1, d_v2 + W * t2
                    d_A[0, 0] += W * t0 * e0
                    d_A[0, 1] += W * t0 * e1
                    d_A[0, 2] += W * t0 * e2
                    d_A[1, 0] += W * t1 * e0
                    d_A[1, 1] += W * t1 * e1
                    d_A[1, 2] += W * t1 * e2
                    d_A[2, 0] += W * t2 * e0
                    d_A[2, 1] += W * t2 * e1
                    d_A[2, 2] += W * t2 * e2
                    a0 = A[0, 0] * t0 + A[1, 0] * t1 + A[2, 0] * t2
                    a1 = A[0, 1] * t0 + A[1, 1] * t1 + A[2, 1] * t2
                    a2 = A[0, 2] * t0 + A[1, 2] * t1 + A[2, 2] * t2
                    d_W = m * d_m + v0 * t0 + v1 * t1 + v2 * t2 + a0 * e0 + a1 * e1 + a2 * e2
                    d_f0 += d_W * h[0][x] * w[1][y] * w[2][z] - dx * W * a0
                    d_f1 += d_W * w[0][x] * h[1][y] * w[2][z] - dx * W * a1
                    d_f2 += d_W * w[0][x] * w[1][y] * h[2][z] - dx * W * a2
        d.vel[p, b, 0] += m * d_v0
        d.vel[p, b, 1] += m * d_v1
        d.vel[p, b, 2] += m * d_v2
        d.pos[p, b, 0] += inv_dx * d_f0
        d.pos[p, b, 1] += inv_dx * d_f1
        d.pos[p, b, 2] += inv_dx * d_f2
