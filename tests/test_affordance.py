"""Where hands hold things: read by actuator and hold, and what the search makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lucibot.core.camera import Camera
from lucibot.core.geometry import pose_np, rotvec_to_quat
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.objective.affordance import AffordanceTerms, hand_space, static_distance
from lucibot.objective.supervision import Affordance, Supervision
from lucibot.perception.affordance import read_affordance
from lucibot.perception.config import AffordanceConfig
from lucibot.providers.hand.base import KEYPOINTS, TIPS, Hand
from lucibot.task import Task, load_task

FRAMES, FPS = 40, 20.0


def hand_at(camera: Camera, points_m) -> Hand:
    """A hand whose first tips are seen at some points (F, 3) [m, world]."""
    keypoints = np.full((KEYPOINTS, 2), np.nan, np.float32)
    keypoints[list(TIPS[: len(points_m)])] = camera.project(np.array(points_m))[0]
    return Hand(
        keypoints_px=keypoints, keypoints_m=np.full((KEYPOINTS, 3), np.nan, np.float32),
        side="unknown", box_px=np.zeros(4, np.float32), score=1.0,
    )  # fmt: skip


def blank_view(task: Task, camera: Camera) -> SceneView:
    shape = (camera.height, camera.width)
    picture = np.zeros((*shape, 3), np.uint8)
    return SceneView(
        camera=camera, names=tuple(o.name for o in task.objects), first_frame=picture,
        background_frame=picture, labels=np.zeros(shape, np.uint8),
        depth_m=np.zeros(shape, np.float32), background_depth_m=np.zeros(shape, np.float32),
    )  # fmt: skip


def test_areas_are_read_by_actuator_and_hold_at_each_grasp():
    """A hand takes yellow by its left side and, put down 5 cm farther on, again by its front; then
    it takes red. At the first contact of anything it touches yellow alone."""
    task = load_task("stack_cups")
    camera = task.camera.resized(320, 240)
    red, yellow = (next(i for i, o in enumerate(task.actuators) if o.name == n)
                   for n in ("red_cup", "yellow_cup"))  # fmt: skip
    poses = np.stack([np.repeat(pose_np(o.T_world_object)[None], FRAMES, 0)
                      for o in task.objects], 1)  # fmt: skip
    i_red, i_yellow = (task.label(n) - 1 for n in ("red_cup", "yellow_cup"))
    poses[10:, i_yellow, 0] += 0.05
    right = camera.T_world_cam[:3, 0]
    towards = -np.array([*camera.T_world_cam[:2, 2], 0.0])
    towards /= np.linalg.norm(towards)
    left_m, front_m = -0.036 * right + [0, 0, 0.05], 0.036 * towards + [0, 0, 0.05]
    held = np.zeros((FRAMES, 2), bool)
    held[4:14, yellow] = held[20:28, yellow] = held[30:38, red] = True
    hands: list[list[Hand]] = [[] for _ in range(FRAMES)]
    for t in np.flatnonzero(held.any(1)):
        where = left_m if t < 14 else front_m
        on = i_yellow if held[t, yellow] else i_red
        hands[t] = [hand_at(camera, [poses[t, on, :3] + where])]
    tracks = Tracks(
        masks=np.zeros((FRAMES, 2, 240, 320), bool), hand=np.zeros((FRAMES, 240, 320), bool),
        confidence=np.ones((FRAMES, 2), np.float32), lost=np.zeros((FRAMES, 2), bool),
        poses=poses.astype(np.float32),
    )  # fmt: skip
    keyframes = np.array([2, 8, 12, 16, 24, 34, 39])
    found = read_affordance(
        task, blank_view(task, camera), tracks, hands, held, {}, keyframes, FPS,
        AffordanceConfig(), size=(160, 120), seed=0,
    )  # fmt: skip
    assert found.holds(yellow) == [0, 1] and found.holds(red) == [0]
    for a, hold, where in ((yellow, 0, left_m), (yellow, 1, front_m), (red, 0, front_m)):
        points, normals = found.area(a, hold)
        assert len(points) > 20
        # Cups stand upright, so their own axes are the world's.
        assert np.linalg.norm(points - where, axis=1).max() < 0.03
        assert np.mean(normals @ (where * [1, 1, 0]) > 0) > 0.9
    assert found.hold[:, yellow].tolist() == [-1, 0, 0, 0, 1, 1, 1]
    assert found.hold[:, red].tolist() == [-1, -1, -1, -1, -1, 0, 0]
    seen = np.isfinite(found.tips_m).all(-1).sum(-1)
    assert seen[:, yellow].tolist() == [0, 1, 1, 0, 1, 0, 0]
    assert seen[:, red].tolist() == [0, 0, 0, 0, 0, 1, 0]
    # After the cup has moved the tips are where the hand is now.
    for k, where in ((1, left_m), (2, left_m), (4, front_m)):
        at = poses[keyframes[k], i_yellow, :3] + where
        np.testing.assert_allclose(found.tips_m[k, yellow, 0], at, atol=0.02)
        wanted = camera.resized(160, 120).project(at)[0]
        np.testing.assert_allclose(found.tips_px[k, yellow, 0], wanted, atol=0.5)


@pytest.mark.parametrize(("second", "seen"), [("right", 1), ("left", 0), ("unknown", 1)])
def test_what_the_other_hand_takes_over_is_not_taken_for_the_first_ones_grasp(second, seen):
    """A right hand takes the cup; at the keyframe one is on its other side."""
    task = load_task("stack_cups")
    camera = task.camera.resized(320, 240)
    poses = np.stack([np.repeat(pose_np(o.T_world_object)[None], FRAMES, 0)
                      for o in task.objects], 1)  # fmt: skip
    at = poses[0, task.label("yellow_cup") - 1, :3] + [0, 0, 0.05]
    right = 0.036 * camera.T_world_cam[:3, 0]
    held = np.zeros((FRAMES, 2), bool)
    held[4:30, [o.name for o in task.actuators].index("yellow_cup")] = True
    hands: list[list[Hand]] = [[] for _ in range(FRAMES)]
    for t in range(4, 30):
        one = hand_at(camera, [at + right if t < 12 else at - right])
        hands[t] = [replace(one, side="right" if t < 12 else second)]
    tracks = Tracks(
        masks=np.zeros((FRAMES, 2, 240, 320), bool), hand=np.zeros((FRAMES, 240, 320), bool),
        confidence=np.ones((FRAMES, 2), np.float32), lost=np.zeros((FRAMES, 2), bool),
        poses=poses.astype(np.float32),
    )  # fmt: skip
    found = read_affordance(
        task, blank_view(task, camera), tracks, hands, held, {}, np.array([8, 20]), FPS,
        AffordanceConfig(), size=(160, 120), seed=0,
    )  # fmt: skip
    tips = np.isfinite(found.tips_m).all(-1).sum((1, 2))
    assert tips.tolist() == [1, seen]


def test_an_affordance_is_read_back_as_written(tmp_path):
    told = replace(
        supervision(load_task("stack_cups"), np.zeros((3, 2, 6), np.float32)),
        affordance=Affordance.none(3, 2, points=4, hand_m=(0.2, 0.06, 0.13)),
    )
    told.save(tmp_path / "s.npz")
    back = Supervision.load(tmp_path / "s.npz").affordance
    for name, value in vars(told.affordance).items():
        np.testing.assert_array_equal(getattr(back, name), value)
    assert back.holds(0) == [] and len(back.area(0, 0)[0]) == 0


# --- the terms --------------------------------------------------------------------------------------


@dataclass
class Bodies:
    position: dict
    quaternion: dict
    particles: dict


def posed(task: Task, name: str, poses: np.ndarray, soft: dict | None = None) -> Bodies:
    """One actuator at (K, P, 6), everything else where it stands at first."""
    K, P = poses.shape[:2]
    position, quaternion = {}, {}
    for o in task.objects:
        if o.is_rigid:
            at = poses if o.name == name else np.tile(pose_np(o.T_world_object), (K, P, 1))
            flat = torch.as_tensor(at.reshape(-1, 6))
            position[o.name] = flat[:, :3].float()
            quaternion[o.name] = rotvec_to_quat(flat[:, 3:]).float()
    cloud = {n: torch.as_tensor(x).float()[:, None].expand(len(x), K * P, 3)
             for n, x in (soft or {}).items()}  # fmt: skip
    return Bodies(position, quaternion, cloud)


def supervision(task: Task, waypoints: np.ndarray) -> Supervision:
    K, A, _ = waypoints.shape
    camera = task.camera.resized(64, 48)
    none, cloud = np.zeros((48, 64), bool), np.full((4, 3), np.nan, np.float32)
    return Supervision(
        camera=camera, actuators=tuple(o.name for o in task.actuators),
        targets=tuple(o.name for o in task.targets), contact_pairs=(), keyframes=np.arange(K),
        waypoints=waypoints, waypoint_confidence=np.ones((K, A), np.float32),
        held=np.ones((K, A), bool), actuator_masks=np.zeros((K, A, 48, 64), bool),
        target_masks=np.zeros((K, 48, 64), bool), valid=~np.zeros((K, 48, 64), bool),
        actuator_clouds=np.tile(cloud, (A, 1, 1)), target_cloud=cloud,
        contact=np.zeros((K, 0), bool), around_pairs=(), around=np.zeros(0, bool),
        affordance=Affordance.none(K, A), part_masks=none[None][:0],
        part_clouds=cloud[None][:0], part_valid=~none,
    )  # fmt: skip


def grasp_of(points: np.ndarray, normals: np.ndarray, keyframes: int, tips_m=None) -> Affordance:
    """One actuator, one hold from the start on."""
    none = Affordance.none(keyframes, 1, points=len(points))
    tips = none.tips_m.copy()
    if tips_m is not None:
        tips[:, 0, : tips_m.shape[1]] = tips_m
    return replace(
        none, points=points[None].astype(np.float32), normals=normals[None].astype(np.float32),
        point_hold=np.zeros((1, len(points)), int), hold=np.zeros((keyframes, 1), int), tips_m=tips,
    )  # fmt: skip


def patch_of(radius: float, height: float, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals of a patch on an upright cylinder."""
    angle = np.deg2rad(degrees) + np.linspace(-0.3, 0.3, 9)
    normal = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    points = radius * normal + [0, 0, height]
    return points, normal


