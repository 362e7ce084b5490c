"""Smoothed particle hydrodynamics on a CPU core: Genesis's WCSPH substep, about ten times as fast.

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
    influence_at,
    normal,
    place,
    push,
    reach,
)
from lucibot_kernels.jit import compiled, inlined

PAIRS = 64
"""Pairs of neighbours that there is room for, times the number of particles. A liquid at rest has 17;
one that is four times as dense has failed, and what further pairs it has are left out."""


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

    N particles in the order of the cells they lie in, and P pairs (i, j) of neighbours, i before j,
    in the order of i. Indices are unsigned: of a signed one numba asks each time whether it counts
    from the end.
    """

    cell: np.ndarray  # (N,) uint32 the cell of the simulator's n-th particle
    start: np.ndarray  # (C,) uint32 first particle of a cell
    order: np.ndarray  # (N,) uint32 the simulator's number of a particle
    x: np.ndarray  # (N,) float32 [m]
    y: np.ndarray  # (N,) float32 [m]
    z: np.ndarray  # (N,) float32 [m]
    row: np.ndarray  # (N, 16) float32 all that pairs need of a particle, in one line of the cache
    first: np.ndarray  # (N + 1,) uint32 first pair of a particle
    other: np.ndarray  # (P,) uint32 a pair's j
    square: np.ndarray  # (P,) float32 [m^2] its distance squared
    kernel: np.ndarray  # (P,) float32 [1/m^3]
    cohesion: np.ndarray  # (P,) float32 [1/m^3] the kernel, of no less than a particle's size
    slope: np.ndarray  # (P,) float32 [1/m^5] the kernel's derivative over the distance
    drag: np.ndarray  # (P,) float32 [1/m^7] ten times that over the distance squared


# Columns of `Scratch.row`; of the vectors the first of three.
POS, VEL, ACC = 0, 3, 6
MASS, VISCOSITY = 9, 10
TENSION = 11  # Over the mass.
KERNELS = 12  # Sum of the kernel over the neighbours and itself.
VOLUME = 13  # Mass over density.
PRESSURE = 14
PUSH = 15  # Pressure over density squared.


def scratch(particles: int) -> Scratch:
    """Memory for environments of so many particles."""
    # The pairs of one particle more than there is room for: it is looked at after each particle.
    pairs = (PAIRS + 1) * particles
    floats = {n: np.zeros(particles, np.float32) for n in ("x", "y", "z")}
    floats |= {
        n: np.zeros(pairs, np.float32) for n in ("square", "kernel", "cohesion", "slope", "drag")
    }
    return Scratch(
        cell=np.zeros(particles, np.uint32), start=np.zeros(32 * particles + 16384, np.uint32),
        order=np.zeros(particles, np.uint32), row=np.zeros((particles, 16), np.float32),
        first=np.zeros(particles + 1, np.uint32), other=np.zeros(pairs, np.uint32), **floats,
    )  # fmt: skip


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
    zero, one = np.float32(0), np.float32(1)
    a0, a1, a2 = upper[0], upper[1], upper[2]
    b0, b1, b2 = lower[0], lower[1], lower[2]
    for p in range(N):
        x = _between(pos[p, b, 0], lower[0], upper[0])
        y = _between(pos[p, b, 1], lower[1], upper[1])
        z = _between(pos[p, b, 2], lower[2], upper[2])
        a0, a1, a2 = min(a0, x), min(a1, y), min(a2, z)
        b0, b1, b2 = max(b0, x), max(b1, y), max(b2, z)
    # Cells around the particles, with a layer of empty ones around those. They are larger than need
    # be where there would be too many, which costs time but changes no pair.
    width, most = space.support, np.float32(len(start) - 1)
    while True:
        s = one / width
        X, Y, Z = _count(b0 - a0, s), _count(b1 - a1, s), _count(b2 - a2, s)
        if X * Y * Z <= most:
            break
        width *= np.float32(1.25)
    last = (X - np.float32(3), Y - np.float32(3), Z - np.float32(3))
    line, slab = np.int32(Z), np.int32(Y) * np.int32(Z)
    cells = np.int32(X) * slab
    start[: cells + 1] = 0
    for p in range(N):
        i = np.int32(_between((pos[p, b, 0] - a0) * s, zero, last[0])) + 1
        j = np.int32(_between((pos[p, b, 1] - a1) * s, zero, last[1])) + 1
        k = np.int32(_between((pos[p, b, 2] - a2) * s, zero, last[2])) + 1
        cell[p] = i * slab + j * line + k
        start[cell[p]] += 1
    total = np.uint32(0)
    for c in range(cells + 1):
        total += start[c]
        start[c] = total  # For now the first particle of the next cell,
    for p in range(N - 1, -1, -1):
        start[cell[p]] -= 1  # from where particles are put before each other.
        order[start[cell[p]]] = p
    for i in range(N):
        p, r = order[i], row[i]
        r[POS], r[POS + 1], r[POS + 2] = pos[p, b, 0], pos[p, b, 1], pos[p, b, 2]
        r[VEL], r[VEL + 1], r[VEL + 2] = vel[p, b, 0], vel[p, b, 1], vel[p, b, 2]
        r[MASS], r[VISCOSITY] = matter.mass[p], matter.viscosity[p]
        r[TENSION] = matter.tension[p] / r[MASS]
        scratch.x[i], scratch.y[i], scratch.z[i] = r[POS], r[POS + 1], r[POS + 2]
    return slab, line


