"""Materials of the material point method on a CPU core: stress and plastic flow of all particles.

Genesis's materials. They are isotropic, so principal stretches and directions tell all, and those
come from F^T F in blocks of `LANES` particles that the compiler turns into vector instructions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lucibot_kernels.bodies import EPS
from lucibot_kernels.jit import compiled, inlined

ELASTIC, ELASTOPLASTIC, SAND = 0, 1, 2
"""Kinds of materials."""
LANES = 16


class Matter(NamedTuple):
    """What N particles are made of, in one of M materials."""

    material: np.ndarray  # (N,) int32
    mass: np.ndarray  # (N,) float32 [kg], scaled
    volume: np.float32  # [m^3] of one, scaled
    kind: np.ndarray  # (M,) int32 `ELASTIC`, `ELASTOPLASTIC`, `SAND`
    mu: np.ndarray  # (M,) float32 [Pa]
    lam: np.ndarray  # (M,) float32 [Pa]
    strength: np.ndarray  # (M,) float32 yield stress [Pa], or sand's alpha


# Rows of a block: F (9), V (9), F V (9), the principal stretches (3), their inverses (3), det F.
ROWS = 34


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
    """Fill a block (ROWS * LANES,) with what is to be known of the F in it.

    V holds the right singular vectors; those on the left are the columns of F V over the stretches.
    """
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
        for r in range(9):
            w[(9 + r) * LANES + n] = V[r]
        w[18 * LANES + n] = x0 * V[0] + x1 * V[3] + x2 * V[6]
        w[19 * LANES + n] = x0 * V[1] + x1 * V[4] + x2 * V[7]
        w[20 * LANES + n] = x0 * V[2] + x1 * V[5] + x2 * V[8]
        w[21 * LANES + n] = x3 * V[0] + x4 * V[3] + x5 * V[6]
        w[22 * LANES + n] = x3 * V[1] + x4 * V[4] + x5 * V[7]
        w[23 * LANES + n] = x3 * V[2] + x4 * V[5] + x5 * V[8]
        w[24 * LANES + n] = x6 * V[0] + x7 * V[3] + x8 * V[6]
        w[25 * LANES + n] = x6 * V[1] + x7 * V[4] + x8 * V[7]
        w[26 * LANES + n] = x6 * V[2] + x7 * V[5] + x8 * V[8]
        a, b, c = np.sqrt(max(a, zero)), np.sqrt(max(b, zero)), np.sqrt(max(c, zero))
        w[27 * LANES + n], w[28 * LANES + n], w[29 * LANES + n] = a, b, c
        least = np.float32(1e-6)
        w[30 * LANES + n], w[31 * LANES + n] = one / max(a, least), one / max(b, least)
        w[32 * LANES + n] = one / max(c, least)
        w[33 * LANES + n] = (
            x0 * (x4 * x8 - x5 * x7) - x1 * (x3 * x8 - x5 * x6) + x2 * (x3 * x7 - x4 * x6)
        )  # fmt: skip


@compiled
def stress_and_strain(particles, matter, space, affine, w):
    """Carry F and Jp of all particles a substep on, and put their stress with their affine momentum
    into `affine`."""
    N, B, _ = particles.pos.shape
    inv_dx = np.float32(1) / space.dx
    scale = -space.dt * matter.volume * np.float32(4) * inv_dx * inv_dx
    one = np.float32(1)
    C, F = particles.C.reshape(N * B, 9), particles.F.reshape(N * B, 9)
    Jp, out = particles.Jp.reshape(N * B), affine.reshape(N * B, 9)
    dt = space.dt
    for first in range(0, N * B, LANES):
        count = min(LANES, N * B - first)
        for n in range(count):
            c, f = C[first + n], F[first + n]
            for row in range(3):
                for col in range(3):
                    w[(3 * row + col) * LANES + n] = f[3 * row + col] + dt * (
                        c[3 * row] * f[col]
                        + c[3 * row + 1] * f[3 + col]
                        + c[3 * row + 2] * f[6 + col]
                    )
        stretches(w)
        for n in range(count):
            at = first + n
            p = at // B
            m = matter.material[p]
            J = w[33 * LANES + n]
            s0, s1, s2 = w[27 * LANES + n], w[28 * LANES + n], w[29 * LANES + n]
            i0, i1, i2 = w[30 * LANES + n], w[31 * LANES + n], w[32 * LANES + n]
            if J < 0:  # Turned inside out: by convention the least stretch carries the sign.
                if s0 <= s1 and s0 <= s2:
                    s0, i0 = -s0, -i0
                elif s1 <= s2:
                    s1, i1 = -s1, -i1
                else:
                    s2, i2 = -s2, -i2
            mu, lam = matter.mu[m], matter.lam[m]
            pressure = lam * J * (J - one)
            if matter.kind[m] == SAND:
                e0, e1, e2, gained = _flow_of_sand(s0, s1, s2, Jp[at], mu, lam, matter.strength[m])
                Jp[at] = gained
                t0, t1, t2 = np.exp(e0), np.exp(e1), np.exp(e2)
                # The stress of logarithmic strain, without a pressure of its own.
                trace = lam * (e0 + e1 + e2)
                two = np.float32(2) * mu
                k0, k1, k2 = two * e0 + trace, two * e1 + trace, two * e2 + trace
                pressure = np.float32(0)
            else:
                t0, t1, t2 = s0, s1, s2
                if matter.kind[m] == ELASTOPLASTIC:
                    t0, t1, t2 = _flow_of_dough(
                        s0, s1, s2, matter.strength[m] / (np.float32(2) * mu)
                    )
                two = np.float32(2) * mu
                k0, k1, k2 = two * (t0 - one) * t0, two * (t1 - one) * t1, two * (t2 - one) * t2
            r0, r1, r2 = t0 * i0, t1 * i1, t2 * i2  # New over old stretches.
            k0, k1, k2 = k0 * i0 * i0, k1 * i1 * i1, k2 * i2 * i2
            new, a, c, mass = F[at], out[at], C[at], matter.mass[p]
            x0, x1, x2 = w[n], w[LANES + n], w[2 * LANES + n]
            x3, x4, x5 = w[3 * LANES + n], w[4 * LANES + n], w[5 * LANES + n]
            x6, x7, x8 = w[6 * LANES + n], w[7 * LANES + n], w[8 * LANES + n]
            v0, v1, v2 = w[9 * LANES + n], w[10 * LANES + n], w[11 * LANES + n]
            v3, v4, v5 = w[12 * LANES + n], w[13 * LANES + n], w[14 * LANES + n]
            v6, v7, v8 = w[15 * LANES + n], w[16 * LANES + n], w[17 * LANES + n]
            u0, u1, u2 = w[18 * LANES + n], w[19 * LANES + n], w[20 * LANES + n]
            u3, u4, u5 = w[21 * LANES + n], w[22 * LANES + n], w[23 * LANES + n]
            u6, u7, u8 = w[24 * LANES + n], w[25 * LANES + n], w[26 * LANES + n]
            if t0 == s0 and t1 == s1 and t2 == s2:
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
    e0, e1, e2 = (
        np.log(max(abs(s0), least)),
        np.log(max(abs(s1), least)),
        np.log(max(abs(s2), least)),
    )
    trace = e0 + e1 + e2 + Jp
    if trace >= 0:
        return zero, zero, zero, trace
    d0, d1, d2 = e0 - third * trace, e1 - third * trace, e2 - third * trace
    size = np.sqrt(d0 * d0 + d1 * d1 + d2 * d2 + EPS)
    two = np.float32(2)
    excess = size + (np.float32(3) * lam + two * mu) / (two * mu) * trace * alpha
    cut = max(zero, excess) / size
    return e0 - cut * d0, e1 - cut * d1, e2 - cut * d2, zero