@pytest.fixture(scope="module")
def bottle() -> Task:
    return load_task("pour_liquid")


def test_reach_pins_a_bottles_turn_about_its_axis_and_what_is_beside_the_line_of_sight(bottle):
    (actuator,) = bottle.actuators
    home = pose_np(actuator.T_world_object)
    eye = bottle.camera.T_world_cam[:3, 3]
    towards = np.rad2deg(np.arctan2(*(eye - home[:3])[[1, 0]]))
    points, normals = patch_of(0.03, 0.08, towards)
    # The video: lifted and turned by 60 degrees about its axis, the fingers with it.
    true = np.tile(home, (2, 1))
    true[:, 2] += [0.05, 0.1]
    true[1, 3:] = (
        Rotation.from_rotvec([0, 0, np.deg2rad(60)]) * Rotation.from_rotvec(home[3:])
    ).as_rotvec()
    tips = np.stack([Rotation.from_rotvec(p[3:]).apply(points[2:7:2]) + p[:3] for p in true])
    told = replace(
        supervision(bottle, true[:, None].astype(np.float32)),
        affordance=grasp_of(points, normals, 2, tips),
    )
    terms = AffordanceTerms(bottle, told, {})
    unturned, beside, farther = true.copy(), true.copy(), true.copy()
    unturned[1, 3:] = home[3:]
    beside[:, :3] += 0.02 * bottle.camera.T_world_cam[:3, 0]
    farther[:, :3] += 0.02 * bottle.camera.T_world_cam[:3, 2]
    tried = np.stack([true, unturned, beside, farther], 1)
    soft = {o.name: np.zeros((1, 3)) for o in bottle.objects if not o.is_rigid}
    found = terms.terms(posed(bottle, actuator.name, tried, soft))["affordance_reach"].numpy()
    assert found[0] < 0.002
    # 60 degrees at 3 cm are 3 cm; they are seen at one of two keyframes.
    assert 0.004 < found[1] < 0.02 and found[2] > 5 * found[0]
    assert found[0] < found[3] < 0.5 * found[2], "depth is told less well"


