"""A rollout that comes apart fails by itself: the others of its batch do not feel it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lucibot.objective.config import VideoObjective
from lucibot.sim.timer import PARTS
from lucibot.task import load_task

KEYFRAMES = 4


def evaluator(name: str, *, own_kernels: bool = True):
    from lucibot.benchmark.workload import supervision
    from lucibot.sim.evaluator import Evaluator
    from lucibot.sim.scene import SimScene

    scene = SimScene(load_task(name), n_envs=3, own_kernels=own_kernels)
    assert scene.own_kernels == (own_kernels and bool(scene.particle_objects))
    return Evaluator(scene, supervision(scene, KEYFRAMES), VideoObjective())


def assert_alone_has_failed(found, wanted, failed: int) -> None:
    """To the bit, all but one rollout are what they would have been."""
    others = np.arange(len(wanted.loss)) != failed
    np.testing.assert_array_equal(found.failed, ~others)
    np.testing.assert_array_equal(found.loss[others], wanted.loss[others])
    assert np.isposinf(found.loss[failed])
    for name, values in wanted.terms.items():
        np.testing.assert_array_equal(found.terms[name][others], values[others], err_msg=name)
        assert np.isnan(found.terms[name][failed])


def burst(scene, environment: int) -> None:
    """All particles of an environment nearly at one place, and what knows a shape far out of it."""
    for o in scene.particle_objects:
        p = scene.particles(o.name)[:, environment]
        p[:] = p.mean(0) + 0.02 * (p - p.mean(0))
    if scene._adapter.has_solids():
        torch.from_numpy(scene._adapter.solids()[0].F)[:, environment] *= 100


def seen(positions, velocities=(), *, begins=((0, 0, 0),) * 3) -> list[bool]:
    """Whether each of three environments, in which a body begins at `begins`, has diverged at a moment.

    Args:
        positions: (3 n, 3) of the body; velocities: (N, 3 n, 3) of particles that are within their domain.
    """
    from lucibot.sim.moment import Moment
    from lucibot.sim.scene import SimScene

    def task(at):
        return SimpleNamespace(object=lambda name: SimpleNamespace(position_m=at))

    scene = object.__new__(SimScene)
    scene.n_envs, scene.task, scene._stands = 3, task(begins[0]), [task(at) for at in begins]
    scene.particle_bounds = lambda name: (np.full(3, -1.0), np.ones(3))
    p, v = torch.tensor(positions).float(), torch.tensor(velocities).float()
    moment = Moment(
        position={"cup": p}, quaternion={}, velocity={"cup": torch.zeros(len(p), 6)},
        particles={"sand": torch.zeros_like(v)} if len(v) else {},
        particle_velocity={"sand": v} if len(v) else {}, error=torch.zeros(len(p), dtype=torch.bool),
    )  # fmt: skip
    return scene.diverged(moment).tolist()


def test_a_body_is_far_away_only_from_where_it_begins():
    begins = ((3.5, 0, 0), (0, 0, 0), (0, -50, 0))
    assert seen([(4.0, 0, 0), (3.1, 0, 0), (0, -47.5, 0)], begins=begins) == [False, True, False]
    # Of two moments the first one's environments are counted first.
    twice = [(0.4, 0, 0), (2.9, 0, 0), (0, -50, 2), (3, 1, 0), (0, 0, -3.1), (0, 0, 0)]
    assert seen(twice, begins=begins) == [True, False, False, False, True, True]


def test_particles_whose_speed_is_no_number_are_not_sound():
    still = np.zeros((100, 3, 3))
    still[7, 1, 2], still[3, 2, 0] = np.nan, 21.0
    assert seen(np.zeros((3, 3)), still) == [False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("own_kernels", [True, False])
@pytest.mark.parametrize("name", ["cut_dough", "pour_liquid"])
def test_particles_that_burst_end_no_batch(name, own_kernels):
    from lucibot.benchmark.workload import candidates

    judge = evaluator(name, own_kernels=own_kernels)
    scene, paths, places = judge.scene, candidates(judge.scene.task, 3, KEYFRAMES), []
    wanted = judge.evaluate(paths)
    assert not wanted.failed.any()
    assert set(wanted.seconds) == set(PARTS) - {"ask and tell"}
    assert all(s > 0 for s in wanted.seconds.values())

    def disturb(step: int) -> None:
        if step == 20:
            burst(scene, 1)
        if step >= 20:
            places.append(
                torch.cat([scene.particles(o.name)[:, 1] for o in scene.particle_objects])
            )

    found, states = judge.evaluate_with_states(paths, on_step=disturb)
    # It has really come apart: at the border, where speeds are 0 again, within a step.
    leapt_m = torch.linalg.vector_norm(torch.diff(torch.stack(places), dim=0), dim=-1)
    assert leapt_m.max() / scene.dt_s > 10
    assert_alone_has_failed(found, wanted, 1)
    assert len(states) == 3
    again = judge.evaluate(paths)
    np.testing.assert_array_equal(again.loss, wanted.loss)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cut_dough", "pour_liquid", "stack_cups", "hammer_peg"])
def test_waypoints_that_are_no_numbers_or_absurd_end_no_batch(name):
    from lucibot.benchmark.workload import candidates

    judge = evaluator(name)
    paths = candidates(judge.scene.task, 3, KEYFRAMES)
    wanted = judge.evaluate(paths)
    assert not wanted.failed.any()
    for number in (np.nan, np.inf, 1e30, 1e3):
        absurd = paths.copy()
        absurd[2, 1:, 0, :3] = number
        assert_alone_has_failed(judge.evaluate(absurd), wanted, 2)
    np.testing.assert_array_equal(judge.evaluate(paths).loss, wanted.loss)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, own_kernels",
    [("cut_dough", True), ("cut_dough", False), ("pour_liquid", True), ("stack_cups", False)],
)
def test_a_servo_that_is_told_no_number_ends_no_batch(name, own_kernels, monkeypatch):
    """What the simulator itself does with it, and what looks at the outcome."""
    from lucibot.benchmark.workload import candidates

    judge = evaluator(name, own_kernels=own_kernels)
    scene, paths = judge.scene, candidates(judge.scene.task, 3, KEYFRAMES)
    wanted, servo, told = judge.evaluate(paths), scene.servo, []

    def servo_without_numbers(name: str, pose, velocity) -> None:
        servo(name, pose, velocity)
        told.append(name)
        if len(told) > 20:
            scene._controls[name][1][:, 1] = torch.nan

    monkeypatch.setattr(scene, "servo", servo_without_numbers)
    found, _ = judge.evaluate_with_states(paths)
    assert_alone_has_failed(found, wanted, 1)
    monkeypatch.undo()
    np.testing.assert_array_equal(judge.evaluate(paths).loss, wanted.loss)
