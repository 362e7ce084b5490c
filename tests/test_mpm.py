"""Our own MPM substep on the CPU: against a slow twin, closed forms, and Genesis's own solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lucibot_kernels import bodies, mpm, mpm_materials
from lucibot_kernels.mpm_materials import ELASTIC, ELASTOPLASTIC, LANES, ROWS, SAND

from lucibot.task import load_task

DT, DX, VOLUME = 1e-3, 1 / 64, 0.005**3 * 1e3
MU, LAM, STRENGTH = 2e4, 3e4, {ELASTIC: 0.0, ELASTOPLASTIC: 1500.0, SAND: 0.3}
CELLS, OFFSET = (24, 20, 18), (-8, -6, -4)


def deformations(n: int, spread: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(0)
    F = np.eye(3) + spread * rng.normal(size=(n, 3, 3))
    F[0], F[1] = np.eye(3), np.diag([1.2, 1.2, 1.2])  # Equal stretches have no axes of their own.
    F[2] = np.diag([1.0, -0.6, 1.1])  # Turned inside out.
    return F.astype(np.float32)


def particles(n: int, b: int, seed: int = 0) -> mpm.Particles:
    rng = np.random.default_rng(seed)
    F = np.repeat(deformations(n, 0.1)[:, None], b, axis=1)
    return mpm.Particles(
        pos=rng.uniform(-0.03, 0.05, (n, b, 3)).astype(np.float32),
        vel=rng.normal(0, 0.3, (n, b, 3)).astype(np.float32),
        C=rng.normal(0, 4.0, (n, b, 3, 3)).astype(np.float32), F=F,
        Jp=np.zeros((n, b), np.float32),
    )  # fmt: skip


def matter(n: int, kind: int) -> mpm_materials.Matter:
    one = np.ones(1, np.float32)
    return mpm_materials.Matter(
        material=np.zeros(n, np.int32), mass=np.full(n, 1000 * VOLUME, np.float32),
        volume=np.float32(VOLUME), kind=np.array([kind], np.int32), mu=MU * one, lam=LAM * one,
        strength=np.array([STRENGTH[kind]], np.float32),
    )  # fmt: skip


def space(b: int) -> mpm.Space:
    return mpm.Space(
        cells=np.array(CELLS, np.int32), offset=np.array(OFFSET, np.int32), dx=np.float32(DX),
        dt=np.float32(DT), gravity=np.tile(np.array([0, 0, -9.81], np.float32), (b, 1)),
        lower=np.full(3, -0.04, np.float32), upper=np.full(3, 0.2, np.float32),
    )  # fmt: skip


def body(kind: int, b: int = 1) -> bodies.Bodies:
    """A plane, or a ball of 5 mm, at (0, 0, 0.01)."""
    made = bodies.primitive(kind, b, radius_m=0.005)
    made.pos[..., 2], made.friction[0] = 0.01, 0.3
    return made


def run(
    p: mpm.Particles,
    kind: int,
    b: bodies.Bodies | None = None,
    *,
    coupled=(),
    separating=(),
    steps=1,
):
    """`steps` substeps in place."""
    N, B, _ = p.pos.shape
    b = body(bodies.PLANE, B) if b is None else b
    memory = mpm.scratch(N, B, CELLS, len(separating))
    normals = np.zeros((len(separating), N, B, 3), np.float32)
    separating = np.array(separating, np.int32)
    for _ in range(steps):
        if len(separating):
            mpm.particle_normals(p.pos, b, separating, normals)
        mpm.substep(p, matter(N, kind), space(B), b, np.array(coupled, np.int32), separating,
                    normals, memory)  # fmt: skip
    return p


def copied(p: mpm.Particles, b=slice(None)) -> mpm.Particles:
    return mpm.Particles(*(np.ascontiguousarray(x[:, b]).copy() for x in p))


# --- The slow twin: Genesis's formulas, in double precision, one particle at a time --------------


def twin_stress(F, kind, Jp):
    """New F and Jp, and Kirchhoff stress, of one particle whose trial deformation is F."""
    U, S, Vt = np.linalg.svd(F)
    if np.linalg.det(U) < 0:
        U[:, 2], S[2] = -U[:, 2], -S[2]
    if np.linalg.det(Vt) < 0:
        Vt[2], S[2] = -Vt[2], -S[2]
    J, R, eye = S.prod(), U @ Vt, np.eye(3)
    if kind == SAND:
        e = np.log(np.maximum(np.abs(S), 1e-4))
        trace = e.sum() + Jp
        if trace >= 0:
            e, Jp = np.zeros(3), trace
        else:
            d = e - trace / 3
            size = np.linalg.norm(d)
            excess = size + (3 * LAM + 2 * MU) / (2 * MU) * trace * STRENGTH[SAND]
            e, Jp = e - max(0, excess) / size * d, 0.0
        t = np.exp(e)
        stress = U @ np.diag((2 * MU * e + LAM * e.sum()) / t) @ Vt @ (U @ np.diag(t) @ Vt).T
        return U @ np.diag(t) @ Vt, Jp, stress
    if kind == ELASTOPLASTIC:
        e = np.log(np.maximum(S, 0.05))
        d = e - e.mean()
        excess = np.linalg.norm(d) - STRENGTH[ELASTOPLASTIC] / (2 * MU)
        if excess > 0:
            F = U @ np.diag(np.exp(e - excess / np.linalg.norm(d) * d)) @ Vt
    return F, Jp, 2 * MU * (F - R) @ F.T + LAM * J * (J - 1) * eye


def twin_substep(p: mpm.Particles, kind: int) -> mpm.Particles:
    """One substep of environment 0 without bodies."""
    N, inv = len(p.pos), 1 / DX
    grid, mass = {}, 1000 * VOLUME
    x, v, C, F = (np.array(a[:, 0], np.float64) for a in (p.pos, p.vel, p.C, p.F))
    out = copied(p, slice(0, 1))

    def stencil(n):
        base = np.floor(x[n] * inv - 0.5).astype(int)
        f = x[n] * inv - base
        w = [0.5 * (1.5 - f) ** 2, 0.75 - (f - 1) ** 2, 0.5 * (f - 0.5) ** 2]
        for o in np.ndindex(3, 3, 3):
            yield tuple(base + o), w[o[0]][0] * w[o[1]][1] * w[o[2]][2], np.array(o) - f

    for n in range(N):
        out.F[n, 0], out.Jp[n, 0], stress = twin_stress(
            (np.eye(3) + DT * C[n]) @ F[n], kind, p.Jp[n, 0]
        )
        affine = -DT * VOLUME * 4 * inv * inv * stress + mass * C[n]
        for node, w, away in stencil(n):
            m, momentum = grid.get(node, (0.0, np.zeros(3)))
            grid[node] = m + w * mass, momentum + w * (mass * v[n] + affine @ away * DX)
    s = space(1)
    velocity = {}
    for node, (m, momentum) in grid.items():
        at, u = np.array(node) * DX, momentum / m + DT * np.array([0, 0, -9.81])
        u[((at >= s.upper) & (u >= 0)) | ((at <= s.lower) & (u <= 0))] = 0
        velocity[node] = u
    for n in range(N):
        u, A = np.zeros(3), np.zeros((3, 3))
        for node, w, away in stencil(n):
            u += w * velocity[node]
            A += 4 * inv * w * np.outer(velocity[node], away)
        to = x[n] + DT * u
        u[((to >= s.upper) & (u >= 0)) | ((to <= s.lower) & (u <= 0))] = 0
        out.pos[n, 0], out.vel[n, 0], out.C[n, 0] = np.clip(to, s.lower, s.upper), u, A
    return out


def test_stretches_are_those_of_a_singular_value_decomposition():
    F = deformations(LANES)
    w = np.zeros((ROWS, LANES), np.float32)
    w[:9] = F.reshape(LANES, 9).T
    flat = w.reshape(-1)
    mpm_materials.stretches(flat)
    V = w[9:18].T.reshape(LANES, 3, 3).astype(float)
    np.testing.assert_allclose(
        V.transpose(0, 2, 1) @ V, np.tile(np.eye(3), (LANES, 1, 1)), atol=2e-6
    )
    wanted = np.linalg.svd(F.astype(float))[1]
    np.testing.assert_allclose(np.sort(w[27:30].T, 1)[:, ::-1], wanted, rtol=2e-5, atol=2e-6)
    FV = F.astype(float) @ V
    np.testing.assert_allclose(w[18:27].T.reshape(LANES, 3, 3), FV, atol=2e-6)
    gram = FV.transpose(0, 2, 1) @ FV
    off = np.abs(gram - gram * np.eye(3)).max()
    assert off < 2e-6, f"columns of F V are not orthogonal: {off}"
    np.testing.assert_allclose(w[33], np.linalg.det(F.astype(float)), atol=2e-6)


@pytest.mark.parametrize("kind", [ELASTIC, ELASTOPLASTIC, SAND])
def test_a_substep_does_what_its_slow_twin_does(kind):
    p = particles(40, 1)
    wanted = twin_substep(p, kind)
    got = run(copied(p), kind)
    assert np.abs(wanted.vel - p.vel).max() > 0.1  # Something has happened to them.
    if kind != ELASTIC:
        assert np.abs(wanted.F - twin_substep(p, ELASTIC).F).max() > 0.01  # Some have flowed.
    scale = {"pos": 1e-6, "vel": 2e-4, "C": 0.05, "F": 2e-5, "Jp": 1e-5}
    for name, tolerance in scale.items():
        np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), atol=tolerance,
                                   err_msg=name)  # fmt: skip


def test_environments_have_nothing_to_do_with_each_other():
    p = particles(33, 5)
    together = run(copied(p), ELASTOPLASTIC, body(bodies.PLANE, 5), coupled=[0], steps=4)
    alone = run(copied(p, slice(3, 4)), ELASTOPLASTIC, body(bodies.PLANE), coupled=[0], steps=4)
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a[:, 3:4], b)


def test_what_is_not_a_number_stays_in_its_environment_and_ends_at_the_border():
    p = particles(20, 3)
    p.vel[4, 1] = np.nan
    p.F[5, 1] = np.inf
    p.pos[6, 1], p.pos[7, 1], p.pos[8, 1] = np.nan, -1e9, np.inf
    clean = run(copied(p, slice(0, 1)), SAND, steps=3)
    with np.errstate(all="ignore"):
        got = run(p, SAND, steps=3)
    np.testing.assert_array_equal(got.pos[:, :1], clean.pos)
    assert np.isfinite(got.pos).all()
    s = space(1)
    assert ((got.pos[:, 1] <= s.lower) | (got.pos[:, 1] >= s.upper)).any()


def test_what_falls_on_a_plane_stays_above_it_and_pushes_it_down():
    p = particles(60, 1)
    p.vel[:], p.C[:], p.F[:] = 0, 0, np.eye(3)
    p.pos[..., 2] = np.abs(p.pos[..., 2]) + 0.02
    plane = body(bodies.PLANE)
    run(p, ELASTOPLASTIC, plane, coupled=[0], steps=400)
    assert p.pos[..., 2].min() > 0.008 and abs(p.vel[..., 2].mean()) < 0.02
    plane.force[:] = 0
    run(p, ELASTOPLASTIC, plane, coupled=[0], steps=200)
    weight = 60 * 1000 * VOLUME / 1e3 * 9.81
    # Written down as minus the force on the plane, summed over the substeps.
    assert plane.force[0, 0, 2] / 200 == pytest.approx(weight, rel=0.2)


def test_a_separating_body_parts_particles_from_nodes_on_its_other_side():
    """A ball between two clumps, one of which comes at the other."""
    ball, p, centre = body(bodies.SPHERE), particles(50, 1), np.array([0, 0, 0.01])
    p.pos[:25] = p.pos[:25] * 0.01 + centre + [0.012, 0, 0]
    p.pos[25:] = p.pos[25:] * 0.01 + centre - [0.012, 0, 0]
    p.F[:], p.C[:], p.vel[:] = np.eye(3), 0, 0
    p.vel[:25] = [-1, 0, 0]

    memory, normals = mpm.scratch(50, 1, CELLS, 1), np.zeros((1, 50, 1, 3), np.float32)
    separating, where = np.zeros(1, np.int32), space(1)
    mpm.particle_normals(p.pos, ball, separating, normals)
    low, high = mpm._box(0, p.pos, where)
    mpm._tell_apart(0, p.pos, where, ball, separating, normals, memory, low, high)
    base = np.floor(p.pos[:, 0] / DX - 0.5).astype(int)
    stencil = np.array(list(np.ndindex(3, 3, 3)))
    nodes = (base[:, None] + stencil) * DX - centre
    beyond = np.einsum("nki,ni->nk", nodes, p.pos[:, 0] - centre) < 0
    assert 0.1 < beyond.mean() < 0.9
    np.testing.assert_array_equal(memory.parted, beyond.any(1))
    np.testing.assert_array_equal(
        memory.apart[beyond.any(1)], np.where(beyond, 0, -1)[beyond.any(1)]
    )

    free = run(copied(p), ELASTIC)
    parted = run(copied(p), ELASTIC, ball, separating=[0])
    assert free.vel[25:, 0, 0].mean() < -0.05  # Without the ball the grid carries the push over.
    assert abs(parted.vel[25:, 0, 0].mean()) < 0.6 * abs(free.vel[25:, 0, 0].mean())
    assert ball.force[0, 0, 0] > 0  # The ball is pushed against x, and forces stand with a minus.


def test_a_particle_in_a_separating_body_keeps_its_side():
    """On its way through a ball, past the middle, where the nearest way out turns about bit by bit; and
    round a ball, outside of it, where it does not."""
    ball, p, centre = body(bodies.SPHERE), particles(8, 1), np.array([0, 0, 0.01])
    angle = np.linspace(-0.5, 0.5, 13) * np.pi

    def side_after(radius_m: float) -> np.ndarray:
        normals = np.zeros((1, 8, 1, 3), np.float32)
        way = np.stack([np.cos(angle), 0 * angle, np.sin(angle)], 1) * radius_m
        for at in [np.array([0, 0, -0.006]), *way, way[-1] * 1.01]:
            p.pos[0, 0] = centre + at
            mpm.particle_normals(p.pos, ball, np.zeros(1, np.int32), normals)
        return normals[0, 0, 0]

    np.testing.assert_allclose(side_after(0.002), [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(side_after(0.006), [0, 0, 1], atol=1e-6)


def test_fields_give_distances_normals_and_forces():
    """A ball of 3 cm as a field of 2 mm cells, turned and moved, against the closed form."""
    n, cell, radius = 41, 0.002, 0.03
    axis = (np.arange(n) - (n - 1) / 2) * cell
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    far = np.linalg.norm(grid, axis=-1)
    distance = (far - radius).astype(np.float32)
    gradient = (grid / np.maximum(far, 1e-9)[..., None]).astype(np.float32)
    m = -(-(n - 1) // 4)
    least = np.array([
        distance[4 * i : 4 * i + 5, 4 * j : 4 * j + 5, 4 * k : 4 * k + 5].min()
        for i, j, k in np.ndindex(m, m, m)
    ], np.float32)  # fmt: skip
    T = np.eye(4, dtype=np.float32)
    T[:3, :3] /= cell
    T[:3, 3] = (n - 1) / 2
    q = np.array([0.8, 0.2, -0.4, 0.4], np.float32)
    b = body(bodies.PLANE)._replace(
        softness=np.full(1, 0.004, np.float32),
        kind=np.array([6], np.int32), to_field=T[None], size=np.full((1, 3), n, np.int32),
        cell=np.full((1, 3), cell, np.float32), distance=distance.reshape(-1),
        gradient=gradient.reshape(-1, 3), furthest=distance.max()[None],
        blocks=np.full((1, 3), m, np.int32), block_least=least,
        quat=(q / np.linalg.norm(q))[None, None], pos=np.array([[[0.1, -0.2, 0.3]]], np.float32),
    )  # fmt: skip
    bodies.place(b)
    centre = b.pos[0, 0].astype(float)
    rng = np.random.default_rng(0)
    for p in (centre + rng.uniform(-0.038, 0.038, (200, 3))).astype(np.float32):
        away = p - centre
        wanted = np.linalg.norm(away) - radius
        if not 0.01 < np.linalg.norm(away) < 0.038:
            continue
        assert bodies.signed_distance(b, 0, 0, tuple(p)) == pytest.approx(wanted, abs=3e-4)
        np.testing.assert_allclose(
            bodies.normal(b, 0, 0, tuple(p)), away / np.linalg.norm(away), atol=0.03
        )
        weight = bodies.influence(b, 0, 0, tuple(p))
        if abs(wanted - 0.0092) > 1e-3:  # About there it is cut off.
            near = min(1.0, np.exp(-wanted / 0.004))
            assert weight == pytest.approx(near if near > 0.1 else 0.0, abs=0.05)
    beyond = (centre + np.array([0.2, 0, 0])).astype(np.float32)
    assert bodies.signed_distance(b, 0, 0, tuple(beyond)) > distance.max()
    np.testing.assert_allclose(bodies.normal(b, 0, 0, tuple(beyond)), [1, 0, 0], atol=1e-5)

    p, v, mass, dt = centre + np.array([0.03, 0, 0]), np.array([-2.0, 0.5, 0]), 0.01, 1e-3
    p, v = p.astype(np.float32), v.astype(np.float32)
    after = np.array(bodies.collide(b, 0, 0, tuple(p), tuple(v), np.float32(mass),
                                    (np.float32(1), np.float32(0), np.float32(0)),
                                    np.float32(1), np.float32(dt)))  # fmt: skip
    # It stops, and friction (0.3 of what was lost against the surface) takes all of the sliding.
    np.testing.assert_allclose(after, [0, 0, 0], atol=1e-3)
    force = mass * (v - after) / dt
    np.testing.assert_allclose(-b.force[0, 0], force, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(-b.torque[0, 0], np.cross(p, force), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, lowered_m, close_mm",
    [("cut_dough", 0.015, 0.01), ("rubber_band", 0.015, 0.01), ("scoop_sand", 0.030, 2.0)],
)
def test_rollouts_are_those_of_genesis(name, lowered_m, close_mm):
    """Dough with CPIC, a band that is held, sand: positions along a rollout in which the actuator
    moves them (left alone no grain of sand moves by 2 mm). Sand is chaotic, so all but a hundredth of
    its grains must agree, to a fifth of a grain."""
    from lucibot.benchmark.workload import candidates
    from lucibot.sim.rollout import run_rollout
    from lucibot.sim.scene import SimScene

    task, seen, n_envs = load_task(name), {}, 2
    waypoints = torch.from_numpy(candidates(task, n_envs))
    waypoints[:, 4:8, :, 2] -= lowered_m
    held = np.ones(waypoints.shape[1:3], bool)
    for own in (False, True):
        scene = SimScene(task, n_envs=n_envs, own_kernels=own)
        assert scene.own_kernels == own
        looks: list[np.ndarray] = []

        def look(_, scene=scene, looks=looks):
            looks.append(
                torch.cat([scene.particles(o.name) for o in scene.particle_objects]).numpy().copy()
            )

        run_rollout(scene, waypoints, held, on_keyframe=look)
        assert not scene.diverged().any()
        seen[own] = np.array(looks)
    moved = np.linalg.norm(seen[False] - seen[False][0], axis=-1).max(0)
    apart = np.linalg.norm(seen[True] - seen[False], axis=-1)
    assert np.percentile(moved, 98) > 0.004
    assert 1e3 * np.percentile(apart, 99) < close_mm
