"""The second artist of `lucibot bench perception`: what it says it drew is what it drew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lucibot.benchmark.command import load
from lucibot.store.rollout import Rollout
from lucibot.task import checkout_folder

STEPS = 121


@pytest.fixture(scope="module")
def bench():
    return load("perception", checkout_folder("bench") / "perception" / "measure.py")


@pytest.fixture(scope="module")
def of(bench):
    """Modules of the measurement's folder by name."""
    import importlib

    return lambda name: importlib.import_module(f"{bench.__package__}.{name}")


@pytest.fixture(scope="module")
def moved(of, small_task, tmp_path_factory):
    """stack_cups, small, and the path of a run in which the yellow cup is carried 10 cm to the left."""
    task = small_task("stack_cups", tmp_path_factory.mktemp("t") / "stack_cups", width=240, height=180, fps=20)  # fmt: skip
    home = {o.name: np.asarray(o.position_m, float) for o in task.objects}
    positions = np.tile(np.stack(list(home.values())), (STEPS, 1, 1))
    share = np.clip((np.arange(STEPS) - 10) / 80, 0, 1)[:, None]
    positions[:, 1] += share * [-0.10, 0, 0] + np.sin(np.pi * share) * [0, 0, 0.05]
    held = np.zeros((STEPS, 2), bool)
    held[1:91, 1] = True
    rollout = Rollout(
        times_s=np.arange(STEPS) * 0.01, bodies=tuple(home), positions_m=positions,
        quaternions=np.tile([1.0, 0, 0, 0], (STEPS, 2, 1)), joints=(), joint_values=np.zeros((STEPS, 0)),
        actuators=tuple(home), held=held, particle_steps=np.array([0, STEPS - 1]), particles={},
        targets_m=np.full((STEPS, 2, 3), np.nan), target_quaternions=np.full((STEPS, 2, 4), np.nan),
        grasped={},
    )  # fmt: skip
    return task, of("paths").Path3D(
        rollout=rollout, grips=(("yellow_cup", np.array([0, 0, 0.11])),)
    )


def test_a_hand_comes_and_goes_and_things_end_where_the_run_left_them(of, moved):
    task, path = moved
    plan = of("paths").make_plan(task, path, 100)
    (hand,) = plan.hands
    assert not hand.present[0] and not hand.present[-1] and hand.present[hand.grips].all()
    assert plan.goal == np.flatnonzero(hand.present)[-1] + 1
    cup = plan.poses["yellow_cup"][:, :3, 3]
    assert np.allclose(cup[-1] - cup[0], [-0.10, 0, 0], atol=1e-6)
    assert np.linalg.norm(cup[plan.goal] - cup[-1]) < 1e-3
    # It breathes while it is carried, and stands at its own size.
    scale = plan.scale["yellow_cup"]
    assert 0.03 < np.abs(scale - 1).max() <= 0.05 and scale[0] == scale[-1] == 1


@pytest.mark.parametrize("fault", ["goal_not_reached", "wrong_object_moves"])
def test_a_fault_is_what_it_says(of, moved, fault):
    task, path = moved
    plan = of("paths").make_plan(task, path, 100, fault)
    cup, other = (plan.poses[n][:, :3, 3] for n in ("yellow_cup", "red_cup"))
    if fault == "goal_not_reached":
        assert plan.goal is None and np.linalg.norm(cup[-1] - cup[0]) < 1e-3
    else:
        # Nothing is near when it slides.
        slid = np.linalg.norm(np.diff(other, axis=0), axis=1) > 1e-5
        assert slid.any() and not plan.hands[0].present[:-1][slid].any()


def test_masks_are_the_pixels_that_changed(of, moved):
    """A thing's mask is where it is seen: taking the thing away changes the picture there, and
    nowhere else but for its shadow."""
    task, path = moved
    paths, artist = of("paths"), of("artist")
    plan = paths.make_plan(task, path, 100)
    t = int(np.flatnonzero(plan.hands[0].grips)[len(plan) // 8])
    drawn = artist.Artist(task, 100, plan).frame(t)
    without = replace(plan, hands=())
    bare = artist.Artist(task, 100, without).frame(t)
    hand = drawn.labels == artist.HAND
    changed = np.abs(drawn.rgb - bare.rgb).max(-1) > 3
    assert hand.sum() > 200 and changed[hand].mean() > 0.97
    # What else has changed got darker.
    beside = changed & (np.maximum(drawn.labels, bare.labels) == 0)
    assert (drawn.rgb[beside].mean(-1) < bare.rgb[beside].mean(-1) + 3).mean() > 0.95


def test_contacts_are_told_at_the_tasks_distance(of, moved):
    task, path = moved
    paths, clips = of("paths"), of("clips")
    plan = paths.make_plan(task, path, 100)
    pair = (("red_cup", "yellow_cup"),)
    for gap, expected in ((0.8, True), (1.3, False)):
        radius = float(np.asarray(task.mesh(task.object("red_cup")).vertices)[:, 0].max())
        poses = {n: p.copy() for n, p in plan.poses.items()}
        poses["yellow_cup"][:] = poses["red_cup"]
        poses["yellow_cup"][:, 0, 3] += 2 * radius + gap * task.spec.contact_m
        found = clips.touching(task, replace(plan, poses=poses), pair)
        assert found.all() == found.any() == expected
