"""Gradients through our own MPM substep, in double precision: against finite differences of the same
kernels and of the slow twin, and through a rollout with checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
from lucibot_kernels import bodies, bodies_adjoint, mpm, mpm_adjoint, mpm_materials
from lucibot_kernels import mpm_materials_adjoint as materials_adjoint
from lucibot_kernels.mpm_materials import ELASTIC, ELASTOPLASTIC, SAND
from lucibot_kernels.mpm_tape import Tape

from tests.test_mpm import CELLS, body, deformations, matter, particles, space, twin_substep

N = 30


def double(made):
    """A named tuple in double precision."""
    return type(made)(*(
        x.astype(float) if getattr(x, "dtype", None) == np.float32 else x for x in made
    ))  # fmt: skip


def finite_differences(f, x: np.ndarray, step: float = 1e-7) -> np.ndarray:
    """Of f() with respect to x, which is changed in place and put back."""
    found = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        was = x[i]
        x[i] = was + step
        more = f()
        x[i] = was - step
        found[i], x[i] = (more - f()) / (2 * step), was
    return found


def close(got: np.ndarray, wanted: np.ndarray, name: str, tolerance: float = 1e-6) -> None:
    assert np.abs(wanted).max() > 0, name
    assert np.abs(got - wanted).max() < tolerance * np.abs(wanted).max(), name


def field(radius_m: float, cell_m: float, n: int) -> bodies.Bodies:
    """A turned ball as a signed distance field, which its corners make uneven."""
    axis = (np.arange(n) - (n - 1) / 2) * cell_m
    grid = np.stack(np.meshgrid(axis, 1.3 * axis, axis, indexing="ij"), -1)
    far = np.linalg.norm(grid, axis=-1)
    m = -(-(n - 1) // 4)
    distance = far - radius_m
    least = [distance[4 * i : 4 * i + 5, 4 * j : 4 * j + 5, 4 * k : 4 * k + 5].min()
             for i, j, k in np.ndindex(m, m, m)]  # fmt: skip
    T = np.diag([1 / cell_m] * 3 + [1.0])
    T[:3, 3] = (n - 1) / 2
    i32, q = np.int32, np.array([0.8, 0.2, -0.4, 0.4])
    return double(bodies.primitive(bodies.PLANE, 1))._replace(
        kind=np.array([6], i32), to_field=T[None], size=np.full((1, 3), n, i32),
        cell=np.full((1, 3), cell_m), distance=distance.reshape(-1), furthest=distance.max()[None],
        gradient=(grid / np.maximum(far, 1e-9)[..., None]).reshape(-1, 3),
        blocks=np.full((1, 3), m, i32), block_least=np.array(least), quat=(q / np.linalg.norm(q))[None, None],
    )  # fmt: skip


def tool(kind: str) -> bodies.Bodies:
    """One that moves through the particles, with friction."""
    if kind == "field":
        made = field(0.02, 0.003, 25)
    else:
        made = double(body(bodies.SPHERE))
        made.data[0, 0] = 0.02
    rng = np.random.default_rng(3)
    made.pos[0, 0], made.centre[0, 0] = [0.002, 0.001, 0.01], [0.003, 0.004, 0.012]
    made.velocity[:], made.spin[:] = rng.normal(0, 0.3, (1, 1, 3)), rng.normal(0, 3, (1, 1, 3))
    made.friction[0], made.restitution[0] = 0.3, 0.1
    return made._replace(softness=np.full(1, 0.006))


class Scene:
    """A clump of particles in one substep, and a weighted sum of what comes out."""

    def __init__(self, kind: int, b: bodies.Bodies, coupled=(), separating=()):
        self.p, self.b = double(particles(N, 1)), b
        self.matter, self.space = double(matter(N, kind)), double(space(1))
        self.coupled, self.separating = np.array(coupled, np.int32), np.array(separating, np.int32)
        self.normals = np.zeros((len(separating), N, 1, 3))
        if len(separating):
            mpm.particle_normals(self.p.pos, b, self.separating, self.normals)
        self.scratch = mpm.scratch(N, 1, CELLS, len(separating), float)
        rng = np.random.default_rng(1)
        scale = mpm.Particles(pos=1, vel=1, C=0.01, F=1, Jp=0)
        self.weights = mpm.Particles(*(
            s * rng.normal(size=x.shape) for s, x in zip(scale, self.p, strict=True)
        ))  # fmt: skip

    def value(self) -> float:
        p = mpm.Particles(*(x.copy() for x in self.p))
        mpm.substep(p, self.matter, self.space, self.b, self.coupled, self.separating, self.normals,
                    self.scratch)  # fmt: skip
        return sum(float((w * x).sum()) for w, x in zip(self.weights, p, strict=True))

    def gradients(self) -> tuple[mpm.Particles, bodies_adjoint.Pull]:
        memory = mpm_adjoint.memory(N, 1, CELLS, len(self.coupled), len(self.separating), float)
        d = mpm.Particles(*(w.copy() for w in self.weights))
        to = bodies_adjoint.pull(1, 1, 1, float)
        mpm_adjoint.substep(self.p, self.matter, self.space, self.b, self.coupled, self.separating,
                            self.normals, memory, d, to)  # fmt: skip
        self.parted = memory.forward.parted
        return d, to


@pytest.mark.parametrize("kind", [ELASTIC, ELASTOPLASTIC])
@pytest.mark.parametrize(
    "shape, coupled, separating", [("ball", (), ()), ("ball", (0,), (0,)), ("field", (0,), ())]
)
def test_a_substeps_gradients_are_its_finite_differences(kind, shape, coupled, separating):
    scene = Scene(kind, tool(shape), coupled, separating)
    d, to = scene.gradients()
    for name, step in {"pos": 1e-7, "vel": 1e-6, "C": 1e-4, "F": 1e-6}.items():
        wanted = finite_differences(scene.value, getattr(scene.p, name), step)
        close(getattr(d, name), wanted, name)
    if not coupled:
        return
    for name, step in {"velocity": 1e-6, "spin": 1e-4, "centre": 1e-6, "pos": 1e-7}.items():
        wanted = finite_differences(scene.value, getattr(scene.b, name), step)
        close(getattr(to, name), wanted, name)
    turned = np.zeros((1, 1, 3))
    upright = scene.b.quat.copy()

    def value() -> float:
        # To first order, for a small turn in world axes.
        (x, y, z), (w, a, b, c) = turned[0, 0] / 2, upright[0, 0]
        scene.b.quat[0, 0] = [w - x * a - y * b - z * c, a + x * w + y * c - z * b,
                              b + y * w + z * a - x * c, c + z * w + x * b - y * a]  # fmt: skip
        return scene.value()

    wanted = finite_differences(value, turned)
    if shape == "field":
        close(to.turn, wanted, "turn")
    else:
        np.testing.assert_allclose(to.turn, 0, atol=1e-12)
    if separating:
        assert scene.parted.sum() > 2


@pytest.mark.parametrize("at", [(0.0053, 0.0207, 0.0291), (0.045, -0.01, 0.02), (0.0, 0.05, 0.03)])
def test_an_influences_gradient_inside_and_outside_of_a_field(at):
    """A soft shape still acts beyond its field."""
    b = tool("field")._replace(softness=np.full(1, 0.08))

    def value() -> float:
        bodies.place(b)
        return float(bodies.influence(b, 0, 0, at))

    assert 0.1 < value() < 1
    assert bodies.in_field(b, 0, 0, at)[-1] == (at[0] == 0.0053)
    to = bodies_adjoint.pull(1, 1, 1, float)
    bodies_adjoint.influence(b, 0, 0, at, 1.0, to)
    close(to.pos, finite_differences(value, b.pos), "pos", 1e-5)


@pytest.mark.parametrize("kind", [ELASTIC, ELASTOPLASTIC])
def test_a_substeps_gradients_are_those_of_the_slow_twin(kind):
    """Whose formulas are written with a singular value decomposition."""
    scene = Scene(kind, tool("ball"))
    d, _ = scene.gradients()

    def value() -> float:
        out = twin_substep(scene.p, kind)
        return sum(float((w * x).sum()) for w, x in zip(scene.weights, out, strict=True))

    for name in ("pos", "vel", "C", "F"):
        few = getattr(scene.p, name)[:4]
        close(getattr(d, name)[:4], finite_differences(value, few, 1e-6), name, 1e-4)


@pytest.mark.parametrize("kind", [ELASTIC, ELASTOPLASTIC])
def test_matters_transpose_alone(kind):
    """Of all kinds of deformation, also with equal stretches, and strong ones."""
    F = deformations(N, 0.2)
    F = F[np.linalg.det(F) > 0.2]
    n = len(F)
    made = particles(n, 1)._replace(F=F[:, None].copy(), C=np.zeros((n, 1, 3, 3), np.float32))
    p, m, s = double(made), double(matter(n, kind)), double(space(1))
    rng = np.random.default_rng(0)
    w_affine, w_F = rng.normal(size=(n, 1, 3, 3)), rng.normal(size=(n, 1, 3, 3))
    block, affine = np.zeros(mpm_materials.ROWS * mpm_materials.LANES), np.zeros((n, 1, 3, 3))

    def value() -> float:
        q = mpm.Particles(*(x.copy() for x in p))
        mpm_materials.stress_and_strain(q, m, s, affine, block)
        return float((w_affine * affine).sum() + (w_F * q.F).sum())

    d = mpm_adjoint.nothing(n, 1, float)
    d.F[:] = w_F
    materials_adjoint.stress_and_strain(
        p, m, s, w_affine.copy(), d, block, np.zeros((materials_adjoint.SMALL, 3, 3))
    )
    close(d.F, finite_differences(value, p.F, 1e-6), "F")
    close(d.C, finite_differences(value, p.C, 1e-4), "C")
    assert not materials_adjoint.knows(np.array([kind, SAND]))


@pytest.mark.parametrize("every", [7, 64])
def test_a_rollouts_gradient_through_checkpoints_is_its_finite_difference(every):
    """Fifty substeps in which a ball presses into a clump on a floor: of where particles are halfway and
    in the end, with respect to how the ball is moved. CPIC parts particles from nodes."""
    start, b = double(particles(N, 1)), tool("ball")
    start.F[:], start.C[:], start.vel[:] = np.eye(3), 0, 0
    start.pos[:] = 0.5 * start.pos + [0, 0, 0.02]
    m, s = double(matter(N, ELASTOPLASTIC)), double(space(1))
    coupled, separating, steps = np.zeros(1, np.int32), np.zeros(1, np.int32), 50
    p = mpm.Particles(*(x.copy() for x in start))
    normals, scratch = np.zeros((1, N, 1, 3)), mpm.scratch(N, 1, CELLS, 1, float)
    rng = np.random.default_rng(2)
    weights = {25: rng.normal(size=(N, 3)), steps: rng.normal(size=(N, 3))}
    velocity = np.array([[0.1, 0.05, 0.15]])
    tape = Tape(p, m, s, b, coupled, separating, normals, every=every)

    def value() -> float:
        for x, was in zip(p, start, strict=True):
            x[:] = was
        normals[:], total = 0, 0.0
        b.pos[0, 0], b.spin[:] = [0.0, 0.0, -0.012], 0
        tape.begin()
        for i in range(steps):
            tape.before_bodies_move()
            mpm.particle_normals(p.pos, b, separating, normals)
            b.pos[0, 0] += velocity[0] * s.dt
            b.velocity[0, 0], b.centre[0, 0] = velocity[0], b.pos[0, 0]
            tape.before_substep()
            mpm.substep(p, m, s, b, coupled, separating, normals, scratch)
            total += float((weights.get(i + 1, np.zeros((N, 3))) * p.pos[:, 0]).sum())
        return total

    value()
    assert np.abs(p.pos - start.pos).max() > 0.003
    found = tape.back(weights)
    moved = found.pos[:, 0] + found.centre[:, 0]  # The centre goes along.
    got = found.velocity[:, 0].sum(0) + s.dt * moved[::-1].cumsum(0).sum(0)
    wanted = finite_differences(value, velocity, 1e-6)[0]
    assert np.abs(got - wanted).max() < 1e-3 * np.abs(wanted).max(), (got, wanted)
