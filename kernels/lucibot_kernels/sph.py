"""Smoothed particle hydrodynamics on a CPU core: Genesis's WCSPH substep, many times as fast.

The same particles, forces and coupling as Genesis's solver, which is the slow twin (tests compare
the two). What differs is how it is computed:

- Environments one after the other, each with its particles side by side in the order of the cells
  that they lie in, so that what a particle needs of its neighbours is in the cache.
- Neighbours are found once a substep, not once for each sum over them, and each pair of particles
  once, not from both sides.
- What depends on a pair's distance alone is computed for all pairs in one go, which the compiler
  turns into vector instructions.

An environment's numbers depend on nothing but its own, so any sharding gives the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lucibot_kernels.bodies import (
    collide,
    distance_within,
    normal,
    place,
    push,
    reach,
    weight_at,
)
from lucibot_kernels.jit import compiled, inlined

PAIRS = 64
"""Pairs of neighbours that there is room for, times the number of particles. A liquid at rest has 17;
what is denser than four liquids has failed, and then further pairs are left out."""
CELLS = 32
"""Cells that there is room for, times the number of particles."""
ACROSS, ALONG = 1, 3
"""A cell is the support radius divided by `ACROSS` wide along x and y, and by `ALONG` along z."""


class Particles(NamedTuple):
    """N particles in B environments; float32."""

    pos: np.ndarray  # (N, B, 3) [m, world]
    vel: np.ndarray  # (N, B, 3) [m/s]


class Matter(NamedTuple):
    """What N particles are made of; float32."""

    density: np.ndarray  # (N,) [kg/m^3] at rest
    mass: np.ndarray  # (N,) [kg]
    stiffness: np.ndarray  # (N,) [Pa]
    exponent: np.ndarray  # (N,) of the pressure's growth with density
    viscosity: np.ndarray  # (N,) [m^2/s]
    tension: np.ndarray  # (N,) of the surface
    volume: np.float32  # [m^3] of one


class Space(NamedTuple):
    """Reach, time and bounds."""

    support: np.float32  # [m] how far particles act
    size: np.float32  # [m] of a particle
    dt: np.float32  # [s]
    gravity: np.ndarray  # (B, 3) float32 [m/s^2]
    lower: np.ndarray  # (3,) float32 [m] what particles cannot leave
    upper: np.ndarray  # (3,) float32


class Scratch(NamedTuple):
    """Memory of one process for one environment at a time; nothing in it outlives a substep.

    N particles in the order of their cells, P pairs (i, j) of them, i before j, ordered by i.
    """

    start: np.ndarray  # (C,) int32 first particle of a cell
    cell: np.ndarray  # (N,) int32 of a particle, in the simulator's order until sorted
    order: np.ndarray  # (N,) int32 the simulator's number of a particle
    x: np.ndarray  # (N,) float32 [m]
    y: np.ndarray  # (N,) float32 [m]
    z: np.ndarray  # (N,) float32 [m]
    row: np.ndarray  # (N, 16) float32, see `POS` and what follows
    first: np.ndarray  # (N + 1,) int32 first pair of a particle
    other: np.ndarray  # (P + N,) int32 the pair's j
    square: np.ndarray  # (P + N,) float32 [m^2] its distance squared
    kernel: np.ndarray  # (P + N,) float32 [1/m^3]
    cohesion: np.ndarray  # (P + N,) float32 [1/m^3] the kernel, no nearer than a particle's size
    slope: np.ndarray  # (P + N,) float32 [1/m^5] the kernel's derivative over the distance
    drag: np.ndarray  # (P + N,) float32 [1/m^7] ten times that over the distance squared


# Columns of `Scratch.row`: place, mass, velocity, volume, acceleration, pressure over density squared,
# viscosity, surface tension over mass, pressure, and the sum of the kernel over the neighbours.
POS, MASS, VEL, VOLUME, ACC, PRESS, VISCOSITY, TENSION, PRESSURE, SUM = (
    0,
    3,
    4,
    7,
    8,
    11,
    12,
    13,
    14,
    15,
)


def scratch(particles: int) -> Scratch:
    """Memory for environments of so many particles."""
    pairs = (PAIRS + 1) * particles
    return Scratch(
        start=np.zeros(CELLS * particles + 4096, np.uint32),
        cell=np.zeros(particles, np.uint32),
        order=np.zeros(particles, np.uint32),
        x=np.zeros(particles, np.float32),
        y=np.zeros(particles, np.float32),
        z=np.zeros(particles, np.float32),
        row=np.zeros((particles, 16), np.float32),
        first=np.zeros(particles + 1, np.uint32),
        other=np.zeros(pairs, np.uint32),
        square=np.zeros(pairs, np.float32),
        kernel=np.zeros(pairs, np.float32),
        cohesion=np.zeros(pairs, np.float32),
        slope=np.zeros(pairs, np.float32),
        drag=np.zeros(pairs, np.float32),
    )


@compiled
def substep(particles, matter, space, bodies, coupled, pressed, scratch):
    """Carry all environments a substep on, and write down the forces on `bodies`.

    Args:
        coupled: (G',) int32, the shapes that particles meet.
        pressed: (G',) bool, whether the liquid's pressure pushes on a shape.
    """
    place(bodies)
    for b in range(particles.pos.shape[1]):
        strides = sort(b, particles, matter, space, scratch)
        pairs = find_pairs(strides, space, scratch)
        weigh(pairs, space, scratch)
        press(matter, space, scratch)
        accelerate(b, space, scratch)
        _move(b, particles, matter, space, bodies, coupled, pressed, scratch)


@inlined
def _between(x, least, most):
    """Written so that what is not a number ends at a border."""
    x = x if x < most else most
    return x if x > least else least


@compiled
def sort(b, particles, matter, space, scratch):
    """Bring environment b's particles into the order of their cells; returns by how much a cell's
    number grows along x and along y (along z by one)."""
    pos, vel, lower, upper = particles.pos, particles.vel, space.lower, space.upper
    start, cell, order, row = scratch.start, scratch.cell, scratch.order, scratch.row
    N = len(pos)
    a0, a1, a2 = upper[0], upper[1], upper[2]
    b0, b1, b2 = lower[0], lower[1], lower[2]
    for p in range(N):
        x = _between(pos[p, b, 0], lower[0], upper[0])
        y = _between(pos[p, b, 1], lower[1], upper[1])
        z = _between(pos[p, b, 2], lower[2], upper[2])
        a0, a1, a2 = min(a0, x), min(a1, y), min(a2, z)
        b0, b1, b2 = max(b0, x), max(b1, y), max(b2, z)
    # Cells around the particles, and around those as many empty ones as neighbours can lie apart. They
    # grow where that would be too many, which costs time but changes no pair.
    wide, deep = space.support / np.float32(ACROSS), space.support / np.float32(ALONG)
    one = np.float32(1)
    while True:
        u, v = np.float32(1) / wide, np.float32(1) / deep
        f0, f1, f2 = (b0 - a0) * u + one, (b1 - a1) * u + one, (b2 - a2) * v + one
        pad = np.float32(2 * ACROSS)
        if (f0 + pad) * (f1 + pad) * (f2 + np.float32(2 * ALONG)) < np.float32(len(start) - 2):
            break
        wide, deep = wide * np.float32(1.5), deep * np.float32(1.5)
    Y, Z = np.int32(f1) + 2 * ACROSS, np.int32(f2) + 2 * ALONG
    cells = (np.int32(f0) + 2 * ACROSS) * Y * Z
    start[: cells + 1] = 0
    zero = np.float32(0)
    for p in range(N):
        i = np.int32(_between((pos[p, b, 0] - a0) * u, zero, f0 - one))
        j = np.int32(_between((pos[p, b, 1] - a1) * u, zero, f1 - one))
        k = np.int32(_between((pos[p, b, 2] - a2) * v, zero, f2 - one))
        c = ((i + ACROSS) * Y + j + ACROSS) * Z + k + ALONG
        cell[p] = c
        start[c] += 1
    total = np.int32(0)
    for c in range(cells + 1):
        total += start[c]
        start[c] = total
    for p in range(N - 1, -1, -1):
        # Backwards, so that particles of a cell keep their order, and `start` ends where it says.
        start[cell[p]] -= 1
        order[start[cell[p]]] = p
    for i in range(N):
        p = order[i]
        r = row[i]
        r[POS], r[POS + 1], r[POS + 2] = pos[p, b, 0], pos[p, b, 1], pos[p, b, 2]
        r[VEL], r[VEL + 1], r[VEL + 2] = vel[p, b, 0], vel[p, b, 1], vel[p, b, 2]
        r[MASS], r[VISCOSITY], r[TENSION] = (
            matter.mass[p], matter.viscosity[p], matter.tension[p] / matter.mass[p],
        )  # fmt: skip
        scratch.x[i], scratch.y[i], scratch.z[i] = r[POS], r[POS + 1], r[POS + 2]
    return Y * Z, Z


@compiled
def find_pairs(strides, space, scratch):
    """Each pair of sorted particles nearer to each other than the support radius; returns how many."""
    cell, order, start, first = scratch.cell, scratch.order, scratch.start, scratch.first
    X, Y, Z, other, square = scratch.x, scratch.y, scratch.z, scratch.other, scratch.square
    along_x, along_y = strides
    limit = space.support * space.support
    N = len(order)
    room = PAIRS * N
    n = np.uintp(0)
    for i in range(N):
        first[i] = n
        if n > room:
            continue
        c = cell[order[i]]
        x, y, z = X[i], Y[i], Z[i]
        for a in range(ACROSS + 1):
            for e in range(-ACROSS if a else 0, ACROSS + 1):
                at = c + a * along_x + e * along_y
                # Cells along z lie one after the other. In its own row a particle looks ahead only.
                begin = start[at - ALONG] if a or e else i + 1
                for j in range(np.uintp(begin), np.uintp(start[at + ALONG + 1])):
                    dx, dy, dz = x - X[j], y - Y[j], z - Z[j]
                    d = dx * dx + dy * dy + dz * dz
                    # Written down in any case, which costs less than guessing wrong.
                    other[n], square[n] = j, d
                    n += np.uintp(d < limit)
    first[N] = n
    return n


@compiled
def weigh(pairs, space, scratch):
    """The cubic spline kernel and its slope at the distances of all pairs."""
    square, kernel, cohesion = scratch.square, scratch.kernel, scratch.cohesion
    slope, drag = scratch.slope, scratch.drag
    h = space.support
    inv_h = np.float32(1) / h
    k = np.float32(8 / np.pi) * inv_h * inv_h * inv_h
    steep = np.float32(6) * k * inv_h
    soft = np.float32(0.01) * h * h
    least = space.size * inv_h
    for n in range(pairs):
        s = square[n]
        r = np.sqrt(s)
        q = r * inv_h
        kernel[n] = _spline(q, k)
        cohesion[n] = _spline(max(q, least), k)
        p = np.float32(1) - q
        near = steep * inv_h * (np.float32(3) * q - np.float32(2))
        far = -steep * p * p / r
        g = near if q <= np.float32(0.5) else far
        g = g if r > np.float32(1e-5) else np.float32(0)
        slope[n] = g
        drag[n] = np.float32(10) * g / (s + soft)


@inlined
def _spline(q, k):
    one, six = np.float32(1), np.float32(6)
    p = one - q
    near, far = k * (six * q * q * (q - one) + one), np.float32(2) * k * p * p * p
    return near if q <= np.float32(0.5) else far


@compiled
def press(matter, space, scratch):
    """Density of all particles, and the pressure that comes of it."""
    row, first, other, kernel = scratch.row, scratch.first, scratch.other, scratch.kernel
    order = scratch.order
    N = len(order)
    h = space.support
    own = np.float32(8 / np.pi) / (h * h * h)
    for i in range(N):
        row[i, SUM] = own
    for i in range(N):
        total = np.float32(0)
        for n in range(first[i], first[i + 1]):
            total += kernel[n]
            row[other[n], SUM] += kernel[n]
        row[i, SUM] += total
    one = np.float32(1)
    for i in range(N):
        p, r = order[i], row[i]
        rest = matter.density[p]
        density = matter.volume * r[SUM] * rest
        r[VOLUME] = r[MASS] / density
        pressure = np.float32(0)
        if density > rest:
            pressure = matter.stiffness[p] * ((density / rest) ** matter.exponent[p] - one)
        density = max(density, rest)
        r[PRESSURE], r[PRESS] = pressure, pressure / (density * density)


@compiled
def accelerate(b, space, scratch):
    """All particles' acceleration by gravity, pressure, viscosity and surface tension."""
    row, first, other = scratch.row, scratch.first, scratch.other
    cohesion, slope, drag = scratch.cohesion, scratch.slope, scratch.drag
    g0, g1, g2 = space.gravity[b, 0], space.gravity[b, 1], space.gravity[b, 2]
    N = len(row)
    for i in range(N):
        row[i, ACC], row[i, ACC + 1], row[i, ACC + 2] = g0, g1, g2
    for i in range(N):
        r = row[i]
        x, y, z = r[POS], r[POS + 1], r[POS + 2]
        vx, vy, vz = r[VEL], r[VEL + 1], r[VEL + 2]
        mass, volume, pressed = r[MASS], r[VOLUME], r[PRESS]
        viscosity, tension = r[VISCOSITY], r[TENSION]
        ax = ay = az = np.float32(0)
        for n in range(first[i], first[i + 1]):
            s = row[other[n]]
            dx, dy, dz = x - s[POS], y - s[POS + 1], z - s[POS + 2]
            apart = (vx - s[VEL]) * dx + (vy - s[VEL + 1]) * dy + (vz - s[VEL + 2]) * dz
            pressure, apart = (pressed + s[PRESS]) * slope[n], apart * drag[n]
            f = viscosity * s[VOLUME] * apart - s[MASS] * (pressure + tension * cohesion[n])
            ax, ay, az = ax + f * dx, ay + f * dy, az + f * dz
            f = s[VISCOSITY] * volume * apart - mass * (pressure + s[TENSION] * cohesion[n])
            s[ACC] -= f * dx
            s[ACC + 1] -= f * dy
            s[ACC + 2] -= f * dz
        r[ACC] += ax
        r[ACC + 1] += ay
        r[ACC + 2] += az


@compiled
def _move(b, particles, matter, space, bodies, coupled, pressed, scratch):
    """Environment b's particles meet bodies and move."""
    row, order, dt, h = scratch.row, scratch.order, space.dt, space.support
    pos, vel, lower, upper = particles.pos, particles.vel, space.lower, space.upper
    for i in range(len(order)):
        p, r = order[i], row[i]
        at = (r[POS], r[POS + 1], r[POS + 2])
        v = (r[VEL] + dt * r[ACC], r[VEL + 1] + dt * r[ACC + 1], r[VEL + 2] + dt * r[ACC + 2])
        for c in range(len(coupled)):
            g = coupled[c]
            pushes = pressed[c] and r[PRESSURE] > 0
            far = reach(bodies, g)
            d = distance_within(bodies, g, b, at, max(far, h) if pushes else far)
            weight = weight_at(bodies, g, d)
            pushes = pushes and d < h
            if weight > 0 or pushes:
                n = normal(bodies, g, b, at)
                if weight > 0:
                    v = collide(bodies, g, b, at, v, r[MASS], n, weight, dt)
                if pushes:
                    # The liquid's pressure, mirrored at the surface.
                    f = np.float32(-2) * r[PRESSURE] * matter.volume * plane_integral(d, h)
                    push(bodies, g, b, at, (f * n[0], f * n[1], f * n[2]))
                    f *= dt / r[MASS]
                    v = (v[0] - f * n[0], v[1] - f * n[1], v[2] - f * n[2])
        for a in range(3):
            to = r[POS + a] + dt * v[a]
            out = (to >= upper[a] and v[a] >= 0) or (to <= lower[a] and v[a] <= 0)
            pos[p, b, a] = _between(to, lower[a], upper[a])
            vel[p, b, a] = np.float32(0) if out else v[a]


@inlined
def plane_integral(distance, support):
    """The kernel's integral [1/m] over a plane so far away; half of it lies on either side."""
    q = abs(distance) / support
    if q > 1:
        return np.float32(0)
    s = q * q
    if q <= np.float32(0.5):
        v = np.float32(0.0875) - s * (
            np.float32(0.5) + s * (np.float32(1.2) * q - np.float32(1.5))
        )  # fmt: skip
    else:
        v = np.float32(0.1) - s * (
            np.float32(1) - np.float32(2) * q + s * (np.float32(1.5) - np.float32(0.4) * q)
        )  # fmt: skip
    return np.float32(16) * v / support
