"""Our own SPH substep on the CPU: against a slow twin, closed forms, and Genesis's own solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lucibot_kernels import bodies, sph

from lucibot.task import load_task

DT, SIZE, SUPPORT, VOLUME = 1e-3, 0.01, 0.02, 0.8 * 0.01**3
GRAVITY = np.array([0, 0, -9.81])


def particles(n: int, b: int, spacing: float = 0.009) -> sph.Particles:
    """A jittered block of liquid above z = 0, in no particular order."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(n ** (1 / 3)))
    grid = np.array(list(np.ndindex(side, side, side)))[:n] * spacing
    pos = np.stack([rng.permutation(grid) for _ in range(b)], 1)
    pos += np.array([-0.02, 0.01, 0.005]) + rng.normal(0, 0.1 * spacing, pos.shape)
    return sph.Particles(
        pos=pos.astype(np.float32),
        vel=rng.normal(0, 0.3, (n, b, 3)).astype(np.float32),
    )


def matter(n: int) -> sph.Matter:
    """Two liquids, one in the other."""
    second = np.arange(n) % 3 == 0
    density = np.where(second, 700.0, 1000.0)
    values = {
        "density": density, "mass": VOLUME * density, "stiffness": np.where(second, 2000.0, 1000.0),
        "exponent": np.where(second, 5.0, 7.0), "viscosity": np.where(second, 0.01, 0.003),
        "tension": np.where(second, 0.02, 0.01),
    }  # fmt: skip
    return sph.Matter(
        **{k: v.astype(np.float32) for k, v in values.items()}, volume=np.float32(VOLUME)
    )


def space(b: int) -> sph.Space:
    return sph.Space(
        support=np.float32(SUPPORT), size=np.float32(SIZE), dt=np.float32(DT),
        gravity=np.tile(GRAVITY.astype(np.float32), (b, 1)),
        lower=np.full(3, -0.2, np.float32), upper=np.full(3, 0.3, np.float32),
    )  # fmt: skip


def ball() -> bodies.Bodies:
    return bodies.primitive(bodies.SPHERE, 1, radius_m=0.02)


def run(p: sph.Particles, body: bodies.Bodies | None = None, *, pressed=False, steps=1, of=None):
    """`steps` substeps in place; particles meet `body` if there is one."""
    N, B, _ = p.pos.shape
    coupled = np.zeros(0 if body is None else 1, np.int32)
    body, memory = bodies.primitive(bodies.PLANE, B) if body is None else body, sph.scratch(N)
    for _ in range(steps):
        sph.substep(p, of or matter(N), space(B), body, coupled,
                    np.full(len(coupled), pressed), memory)  # fmt: skip
    return p


def copied(p: sph.Particles, b=slice(None)) -> sph.Particles:
    return sph.Particles(*(np.ascontiguousarray(x[:, b]).copy() for x in p))


def sorted_pairs(p: sph.Particles, b: int = 0):
    """The kernels' memory when pairs have been found, and those, by the simulator's numbers."""
    memory = sph.scratch(len(p.pos))
    strides = sph.sort(b, p, matter(len(p.pos)), space(p.pos.shape[1]), memory)
    n = sph.find_pairs(strides, space(1), memory)
    i = np.repeat(np.arange(len(p.pos)), np.diff(memory.first.astype(int)))
    found = np.stack([memory.order[i], memory.order[memory.other[:n]]], 1)
    return memory, n, np.sort(found, axis=1)


# --- The slow twin: Genesis's formulas, in double precision, one pair at a time ------------------


def twin_kernel(r):
    q, k = r / SUPPORT, 8 / np.pi / SUPPORT**3
    if q > 1:
        return 0.0
    return k * (6 * q**3 - 6 * q**2 + 1) if q <= 0.5 else 2 * k * (1 - q) ** 3


def twin_slope(d):
    r, k = np.linalg.norm(d), 8 / np.pi / SUPPORT**3
    q = r / SUPPORT
    if r <= 1e-5 or q > 1:
        return np.zeros(3)
    return (6 * k * q * (3 * q - 2) if q <= 0.5 else -6 * k * (1 - q) ** 2) * d / (r * SUPPORT)


def twin_accelerations(x, v, m: sph.Matter):
    """Density [kg/m^3], pressure [Pa] and acceleration of all particles."""
    N = len(x)
    pairs = [(i, j) for i in range(N) for j in range(N)]
    pairs = [(i, j) for i, j in pairs if i != j and np.linalg.norm(x[i] - x[j]) < SUPPORT]
    sums = np.full(N, twin_kernel(0.0))
    for i, j in pairs:
        sums[i] += twin_kernel(np.linalg.norm(x[i] - x[j]))
    thin = VOLUME * sums * m.density
    a = np.tile(GRAVITY, (N, 1))
    for i, j in pairs:
        d = x[i] - x[j]
        r = np.linalg.norm(d)
        a[i] -= m.tension[i] / m.mass[i] * m.mass[j] * d * twin_kernel(max(r, SIZE))
        drag = 10 * m.viscosity[i] * m.mass[j] / thin[j] * ((v[i] - v[j]) @ d)
        a[i] += drag / (r**2 + 0.01 * SUPPORT**2) * twin_slope(d)
    dense = np.maximum(thin, m.density)
    pressure = m.stiffness * ((dense / m.density) ** m.exponent - 1)
    for i, j in pairs:
        push = pressure[i] / dense[i] ** 2 + pressure[j] / dense[j] ** 2
        a[i] -= m.density[j] * VOLUME * push * twin_slope(x[i] - x[j])
    return thin, pressure, a


