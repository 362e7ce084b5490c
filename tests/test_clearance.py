"""What stands still is passed through nowhere on the way that a rollout makes."""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from lucibot.core.geometry import interpolate_pose, matrix_np, pose_np
from lucibot.core.solids import Solids, distance, distance_field
from lucibot.optimize._clearance_kernels import MARGIN_M
from lucibot.optimize.clearance import Clearance
from lucibot.task import Task, TaskSpec, load_task

BAR = np.array([0.06, 0.02, 0.01])
"""The tool, centred on its frame's origin."""
START = (0.0, 0.0, 0.105)
SEEN_M = 0.0005
"""So deep an executed way may be in something between two looks."""


def scene(tmp_path, *, boxes=(), meshes=(), start=START) -> Task:
    """A task with the bar as its tool above a table whose top is at height 0.

    Args:
        boxes: (size [m], position [m], rotation [deg]) of what else stands still; meshes: likewise.
    """
    trimesh.creation.box(extents=BAR).export(tmp_path / "bar.obj")
    background = [{"name": "table", "size_m": (2.0, 2.0, 0.04), "position_m": (0, 0, -0.02)}]
    for n, (size, position, *rotation) in enumerate(boxes):
        background.append({"name": f"box{n}", "size_m": size, "position_m": position,
                           "rotation_deg": rotation[0] if rotation else (0, 0, 0)})  # fmt: skip
    for n, mesh in enumerate(meshes):
        mesh.export(tmp_path / f"mesh{n}.obj")
        background.append({"name": f"mesh{n}", "mesh": f"mesh{n}.obj", "position_m": (0, 0, 0)})
    material = {"kind": "rigid"}
    spec = TaskSpec.model_validate({
        "title": "A bar", "simulation": {}, "background": background,
        "camera": {"position_m": (0, -1, 1), "look_at_m": (0, 0, 0)},
        "objects": [
            {"name": "bar", "roles": ["actuator"], "mesh": "bar.obj", "position_m": start,
             "material": material},
            {"name": "cube", "roles": ["target"], "mesh": "bar.obj", "position_m": (0.5, 0.5, 0.1),
             "material": material},
        ],
    })  # fmt: skip
    return Task(tmp_path, spec, "move the bar")


def repaired(task: Task, *poses) -> np.ndarray:
    """Poses, (3,) or (6,), of the bar as waypoints, repaired: (K, 6)."""
    waypoints = np.zeros((len(poses), 1, 6), np.float32)
    for k, pose in enumerate(poses):
        waypoints[k, 0, : len(pose)] = pose
    return Clearance.of(task).repaired(waypoints, np.ones(waypoints.shape[:2], bool))[:, 0]


def depth_on_way(task: Task, waypoints: np.ndarray, actuator: int = 0) -> np.ndarray:
    """How deep [m] the surface comes into any of a task's solid boxes at 80 places of each way."""
    obj = task.actuators[actuator]
    surface = trimesh.sample.sample_surface(task.mesh(obj), 800, seed=1)[0]
    surface = np.concatenate([surface, task.mesh(obj).vertices])
    stations = np.concatenate([[pose_np(obj.T_world_object)], waypoints.astype(float)])
    depth = []
    for p, q in pairwise(stations):
        poses = interpolate_pose(*(torch.as_tensor(x)[None] for x in (p, q)), torch.linspace(
            0, 1, 80, dtype=torch.float64))  # fmt: skip
        deepest = 0.0
        for T in matrix_np(poses.numpy()):
            points = surface @ T[:3, :3].T + T[:3, 3]
            for b in task.spec.background:
                if b.solid and b.size_m is not None:
                    local = np.linalg.inv(b.T_world_object)
                    inside = np.abs(points @ local[:3, :3].T + local[:3, 3]) - np.divide(
                        b.size_m, 2
                    )
                    deepest = max(deepest, -inside.max(1).min())
        depth.append(deepest)
    return np.array(depth)


