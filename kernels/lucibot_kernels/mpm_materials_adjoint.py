"""The transpose of `mpm_materials.stress_and_strain`: elastic matter, and von Mises's plastic return.

With F = U S V^T the trial deformation, S = diag(s), what that kernel gives are isotropic functions of it:
the new F = U diag(t(s)) V^T and the stress U diag(k(s)) U^T plus a pressure. In the axes of U and V a
small change B of F, off its diagonal, turns these axes; with i != j

    new F:   X_ij + X_ji = (B_ij + B_ji) (t_j - t_i) / (s_j - s_i)
             X_ij - X_ji = (B_ij - B_ji) (t_j + t_i) / (s_j + s_i)
    stress:  Y_ij = (k_j - k_i) / 2 ((B_ij + B_ji) / (s_j - s_i) + (B_ij - B_ji) / (s_j + s_i))

and on it changes the stretches alone. For equal stretches the quotients become derivatives.
"""

from __future__ import annotations

import numpy as np

from lucibot_kernels.bodies import EPS
from lucibot_kernels.jit import compiled, inlined
from lucibot_kernels.mpm_materials import ELASTOPLASTIC, LANES, SAND, stretches

ALIKE = np.float32(1e-4)
"""Stretches that differ by less are equal."""
SMALL = 7
"""Matrices (3, 3) of scratch memory."""


def knows(kinds: np.ndarray) -> bool:
    """Whether all these kinds of matter have a transpose; sand has none."""
    return not (np.asarray(kinds) == SAND).any()


