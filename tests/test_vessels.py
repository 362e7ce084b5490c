"""What lies in a vessel, what is spilled, what a spoon holds."""

from __future__ import annotations

import numpy as np
import pytest

from lucibot.core.errors import UserError
from lucibot.core.euler import euler_xyz_deg_to_matrix
from lucibot.core.geometry import pose_np
from lucibot.objective.success import judge, predicates
from lucibot.objective.success.vessels import Bowl, inside_hull
from lucibot.optimize.clearance import Clearance
from lucibot.sim.state import BodyState, FinalState, ParticleState
from lucibot.task import Task, load_task


def particles(points: np.ndarray, size: float) -> ParticleState:
    return ParticleState(
        initial=points, final=points, speed=np.zeros(len(points)), size_m=np.asarray(size),
        lower_m=np.full(3, -1.0), upper_m=np.full(3, 1.0), reached_lower_m=points.min(0),
        reached_upper_m=points.max(0),
    )  # fmt: skip


def body(T: np.ndarray) -> BodyState:
    return BodyState(initial_pose=pose_np(T), pose=pose_np(T), velocity=np.zeros(6))


def grid(middle, half, n) -> np.ndarray:
    axes = [np.linspace(m - h, m + h, k) for m, h, k in zip(middle, half, n, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


@pytest.fixture(scope="module")
def pour() -> Task:
    return load_task("pour_liquid")


@pytest.fixture(scope="module")
def scoop() -> Task:
    return load_task("scoop_sand")


def poured(task: Task, share: float, spilled: float) -> FinalState:
    """`share` of 200 particles in the glass, `spilled` on the table, the rest in the bottle."""
    glass, bottle = task.solid("glass").position_m, task.object("bottle").position_m
    count = [round(200 * share), round(200 * spilled)]
    places = [np.add(glass, [0, 0, 0.03]), [0.0, 0.08, 0.004], np.add(bottle, [0, 0, 0.07])]
    count.append(200 - sum(count))
    points = np.concatenate(
        [np.tile(p, (n, 1)) for p, n in zip(places, count, strict=True)]
    ).astype(np.float32)
    return FinalState(
        bodies={"bottle": body(task.object("bottle").T_world_object)},
        particles={"liquid": particles(points, 0.008)},
    )


@pytest.mark.parametrize(
    ("share", "spilled", "ok"),
    [(1.0, 0.0, True), (0.92, 0.04, True), (0.85, 0.0, False), (0.92, 0.07, False)],
)
def test_a_pour_is_judged_by_what_is_in_the_glass_and_what_is_in_neither(
    pour, share, spilled, ok
):  # fmt: skip
    found = judge(pour, poured(pour, share, spilled))
    assert found.success == ok
    assert found.metrics["liquid.share_in_glass"] == pytest.approx(share)
    assert found.metrics["liquid.spilled_share"] == pytest.approx(spilled)
    assert (found.score == 1) == ok


def test_a_bowl_holds_water_up_to_its_rim(pour, scoop):
    glass = Bowl.of(pour.mesh(pour.solid("glass")))
    # The cavity's own volume, cone by cone: 39.6 mm wide at 60 mm, 22 mm at 19 mm.
    assert 130e-6 < glass.capacity_m3 < 160e-6
    spoon = Bowl.of(scoop.mesh(scoop.object("spoon")))
    assert spoon.capacity_m3 == pytest.approx(np.pi / 2 * 0.034 * 0.028 * 0.020, rel=0.05)
    ball = Bowl.of(pour.mesh(pour.object("liquid")))
    assert ball.capacity_m3 < 1e-9


def held(task: Task, height_m: float, layers: int, spilled: int) -> FinalState:
    """The spoon level at `height_m` with some layers of sand in it, the rest in the box."""
    turn = euler_xyz_deg_to_matrix([-0.02, 0.0, height_m], [0, 0, 30])
    local = grid([0, 0, -0.004 * (3 - layers)], [0.018, 0.014, 0.0045], (4, 3, layers))
    lifted = local @ turn[:3, :3].T + turn[:3, 3]
    box = np.add(task.solid("box").position_m, [0, 0, 0.03])
    bed = grid(box, [0.06, 0.04, 0.012], (13, 9, 4))
    lost = np.tile([0.0, 0.09, 0.004], (spilled, 1))
    points = np.concatenate([lifted, bed, lost]).astype(np.float32)
    return FinalState(
        bodies={"spoon": body(turn)}, particles={"sand": particles(points, 0.010)}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("height_m", "layers", "spilled", "ok"),
    [(0.14, 3, 0, True), (0.14, 1, 0, False), (0.07, 3, 0, False), (0.14, 3, 4, False)],
)
def test_a_spoonful_is_judged_by_how_much_is_held_how_high_and_what_fell(
    scoop, height_m, layers, spilled, ok
):  # fmt: skip
    found = judge(scoop, held(scoop, height_m, layers, spilled))
    assert found.success == ok
    if spilled:
        lifted = 12 * layers
        assert found.metrics["sand.spilled_share"] == pytest.approx(spilled / (spilled + lifted))


def test_sand_on_the_rim_is_not_in_the_box_and_not_spilled(scoop):
    state = held(scoop, 0.14, 3, spilled=2)
    box = np.array(scoop.solid("box").position_m)
    state.particles["sand"].final[-2:] = np.add(box, [[0.0, 0.063, 0.068], [-0.05, 0.0, 0.11]])
    assert judge(scoop, state).metrics["sand.spilled_share"] == 0
    state.particles["sand"].final[-1] = np.add(box, [0.0, 0.085, 0.068])
    assert judge(scoop, state).metrics["sand.spilled_share"] == pytest.approx(1 / (2 + 36))


def test_a_hollow_thing_is_clear_inside_and_blocked_in_its_wall(scoop):
    clear = Clearance.of(scoop)
    box = np.array(scoop.solid("box").position_m)
    inside = np.r_[np.add(box, [0.0, 0.0, 0.045]), 0, 0, 0]
    above = np.r_[np.add(box, [0.0, 0.0, 0.20]), 0, 0, 0]
    # The handle runs out over the wall, so the spoon may dig only with its handle raised.
    raised = pose_np(euler_xyz_deg_to_matrix(np.add(box, [0.0, 0.0, 0.045]), [0, -25, -35]))
    assert clear.distance(above, 0) > 0.01
    assert clear.distance(raised, 0) > 0
    wall = np.r_[np.add(box, [0.076, 0.0, 0.03]), 0, 0, 0]
    assert clear.distance(wall, 0) < -0.005
    assert clear.distance(inside, 0) < 0


def test_hulls_know_inside_from_outside(pour):
    bottle = pour.object("bottle")
    points = np.array([[0, 0, 0.07], [0.05, 0, 0.07], [0, 0, 0.16]]) + bottle.position_m
    assert inside_hull(
        pour.mesh(bottle), bottle.T_world_object, points, 0.004
    ).tolist() == [True, False, False]  # fmt: skip


@pytest.mark.parametrize(
    "entry",
    [
        {"predicate": "inside", "object": "liquid", "container": "jug", "min_fraction": 0.9},
        {
            "predicate": "spilled_less",
            "object": "liquid",
            "containers": "glass",
            "max_fraction": 0.1,
        },
        {
            "predicate": "spilled_less",
            "object": "liquid",
            "containers": ["jug"],
            "max_fraction": 0.1,
        },
    ],
)
def test_bad_vessels_are_refused(pour, entry):
    task = Task(pour.folder, pour.spec.model_copy(update={"success": [entry]}), "")
    with pytest.raises(UserError):
        predicates(task)