@pytest.mark.parametrize("depth", [0.002, 0.015, 0.035, 0.10])
def test_what_was_put_below_the_table_comes_up_however_deep(tmp_path, depth):
    task = scene(tmp_path)
    (found,) = repaired(task, (0.05, 0.02, BAR[2] / 2 - depth))
    np.testing.assert_allclose(found, [0.05, 0.02, BAR[2] / 2 + MARGIN_M, 0, 0, 0], atol=6e-4)


def shelf(front: float = 0.05) -> tuple:
    """A board 12 to 15 mm thick at a height of 60 mm, reaching from `front` away."""
    return (0.2, 0.3, 0.012), (front + 0.1, 0.0, 0.066)


def test_what_goes_under_a_shelf_stays_there_and_a_little_too_high_comes_down(tmp_path):
    task = scene(tmp_path, boxes=[shelf()], start=(-0.08, 0.0, 0.03))
    before, under = (-0.04, 0.0, 0.03), (0.12, 0.0, 0.03)
    found = repaired(task, before, under, (0.12, 0.0, 0.057), before)
    np.testing.assert_array_equal(found[:2, :3], np.float32([before, under]))
    np.testing.assert_allclose(found[2, :3], [0.12, 0.0, 0.06 - BAR[2] / 2 - MARGIN_M], atol=2e-5)
    assert depth_on_way(task, found).max() < SEEN_M


def test_what_lies_on_a_shelf_stays_on_it(tmp_path):
    task = scene(tmp_path, boxes=[shelf()], start=(-0.08, 0.0, 0.12))
    found = repaired(task, (0.1, 0.0, 0.12), (0.1, 0.0, 0.071), (0.1, 0.0, 0.02))
    top = 0.072 + BAR[2] / 2 + MARGIN_M
    np.testing.assert_array_equal(found[0, :3], np.float32([0.1, 0.0, 0.12]))
    np.testing.assert_allclose(found[1:, :3], [[0.1, 0, top]] * 2, atol=6e-4)
    assert depth_on_way(task, found).max() < SEEN_M


def cabinet() -> list[tuple]:
    """Boxes of a cabinet 20 cm wide and deep and 16 cm high, open to the front (lower y), with walls
    of 8 mm."""
    return [
        ((0.2, 0.2, 0.008), (0, 0.1, 0.004)), ((0.2, 0.2, 0.008), (0, 0.1, 0.156)),
        ((0.008, 0.2, 0.16), (-0.096, 0.1, 0.08)), ((0.008, 0.2, 0.16), (0.096, 0.1, 0.08)),
        ((0.2, 0.008, 0.16), (0, 0.196, 0.08)),
    ]  # fmt: skip


@pytest.mark.parametrize("as_mesh", [False, True])
def test_a_cabinet_is_entered_by_its_front(tmp_path, as_mesh):
    boxes = cabinet()
    parts = [trimesh.creation.box(extents=s).apply_translation(p) for s, p in boxes]
    whole = trimesh.util.concatenate(parts)
    solid = {"meshes": [whole]} if as_mesh else {"boxes": boxes}
    task = scene(tmp_path, start=(0.0, -0.15, 0.08), **solid)
    front, inside = (0.0, -0.05, 0.08), (0.0, 0.1, 0.08)
    # 5 mm into the right wall, whose inner face is at 92 mm; through its back; through its roof.
    found = repaired(
        task, front, inside, (0.067, 0.1, 0.08), inside, (0.0, 0.3, 0.08), inside, front
    )
    np.testing.assert_array_equal(found[[0, 1, 3], :3], np.float32([front, inside, inside]))
    side = 0.092 - BAR[0] / 2 - MARGIN_M
    np.testing.assert_allclose(found[2, :3], [side, 0.1, 0.08], atol=3e-4 if as_mesh else 2e-5)
    assert found[4, 1] < 0.192  # It has not gone out through the back.
    checked = scene(tmp_path, start=(0.0, -0.15, 0.08), boxes=boxes)
    assert depth_on_way(checked, found).max() < (0.001 if as_mesh else SEEN_M)