@inlined
def _count(length, per_metre):
    """Cells along an axis, with an empty one at either end."""
    return np.floor(length * per_metre) + np.float32(3)


@compiled
def find_pairs(strides, space, scratch):
    """The pairs of sorted particles nearer to each other than the support radius; returns how many."""
    cell, order, start, first = scratch.cell, scratch.order, scratch.start, scratch.first
    X, Y, Z, other, square = scratch.x, scratch.y, scratch.z, scratch.other, scratch.square
    along_x, along_y = strides
    limit = space.support * space.support
    N = len(order)
    n, room = np.uintp(0), np.uintp(PAIRS * N)
    for i in range(N):
        first[i] = n
        if n > room:
            continue
        c, x, y, z = cell[order[i]], X[i], Y[i], Z[i]
        # Of the cells around, those that come later. Along z they lie one after the other, so these
        # are five ranges of particles, the first of which begins after the particle itself.
        for a in range(2):
            for e in range(-1 if a else 0, 2):
                at = c + a * along_x + e * along_y
                begin = np.uintp(start[at - 1]) if a or e else np.uintp(i + 1)
                for j in range(begin, np.uintp(start[at + 2])):
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
        row[i, KERNELS] = own
    for i in range(N):
        total = np.float32(0)
        for n in range(first[i], first[i + 1]):
            total += kernel[n]
            row[other[n], KERNELS] += kernel[n]
        row[i, KERNELS] += total
    one = np.float32(1)
    for i in range(N):
        p, r = order[i], row[i]
        rest = matter.density[p]
        density = matter.volume * r[KERNELS] * rest
        r[VOLUME] = r[MASS] / density
        pressure = np.float32(0)
        if density > rest:
            pressure = matter.stiffness[p] * ((density / rest) ** matter.exponent[p] - one)
        density = max(density, rest)
        r[PRESSURE], r[PUSH] = pressure, pressure / (density * density)


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
        mass, volume, push_ = r[MASS], r[VOLUME], r[PUSH]
        viscosity, tension = r[VISCOSITY], r[TENSION]
        ax = ay = az = np.float32(0)
        for n in range(first[i], first[i + 1]):
            s = row[other[n]]
            dx, dy, dz = x - s[POS], y - s[POS + 1], z - s[POS + 2]
            apart = (vx - s[VEL]) * dx + (vy - s[VEL + 1]) * dy + (vz - s[VEL + 2]) * dz
            pressure, apart = (push_ + s[PUSH]) * slope[n], apart * drag[n]
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
            softness = bodies.softness[g]
            far = reach(softness)
            d = distance_within(bodies, g, b, at, max(far, h) if pushes else far)
            weight = influence_at(d, softness)
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
