from __future__ import annotations

import numpy as np
import pytest

from lucibot.objective.success import judge
from lucibot.objective.success.loops import enclosed, loop_of, windings
from lucibot.sim.state import FinalState, ParticleState
from lucibot.task import Task, load_task

RADIUS = 0.056


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("rubber_band")


def ring(task: Task, count: int = 200) -> np.ndarray:
    """(4 * count, 3) the band's particles at first."""
    angle = 2 * np.pi * np.arange(count) / count
    strands = [
        np.stack([r * np.cos(angle), r * np.sin(angle), np.full(count, z)], -1)
        for r in (RADIUS - 0.0016, RADIUS + 0.0016) for z in (0.0016, 0.0049)
    ]  # fmt: skip
    return np.concatenate(strands) + task.object("band").position_m


def around(task: Task, names: list[str], z: float, count: int = 200, wide: float = 0.04):
    """The ring's particles, stretched around the feet of things in the background."""
    feet = np.array([task.solid(n).position_m[:2] for n in names])
    angle = 2 * np.pi * np.arange(count) / count
    out = np.stack([np.cos(angle), np.sin(angle)], -1)
    far = feet[(feet @ out.T).argmax(0)] + wide * out
    # Its particles keep their distances: the way is divided evenly.
    closed = np.concatenate([far, far[:1]])
    length = np.r_[0, np.linalg.norm(np.diff(closed, axis=0), axis=1).cumsum()]
    even = np.linspace(0, length[-1], count, endpoint=False)
    path = np.stack([np.interp(even, length, closed[:, d]) for d in range(2)], -1)
    return np.tile(np.column_stack([path, np.full(count, z)]), (4, 1))


def state(task: Task, final: np.ndarray, speed: float = 0.0) -> FinalState:
    start = ring(task)
    band = ParticleState(
        initial=start, final=final, speed=np.full(len(start), speed), size_m=np.asarray(0.0033),
        lower_m=np.full(3, -0.5), upper_m=np.full(3, 0.5), reached_lower_m=final.min(0),
        reached_upper_m=final.max(0),
    )  # fmt: skip
    return FinalState(bodies={}, particles={"band": band})


def test_a_band_around_both_sticks_succeeds(task):
    found = judge(task, state(task, around(task, ["left_stick", "right_stick"], 0.03)))
    assert found.success and found.score == 1.0


def test_the_first_moment_encloses_one_stick(task):
    found = judge(task, state(task, ring(task)))
    assert not found.success
    assert found.metrics["band.enclosed_share"] == 0.5


@pytest.mark.parametrize("height", [0.07, 0.12])
def test_hovering_above_the_sticks_is_not_around_them(task, height):
    final = around(task, ["left_stick", "right_stick"], height)
    assert judge(task, state(task, final)).metrics["band.enclosed_share"] == 0


def test_lying_on_top_of_one_stick_is_not_enough(task):
    final = around(task, ["left_stick", "right_stick"], 0.03)
    foot = np.array(task.solid("right_stick").position_m[:2])
    over = np.linalg.norm(final[:, :2] - foot, axis=1) < 0.05
    final[over] = [*foot, 0.064]
    found = judge(task, state(task, final))
    assert not found.success and found.metrics["band.enclosed_share"] <= 0.5


def test_a_torn_band_encloses_nothing(task):
    final = around(task, ["left_stick", "right_stick"], 0.03)
    middle = 0.5 * (final[:, 0].min() + final[:, 0].max())
    final[:, 0] += np.where((final[:, 0] > middle) & (final[:, 1] < -0.09), 0.08, 0.0)
    found = judge(task, state(task, final))
    assert found.metrics["band.enclosed_share"] == 0 and not found.success


def test_a_moving_band_is_not_at_rest(task):
    final = around(task, ["left_stick", "right_stick"], 0.03)
    assert not judge(task, state(task, final, speed=0.1)).success


def test_windings_count_turns_and_their_sense():
    angle = 2 * np.pi * np.arange(40) / 40
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    assert windings(circle, np.zeros(2)) == 1
    assert windings(circle[::-1], np.zeros(2)) == -1
    assert windings(circle, np.array([2.0, 0.0])) == 0
    twice = np.stack([np.cos(2 * angle), np.sin(2 * angle)], -1)
    assert windings(twice, np.array([0.1, 0.0])) == 2


def test_a_ring_keeps_its_order_however_it_is_deformed(task):
    start = ring(task)
    axis = np.array([0.0, 0.0, 1.0])
    loop = loop_of(start, start, axis, 24)
    assert loop.shape == (24, 3)
    middle = np.array(task.object("band").position_m[:2])
    np.testing.assert_allclose(np.linalg.norm(loop[:, :2] - middle, axis=1), RADIUS, rtol=0.01)
    shuffled = np.random.default_rng(0).permutation(len(start))
    moved = start * [2.0, 0.5, 1.0]
    np.testing.assert_allclose(
        loop_of(start, moved, axis, 24),
        loop_of(start[shuffled], moved[shuffled], axis, 24),
        atol=0.003,
    )
    assert enclosed(loop, middle[None], np.array([0.1])) == pytest.approx(1.0)