def test_beneath_a_table_that_is_come_to_from_below_nothing_is_lifted(tmp_path):
    top = (0.6, 0.6, 0.03), (0.3, 0.0, 0.415)
    task = scene(tmp_path, boxes=[top], start=(-0.2, 0.0, 0.2))
    ways = [(-0.1, 0.0, 0.3), (0.2, 0.0, 0.35), (0.2, 0.0, 0.15)]
    found = repaired(task, *ways, (0.2, 0.0, 0.405))
    np.testing.assert_array_equal(found[:3, :3], np.float32(ways))
    assert found[3, 2] == pytest.approx(0.4 - BAR[2] / 2 - MARGIN_M, abs=2e-5)


def test_a_thin_wall_between_two_clear_waypoints_is_gone_over(tmp_path):
    wall = (0.003, 0.3, 0.05), (0.1, 0.0, 0.025)
    task = scene(tmp_path, boxes=[wall], start=(0.0, 0.0, 0.04))
    left, right = (0.04, 0.0, 0.04), (0.16, 0.0, 0.04)
    found = repaired(task, left, right, (0.16, 0.0, 0.03))
    assert depth_on_way(task, np.array([(*left, 0, 0, 0), (*right, 0, 0, 0)])).max() > 0.001
    assert depth_on_way(task, found).max() < SEEN_M
    # Both ends rise by what is missing, no more: the wall's top is at 50 mm.
    np.testing.assert_allclose(found[:2, 2], 0.05 + BAR[2] / 2, atol=1e-3)
    np.testing.assert_array_equal(found[:2, :2], np.float32([left[:2], right[:2]]))
    np.testing.assert_array_equal(found[2, :3], np.float32([0.16, 0.0, 0.03]))


def test_what_cannot_be_passed_stops_in_front_of_it(tmp_path):
    wall = (0.004, 3.0, 3.0), (0.1, 0.0, 1.5)
    task = scene(tmp_path, boxes=[wall], start=(0.0, 0.0, 0.04))
    found = repaired(task, (0.04, 0.0, 0.04), (0.3, 0.0, 0.04, 0, 0, 0.5))
    assert depth_on_way(task, found).max() < SEEN_M
    assert (found[:, 0] < 0.098).all() and found[1, 0] > 0.04


def test_a_turn_that_dips_into_the_table_is_lifted(tmp_path):
    """The bar's ends are clear, but half way between them it stands on its end."""
    task = scene(tmp_path, start=(0.0, 0.0, 0.05))
    down, on = (0.0, 0.0, 0.025, 0, 0.3, 0), (0.05, 0.0, 0.025, 0, 2.84, 0)
    assert depth_on_way(task, np.array([down, on]))[1] > 0.004
    found = repaired(task, down, on)
    assert depth_on_way(task, found).max() < SEEN_M


def test_it_may_leave_what_it_lies_in_at_first(tmp_path):
    """A tool whose mesh is 2 mm deep in the table slides as it lies, but not once it has come out."""
    task = scene(tmp_path, start=(0.0, 0.0, BAR[2] / 2 - 0.002))
    far = (0.2, 0.0, BAR[2] / 2 + 0.001)
    np.testing.assert_array_equal(repaired(task, far)[0, :3], np.float32(far))


def test_waypoints_that_no_hand_leads_to_are_left_alone(tmp_path):
    task = scene(tmp_path)
    waypoints = np.full((3, 1, 6), 0.0, np.float32)
    waypoints[..., 2] = -0.03
    held = np.array([[False], [True], [False]])
    found = Clearance.of(task).repaired(waypoints, held)
    np.testing.assert_array_equal(found[[0, 2]], waypoints[[0, 2]])
    assert found[1, 0, 2] > 0