def test_clearance_grows_with_what_the_hand_would_be_in():
    """A hand on the side of a cup, lowered below the table, and pushed into the other cup."""
    task = load_task("stack_cups")
    a = next(i for i, o in enumerate(task.actuators) if o.name == "yellow_cup")
    yellow, red = (pose_np(task.object(n).T_world_object) for n in ("yellow_cup", "red_cup"))
    points, normals = patch_of(0.04, 0.09, 0.0)
    one = grasp_of(points, normals, 1)
    none = Affordance.none(1, len(task.actuators), points=len(points))
    points_, normals_, hold, own = (x.copy() for x in (
        none.points, none.normals, none.point_hold, none.hold))  # fmt: skip
    points_[a], normals_[a], hold[a], own[:, a] = one.points[0], one.normals[0], 0, 0
    told = replace(none, points=points_, normals=normals_, point_hold=hold, hold=own)
    waypoints = np.zeros((1, len(task.actuators), 6), np.float32)
    terms = AffordanceTerms(
        task, replace(supervision(task, waypoints), affordance=told), {}
    )  # fmt: skip
    heights = np.array([0.3, 0.0, -0.07, -0.09, -0.11])
    tried = np.tile(yellow, (len(heights), 1))
    tried[:, 2] += heights
    # Far from the other cup: only the table is in the way.
    tried[:, 1] -= 0.3
    depth = terms.terms(posed(task, "yellow_cup", tried[None]))["affordance_clearance"].numpy()
    assert depth[0] == depth[1] == 0 and (np.diff(depth[2:]) > 0.002).all() and depth[2] > 0
    # Beside red, so that the hand between them, which goes along x, would be in it.
    beside = np.tile(red, (3, 1))
    beside[:, 0] -= [0.30, 0.16, 0.12]
    depth = terms.terms(posed(task, "yellow_cup", beside[None]))["affordance_clearance"].numpy()
    is_target = any(o.name == "red_cup" for o in task.targets)
    assert is_target and depth[0] == 0 and 0 < depth[1] <= depth[2]