@compiled
def stress_and_strain(particles, matter, space, d_affine, d, w, small):
    """
    Args:
        particles: as they were before the substep; of them C and F are read.
        d_affine: (N, B, 3, 3) gradient with respect to `affine`.
        d: gradients with respect to particles: on entry `F` belongs to the new F, on return to the old
            one. `C` is added to.
        w: (ROWS * LANES,) and small: (SMALL, 3, 3), scratch memory.
    """
    N, B, _ = particles.pos.shape
    inv_dx = np.float32(1) / space.dx
    scale = -space.dt * matter.volume * np.float32(4) * inv_dx * inv_dx
    dt, one = space.dt, np.float32(1)
    C, F = particles.C.reshape(N * B, 3, 3), particles.F.reshape(N * B, 3, 3)
    d_C, d_F = d.C.reshape(N * B, 3, 3), d.F.reshape(N * B, 3, 3)
    d_A = d_affine.reshape(N * B, 3, 3)
    U, V, P, Q, slope, d_trial, again = (
        small[0], small[1], small[2], small[3], small[4], small[5], small[6]
    )  # fmt: skip
    for first in range(0, N * B, LANES):
        count = min(LANES, N * B - first)
        for n in range(count):
            c, f = C[first + n], F[first + n]
            for row in range(3):
                for col in range(3):
                    w[(3 * row + col) * LANES + n] = f[row, col] + dt * (
                        c[row, 0] * f[0, col] + c[row, 1] * f[1, col] + c[row, 2] * f[2, col]
                    )
        stretches(w)
        for n in range(count):
            at = first + n
            m, mass = matter.material[at // B], matter.mass[at // B]
            J = w[33 * LANES + n]
            s = (w[27 * LANES + n], w[28 * LANES + n], w[29 * LANES + n])
            if J < 0:
                if s[0] <= s[1] and s[0] <= s[2]:
                    s = (-s[0], s[1], s[2])
                elif s[1] <= s[2]:
                    s = (s[0], -s[1], s[2])
                else:
                    s = (s[0], s[1], -s[2])
            for row in range(3):
                for col in range(3):
                    V[row, col] = w[(9 + 3 * row + col) * LANES + n]
                    stretch = s[col] if abs(s[col]) > np.float32(1e-6) else np.float32(1e-6)
                    U[row, col] = w[(18 + 3 * row + col) * LANES + n] / stretch
            # affine = scale * stress + mass * C
            for row in range(3):
                for col in range(3):
                    d_C[at, row, col] += mass * d_A[at, row, col]
                    half = np.float32(0.5) * scale
                    d_trial[row, col] = half * (d_A[at, row, col] + d_A[at, col, row])
            _framed(U, d_F[at], V, P, again)
            _framed(U, d_trial, U, Q, again)
            two = np.float32(2) * matter.mu[m]
            t = s
            for i in range(3):
                for j in range(3):
                    slope[i, j] = one if i == j else np.float32(0)
            if matter.kind[m] == ELASTOPLASTIC:
                t = _flow_of_dough(s[0], s[1], s[2], matter.strength[m] / two, slope)
            k = (two * (t[0] - one) * t[0], two * (t[1] - one) * t[1], two * (t[2] - one) * t[2])
            pressed = matter.lam[m] * (J + J - one) * (Q[0, 0] + Q[1, 1] + Q[2, 2])
            B_ = d_trial
            for j in range(3):
                # pressure = lam J (J - 1), J the product of the stretches.
                others = s[(j + 1) % 3] * s[(j + 2) % 3]
                B_[j, j] = pressed * others
                for i in range(3):
                    steep = two * (t[i] + t[i] - one)
                    B_[j, j] += (P[i, i] + Q[i, i] * steep) * slope[i, j]
            for i in range(3):
                for j in range(i + 1, 3):
                    if abs(s[j] - s[i]) > ALIKE:
                        a, c_ = (t[j] - t[i]) / (s[j] - s[i]), (k[j] - k[i]) / (s[j] - s[i])
                    else:
                        a = slope[i, i] - slope[i, j]
                        c_ = two * (t[i] + t[i] - one) * a
                    both = s[i] + s[j]
                    both = both if abs(both) > np.float32(1e-3) else np.float32(1e-3)
                    alpha = np.float32(0.5) * (P[i, j] + P[j, i]) * a + Q[i, j] * c_
                    beta = (
                        np.float32(0.5) * (P[i, j] - P[j, i]) * (t[i] + t[j])
                        + Q[i, j] * (k[j] - k[i])
                    ) / both
                    B_[i, j], B_[j, i] = alpha + beta, alpha - beta
            # Out of the axes again: the trial's gradient is U B V^T.
            for row in range(3):
                for col in range(3):
                    again[row, col] = (
                        U[row, 0] * B_[0, col] + U[row, 1] * B_[1, col] + U[row, 2] * B_[2, col]
                    )
            for row in range(3):
                for col in range(3):
                    P[row, col] = (
                        again[row, 0] * V[col, 0]
                        + again[row, 1] * V[col, 1]
                        + again[row, 2] * V[col, 2]
                    )
            # trial = (1 + dt C) F
            c, f = C[at], F[at]
            for row in range(3):
                for col in range(3):
                    d_C[at, row, col] += dt * (
                        P[row, 0] * f[col, 0] + P[row, 1] * f[col, 1] + P[row, 2] * f[col, 2]
                    )
                    d_F[at, row, col] = P[row, col] + dt * (
                        c[0, row] * P[0, col] + c[1, row] * P[1, col] + c[2, row] * P[2, col]
                    )


@inlined
def _framed(left, m, right, out, again):
    """left^T m right, all (3, 3)."""
    for row in range(3):
        for col in range(3):
            again[row, col] = (
                m[row, 0] * right[0, col] + m[row, 1] * right[1, col] + m[row, 2] * right[2, col]
            )
    for row in range(3):
        for col in range(3):
            out[row, col] = (
                left[0, row] * again[0, col]
                + left[1, row] * again[1, col]
                + left[2, row] * again[2, col]
            )


@inlined
def _flow_of_dough(s0, s1, s2, limit, slope):
    """What `mpm_materials._flow_of_dough` gives, and its derivatives (3, 3) in `slope`: row i, column
    j of the new stretch i with respect to the old stretch j."""
    least, third, one = np.float32(0.05), np.float32(1 / 3), np.float32(1)
    s = (s0, s1, s2)
    held = (max(s0, least), max(s1, least), max(s2, least))
    for i in range(3):
        slope[i, i] = one if s[i] > least else np.float32(0)
    e = (np.log(held[0]), np.log(held[1]), np.log(held[2]))
    mean = third * (e[0] + e[1] + e[2])
    d = (e[0] - mean, e[1] - mean, e[2] - mean)
    size = np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2] + EPS)
    if size <= limit:
        return held
    kept = limit / size
    t = (np.exp(mean + kept * d[0]), np.exp(mean + kept * d[1]), np.exp(mean + kept * d[2]))
    for i in range(3):
        for j in range(3):
            own = one if i == j else np.float32(0)
            # strain i = mean + kept d_i, and kept falls with the size.
            strain = third + kept * (own - third) - kept * d[i] * d[j] / (size * size)
            slope[i, j] = t[i] * strain / held[j] if s[j] > least else np.float32(0)
    return t
