"""Gradients through a whole rollout, against the simulator's own differences: a heavy tool presses a soft
block, gently."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import trimesh

from lucibot.core.geometry import pose_np
from lucibot.task import Task, load_task

TASK = """
title = "A block, pressed"

[camera]
width = 320
height = 240
position_m = [0.0, -0.45, 0.30]
look_at_m = [0.0, 0.0, 0.03]

[simulation]
dt_s = 0.004
substeps = 8
steps_per_waypoint = 15
settle_steps = 2

[simulation.mpm]
grid_density = 100
cpic = false
lower_m = [-0.08, -0.08, 0.0]
upper_m = [0.08, 0.08, 0.12]

[[background]]
name = "table"
size_m = [1.2, 0.8, 0.04]
position_m = [0.0, 0.0, -0.02]

[[objects]]
name = "press"
roles = ["actuator"]
mesh = "press.obj"
position_m = [0.0, 0.0, 0.075]
material = { kind = "rigid", mass_kg = 3.0 }

[[objects]]
name = "block"
roles = ["target"]
mesh = "block.obj"
position_m = [0.0, 0.0, 0.02]
material = { kind = "elastic", youngs_modulus_pa = 2.0e4, particle_size_m = 0.008 }
"""
DOWN_M = (0.066, 0.058, 0.052)
"""Of the press's middle at the keyframes; it touches the block at 0.060."""
STEP = 0.05
"""Of the differences [first step sizes, 4 mm and 3 degrees]."""


@pytest.fixture
def task(tmp_path) -> Task:
    folder = tmp_path / "press_block"
    folder.mkdir()
    trimesh.creation.box(extents=(0.06, 0.06, 0.04)).export(folder / "press.obj")
    trimesh.creation.box(extents=(0.05, 0.05, 0.04)).export(folder / "block.obj")
    (folder / "task.toml").write_text(TASK)
    (folder / "instruction.md").write_text("Press the block a little.\n")
    return load_task(str(folder))


def told(task: Task, heights_m, correlation: float, measure, particles, tool):
    """The gradient (D,) of what is measured at the last keyframe with respect to a way straight down or up,
    and the simulator's central differences of it.

    Args:
        measure: of a keyframe of B environments, (B,).
        particles, tool: its derivatives there, as `RolloutGradient.back` takes them.
    """
    from lucibot.optimize.parametrization import Parametrization
    from lucibot.sim.gradient import RolloutGradient
    from lucibot.sim.scene import SimScene

    K = len(heights_m)
    start = np.tile(pose_np(task.actuators[0].T_world_object), (K, 1, 1))
    start[:, 0, 2] = heights_m
    held = np.ones((K, 1), bool)
    space = Parametrization(
        start=start, free=held, sigma_position_m=0.004, sigma_rotation_rad=np.deg2rad(3.0),
        correlation=correlation,
    )  # fmt: skip
    D = space.dimension
    rollout = RolloutGradient(SimScene(task, n_envs=2 * D))
    around = STEP * np.concatenate([np.eye(D), -np.eye(D)])
    values = measure(rollout.run(space.waypoints(around), held)[-1])
    differences = (values[:D] - values[D:]) / (2 * STEP)
    moment = rollout.run(space.waypoints(np.zeros((2 * D, D))), held)[-1]
    ways = rollout.back(particles(moment, K - 1), tool(K - 1))
    return rollout.of_samples(ways, space.waypoints, np.zeros(D), held), differences


@pytest.mark.slow
def test_a_rollouts_gradient_is_that_of_the_simulators_differences(task):
    # Of the cloud as a whole: what single particles do cancels out.
    pull = np.array([0.3, -0.2, 1.0])
    got, wanted = told(
        task, DOWN_M, 0.0,
        measure=lambda m: m.particles["block"].double().numpy().mean(0) @ pull,
        particles=lambda m, k: {k: np.tile(pull, (len(m.particles["block"]), 1)) / len(m.particles["block"])},
        tool=lambda k: {},
    )  # fmt: skip
    assert np.linalg.norm(wanted) > 1e-4  # [m] a first step size
    cosine = got @ wanted / np.linalg.norm(got) / np.linalg.norm(wanted)
    assert cosine > 0.95
    assert np.linalg.norm(got) == pytest.approx(np.linalg.norm(wanted), rel=0.25)


@pytest.mark.slow
def test_where_the_tool_is_at_a_keyframe_has_the_servos_gradient(task):
    pull = np.array([0.5, -1.0, 2.0, 0, 0, 0])
    got, wanted = told(
        task, (0.09, 0.10), 0.5,  # In the air.
        measure=lambda m: m.position["press"].double().numpy() @ pull[:3],
        particles=lambda m, k: {}, tool=lambda k: {k: pull},
    )  # fmt: skip
    np.testing.assert_allclose(got, wanted, atol=0.03 * np.abs(wanted).max())


def test_of_nothing_asked_there_are_no_ways(task):
    from lucibot.sim.gradient import RolloutGradient

    gradient = object.__new__(RolloutGradient)
    gradient._scene, gradient._sim = SimpleNamespace(task=task), task.spec.simulation
    gradient._tool, gradient._link, gradient._first = task.actuators[0], 0, (None, None, None)
    gradient._bodies = SimpleNamespace(link=np.zeros(0, int))
    gradient._tape = SimpleNamespace(back=lambda gradients, environment: None)
    for of in gradient.back({}, {}):
        assert of.shape == (0, 6)