def doubles(m: sph.Matter) -> sph.Matter:
    return sph.Matter(*(np.asarray(x, np.float64) for x in m))


@pytest.mark.parametrize("stray", [False, True])
def test_pairs_are_those_of_brute_force(stray):
    p = particles(400, 2)
    p.pos[7, 1] = p.pos[300, 1]
    if stray:  # So far away that cells of the support radius would be too many.
        p.pos[5, 1], p.pos[6, 1] = -0.2, 0.3
    memory, n, found = sorted_pairs(p, b=1)
    x = p.pos[:, 1].astype(float)
    apart = np.linalg.norm(x[:, None] - x[None], axis=-1)
    wanted = np.argwhere(np.triu(apart < SUPPORT, 1))
    assert abs(apart - SUPPORT).min() > 1e-8  # None is so close to call that rounding decides.
    np.testing.assert_array_equal(found[np.lexsort(found.T[::-1])], wanted)
    np.testing.assert_allclose(memory.square[:n], apart[tuple(found.T)] ** 2, atol=1e-9)
    np.testing.assert_array_equal(np.sort(memory.order), np.arange(400))


def test_density_and_forces_are_those_of_the_slow_twin():
    p = particles(120, 1, spacing=0.0085)
    p.pos[3] = p.pos[80]  # In one place, where the kernel's slope has no direction.
    memory, n, _ = sorted_pairs(p)
    sph.weigh(n, space(1), memory)
    sph.press(matter(120), space(1), memory)
    sph.accelerate(0, space(1), memory)
    density, pressure, a = twin_accelerations(
        p.pos[:, 0].astype(float), p.vel[:, 0].astype(float), doubles(matter(120))
    )
    assert 0.2 < (pressure > 0).mean() < 0.9
    order, row = memory.order, memory.row
    np.testing.assert_allclose(row[:, sph.MASS] / row[:, sph.VOLUME], density[order], rtol=2e-6)
    np.testing.assert_allclose(row[:, sph.PRESSURE], pressure[order], rtol=1e-4, atol=1e-2)
    got = row[:, sph.ACC : sph.ACC + 3]
    np.testing.assert_allclose(got, a[order], atol=2e-5 * np.abs(a).max())


def test_a_substep_does_what_its_slow_twin_does():
    p = particles(60, 1)
    p.pos[4], p.vel[4] = [0.299999, 0.1, 0.1], [1, 2, 0]  # About to leave, alone.
    x, v = p.pos[:, 0].astype(float), p.vel[:, 0].astype(float)
    v = v + DT * twin_accelerations(x, v, doubles(matter(60)))[2]
    x = x + DT * v
    v[4, 0], x[4, 0] = 0, 0.3
    run(p)
    np.testing.assert_allclose(p.vel[:, 0], v, atol=2e-5)
    np.testing.assert_allclose(p.pos[:, 0], x, atol=1e-7)


def test_environments_have_nothing_to_do_with_each_other():
    p = particles(90, 5)
    together = run(copied(p), bodies.primitive(bodies.PLANE, 5), pressed=True, steps=6)
    alone = run(copied(p, slice(3, 4)), bodies.primitive(bodies.PLANE, 1), pressed=True, steps=6)
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a[:, 3:4], b)


def test_what_is_not_a_number_stays_in_its_environment_and_ends_at_the_border():
    p = particles(50, 3)
    p.vel[4, 1], p.pos[9, 1], p.pos[11, 1, 2] = np.nan, np.nan, np.inf
    clean = run(copied(p, slice(0, 1)), bodies.primitive(bodies.PLANE, 1), steps=4)
    got = run(p, bodies.primitive(bodies.PLANE, 3), steps=4)
    np.testing.assert_array_equal(got.pos[:, :1], clean.pos)
    assert np.isfinite(got.pos).all()
    s = space(1)
    assert ((got.pos[:, 1] <= s.lower) | (got.pos[:, 1] >= s.upper)).any()


def test_more_pairs_than_there_is_room_for_are_left_out():
    """As when no velocity is a number, and all particles end in one corner."""
    p = particles(600, 1)
    p.pos[:], p.vel[:] = 0.3, np.nan
    memory, n, found = sorted_pairs(p)
    assert 600 * sph.PAIRS < n < len(memory.other) < 600 * 599 / 2
    assert len(np.unique(found, axis=0)) == n
    run(p, steps=2)
    assert np.isfinite(p.pos).all()