def test_the_same_bits_however_many_at_once_and_again(tmp_path):
    task = load_task("scoop_sand")
    clear, rng = Clearance.of(task), np.random.default_rng(3)
    start = pose_np(task.actuators[0].T_world_object)
    waypoints = (start + rng.normal(size=(24, 6, 1, 6)) * ([0.1] * 3 + [0.5] * 3)).astype(
        np.float32
    )
    held = np.ones((6, 1), bool)
    found = clear.repaired(waypoints, held)
    assert (found != waypoints).any((1, 2, 3)).mean() > 0.5
    for size in (1, 5):
        parts = [clear.repaired(waypoints[k : k + size], held) for k in range(0, 24, size)]
        np.testing.assert_array_equal(np.concatenate(parts), found)
    assert clear.distance(found, 0).min() > -1e-4


@pytest.mark.parametrize("name", ["cut_dough", "hammer_peg", "lift_mochi", "open_door",
    "open_drawer", "pour_liquid", "scoop_sand", "spread_butter", "stack_cups"])  # fmt: skip
def test_what_penetrates_nothing_keeps_its_bits(name):
    """Along the ways that a person would draw, tools are moved by less than what they penetrate."""
    from lucibot.providers.video.storyboard.plan import make_plan
    from lucibot.providers.video.storyboard.schema import load_storyboard

    task = load_task(name)
    plan = make_plan(task, load_storyboard(task), np.random.default_rng(100))
    frames = np.linspace(0, len(plan) - 1, 13).astype(int)[1:]
    at = [plan.names.index(a.name) for a in task.actuators]
    waypoints = pose_np(plan.T_world_object[frames][:, at]).astype(np.float32)
    clear = Clearance.of(task)
    found = clear.repaired(waypoints, np.ones(waypoints.shape[:2], bool))
    for a, actuator in enumerate(task.actuators):
        moved = np.linalg.norm((found - waypoints)[:, a, :3], axis=-1)
        if actuator.joint is not None:
            assert not moved.any()
            continue
        near = clear.distance(waypoints[:, a], a)
        short = np.maximum(MARGIN_M - near, 0)
        depth = depth_on_way_of(clear, task, waypoints[:, a], a)
        untouched = (short == 0) & (depth == 0) & (np.r_[depth[1:], 0] == 0)
        np.testing.assert_array_equal(found[untouched, a], waypoints[untouched, a])
        np.testing.assert_array_equal(found[:, a, 3:], waypoints[:, a, 3:])


def depth_on_way_of(clear: Clearance, task: Task, waypoints: np.ndarray, a: int) -> np.ndarray:
    """How deep [m] each way comes into anything, at 100 places."""
    stations = np.concatenate([clear.starts[a][None], waypoints.astype(float)])
    share = torch.linspace(0, 1, 100, dtype=torch.float64)
    depth = []
    for p, q in pairwise(stations):
        poses = interpolate_pose(torch.as_tensor(p)[None], torch.as_tensor(q)[None], share)
        depth.append(max(0.0, -clear.distance(poses.numpy(), a).min()))
    return np.array(depth)


def test_signed_distances_of_a_hollow_mesh():
    """A box with a cavity, and another that overlaps it."""
    outer = trimesh.creation.box(extents=(0.06, 0.06, 0.06))
    hole = trimesh.creation.box(extents=(0.03, 0.03, 0.03))
    hole.invert()
    more = trimesh.creation.box(extents=(0.02, 0.02, 0.02)).apply_translation((0.03, 0, 0))
    mesh = trimesh.util.concatenate([outer, hole, more])
    lower, cell, values = distance_field(mesh.vertices, mesh.faces)
    assert values.dtype == np.float32 and cell == 0.002
    at = lambda *p: values[tuple(np.round((np.array(p) - lower) / cell).astype(int))]  # noqa: E731
    assert at(0, 0, 0) == pytest.approx(0.015, abs=2e-3)
    assert at(0, 0, 0.022) == pytest.approx(-0.007, abs=2e-3)
    assert at(0.032, 0, 0) < 0 and at(0.028, 0, 0) < 0
    turn = trimesh.transformations.rotation_matrix(0.7, (1, 2, 3), (0.1, 0.2, 0.3))
    solids = Solids.of([], [(turn, mesh.vertices, mesh.faces)])
    far = turn[:3, :3] @ (0, 0, 0.2) + turn[:3, 3]
    assert 0.16 < distance(solids, 0, *far) <= 0.17
    inside = turn[:3, :3] @ (0, 0, 0.0225) + turn[:3, 3]
    assert distance(solids, 0, *inside) == pytest.approx(-0.0075, abs=1e-3)
    box = Solids.of([(turn, (0.06, 0.06, 0.06))], [])
    assert distance(box, 0, *far) == pytest.approx(0.17)
    assert distance(box, 0, *inside) == pytest.approx(-0.0075)