def test_the_hand_stands_on_an_area_that_goes_around():
    """Of fingers and thumb on opposite sides no normal is left: the hand comes from where the area
    lies, and its box begins at the area's outermost point."""
    points = np.array([[0.03, 0, 0.1], [-0.03, 0, 0.1], [0, 0.01, 0.12]])
    normals = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 0, 0.1]])
    space = hand_space(points, normals, np.zeros(3), (0.1, 0.06, 0.15), "cpu")
    outward = (points.mean(0)) / np.linalg.norm(points.mean(0))
    along = space.samples_m.numpy() @ outward
    assert along.min() == pytest.approx((points @ outward).max(), abs=1e-5)
    assert along.max() == pytest.approx((points @ outward).max() + 0.15, abs=1e-5)


def test_distance_to_what_stands_still(bottle):
    found = static_distance(bottle)
    table = next(b for b in bottle.spec.background if b.name == "table")
    top = table.position_m[2] + table.size_m[2] / 2
    x, y = bottle.objects[0].position_m[:2]
    for z in (0.05, 0.01, -0.005):
        at = np.array([x, y, top + z])
        cell = np.round((at - found.low_m) / found.cell_m).astype(int)
        here = found.low_m + cell * found.cell_m
        assert found.distance_m[tuple(cell)] == pytest.approx(here[2] - top, abs=1e-3)


def test_terms_do_not_depend_on_the_batch_and_say_nothing_where_nothing_is_told(bottle):
    (actuator,) = bottle.actuators
    home = pose_np(actuator.T_world_object)
    points, normals = patch_of(0.03, 0.08, -90)
    rng = np.random.default_rng(0)
    tried = np.tile(home, (3, 5, 1)) + rng.normal(0, 0.03, (3, 5, 6))
    tips = np.tile(points[::3] + home[:3], (3, 1, 1)) + 0.01
    told = supervision(bottle, tried[:, :1].astype(np.float32))
    soft = {o.name: rng.normal(0, 0.1, (300, 3)) for o in bottle.objects if not o.is_rigid}
    full = AffordanceTerms(bottle, replace(told, affordance=grasp_of(points, normals, 3, tips)), {})
    together = full.terms(posed(bottle, actuator.name, tried, soft))
    assert (together["affordance_reach"] > 0).all() and (together["affordance_clearance"] > 0).any()
    for p in range(5):
        alone = full.terms(posed(bottle, actuator.name, tried[:, p : p + 1], soft))
        for name, value in alone.items():
            assert torch.equal(value, together[name][p : p + 1])
    nothing = AffordanceTerms(bottle, told, {}).terms(posed(bottle, actuator.name, tried, soft))
    assert all((v == torch.zeros(5)).all() for v in nothing.values())