def test_what_rests_on_a_plane_pushes_it_down_by_its_weight():
    p, plane, of = particles(343, 1), bodies.primitive(bodies.PLANE, 1), matter(343)
    p.vel[:], of.viscosity[:] = 0, 0.003
    run(p, plane, steps=600, of=of)
    assert p.pos[..., 2].min() > -0.003 and np.abs(p.vel[..., 2]).mean() < 0.05
    plane.force[:] = 0
    run(p, plane, steps=400, of=of)
    # Written down as minus the force on the plane, summed over the substeps.
    assert plane.force[0, 0, 2] / 400 == pytest.approx(matter(343).mass.sum() * 9.81, rel=0.1)


def test_a_body_that_can_move_feels_the_pressure_which_changes_no_momentum():
    p = particles(216, 1, spacing=0.0075)
    p.pos[:], p.vel[:] = p.pos - p.pos.mean(0), 0
    p.pos[..., 0] -= p.pos[..., 0].max() + 0.025  # Left of the ball, no nearer than 5 mm.
    free, fixed, moved = copied(p), ball(), ball()
    run(free)
    run(copied(p), fixed)
    got = run(copied(p), moved, pressed=True)
    mass = matter(216).mass
    lost = (mass[:, None] * (got.vel - free.vel)[:, 0]).sum(0) / DT
    np.testing.assert_allclose(moved.force[0, 0], lost, atol=1e-4 * np.abs(lost).max())
    # Forces stand with a minus, and none that a ball feels turns it.
    assert not fixed.force.any() and moved.force[0, 0, 0] < -0.05
    np.testing.assert_allclose(moved.torque[0, 0], 0, atol=1e-4)


def test_the_plane_integral_is_the_kernels():
    steps = np.linspace(0, SUPPORT, 2001)
    for distance in (0.0, 0.003, 0.01, 0.014, -0.006, 0.021):
        r = np.maximum(steps, abs(distance))
        wanted = np.trapezoid([2 * np.pi * twin_kernel(x) * x for x in r], r)
        got = sph.plane_integral(np.float32(distance), np.float32(SUPPORT))
        assert got == pytest.approx(wanted, abs=1e-3 / SUPPORT)
    half = np.trapezoid(
        [sph.plane_integral(np.float32(x), np.float32(SUPPORT)) for x in steps], steps
    )
    assert half == pytest.approx(0.5, abs=1e-4)


@pytest.mark.slow
def test_each_substep_of_a_pour_is_that_of_genesis():
    """From the same state, all along a pour: splashing is chaotic, so two rollouts part in time, as
    two of Genesis's own do if one begins ten nanometres aside. Nothing is poured past the glass."""
    from lucibot.sim.particles import QuickSPH
    from lucibot.sim.rollout import run_rollout
    from lucibot.sim.scene import SimScene

    task, n_envs = load_task("pour_liquid"), 2
    waypoints = np.zeros((n_envs, 9, 1, 6), np.float32)
    waypoints[:, :, 0, :3] = [-0.045, -0.02, 0.12]
    waypoints[:, 0, 0, :3] = [-0.1, -0.04, 0.1]
    waypoints[:, 2:, 0, 4] = np.minimum(np.arange(1, 8) / 5, 1) * 1.9
    waypoints[1, :, 0, 4] *= 1.05
    held = np.ones((9, 1), bool)
    scene = SimScene(task, n_envs=n_envs, own_kernels=False)
    adapter = scene._adapter
    couple, after, quick = adapter.couple, adapter.after, QuickSPH(adapter)
    errors, changes, ours = [], [], {}

    def both(f: int) -> None:
        ours["particles"] = copied(quick._particles)
        ours["bodies"] = quick._bodies._replace(
            force=quick._bodies.force.copy(), torque=quick._bodies.torque.copy()
        )
        sph.substep(ours["particles"], quick._matter, quick._space, ours["bodies"], quick._coupled,
                    quick._pressed, quick._scratch)  # fmt: skip
        ours["velocity"] = quick._particles.vel.copy()
        couple(f)

    def compare(f: int) -> None:
        after(f)
        got, wanted = ours["particles"], quick._particles
        errors.append([
            np.abs(got.pos - wanted.pos).max(), np.abs(got.vel - wanted.vel).max(),
            np.abs(ours["bodies"].force - quick._bodies.force).max(),
            np.abs(ours["bodies"].torque - quick._bodies.torque).max(),
        ])  # fmt: skip
        changes.append([np.abs(wanted.vel - ours["velocity"]).max(), quick._bodies.force.max()])

    adapter.couple, adapter.after = both, compare
    run_rollout(scene, torch.from_numpy(waypoints), held)
    assert (np.max(errors, axis=0) < [1e-7, 5e-5, 1e-4, 1e-5]).all(), np.max(errors, axis=0)
    assert (np.max(changes, axis=0) > [0.2, 1.0]).all()  # [m/s] in a substep, [N].

    own = SimScene(task, n_envs=n_envs)
    assert isinstance(own._quick, QuickSPH)
    run_rollout(own, torch.from_numpy(waypoints), held)
    for s in (scene, own):
        p = s.particles("liquid").numpy()
        inside = (np.hypot(p[..., 0] - 0.11, p[..., 1] + 0.02) < 0.045) & (p[..., 2] < 0.062)
        assert (inside.mean(0) > 0.95).all()