def test_faces_without_area_change_no_distance():
    """Corners that coincide, and corners on one line, as exported and decimated meshes have them."""
    box = trimesh.creation.box(extents=(0.06, 0.04, 0.02))
    a, b, c = box.faces[0]
    middle = box.vertices[[a, b]].mean(0)
    flat = [(a, a, b), (a, b, b), (a, b, a), (c, c, c), (a, 8, b), (8, b, a)]
    vertices, faces = [*box.vertices, middle], [*flat, *box.faces]
    lower, cell, wanted = distance_field(box.vertices, box.faces)
    found = distance_field(np.array(vertices), np.array(faces))
    assert cell == found[1] and np.array_equal(lower, found[0])
    np.testing.assert_allclose(found[2], wanted, atol=1e-8)


def test_loops_that_were_compiled_are_made_anew_when_the_distances_change():
    from numba.core.dispatcher import Dispatcher

    from lucibot.core import solids
    from lucibot.optimize import _clearance_kernels as clearance

    digest = hashlib.sha256(Path(solids.__file__).read_bytes()).hexdigest()
    own = [f for f in vars(clearance).values()
           if isinstance(f, Dispatcher) and f.py_func.__module__ == clearance.__name__]  # fmt: skip
    assert len(own) > 10
    assert all(f._cache._cache_file._source_stamp[1] == digest for f in own)


def test_the_way_is_the_rollouts(tmp_path):
    """Poses on a way, in numba, are those of the servo's targets."""
    from lucibot.optimize import _clearance_kernels as clearance

    rng = np.random.default_rng(0)
    for turn in (1.0, 3.0):
        a, b = rng.normal(size=(2, 6)) * ([0.1] * 3 + [turn] * 3)
        way, T, still = np.zeros(13), np.zeros((3, 4)), np.zeros(3)
        clearance._lay(way, a, still, b, still)
        for s in (0.0, 0.3, 1.0):
            clearance._pose_on(way, s, T)
            wanted = interpolate_pose(
                *(torch.as_tensor(x)[None] for x in (a, b)), torch.tensor([s])
            )
            np.testing.assert_allclose(T, matrix_np(wanted.numpy())[0, :3], atol=1e-12)


def test_what_is_held_of_a_band_is_not_drawn_through_a_stick():
    task = load_task("rubber_band")
    stick = np.array(task.solid("right_stick").position_m)
    grasp = np.add(task.object("band").position_m, (0.059, 0, 0.003))
    clear = Clearance.of(task, {"band": grasp})
    waypoints = np.zeros((2, 1, 6), np.float32)
    waypoints[0, 0, :3] = np.add(grasp, (0.01, 0.0, 0.01))
    waypoints[1, 0, :3] = np.add(stick, (0.07, 0.0, 0.02))
    depth = depth_on_way_of(clear, task, waypoints[:, 0], 0)
    assert depth[1] > 0.01
    found = clear.repaired(waypoints, np.ones((2, 1), bool))
    assert depth_on_way_of(clear, task, found[:, 0], 0)[1] < 0.002
