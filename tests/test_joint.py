"""Objects on joints: the curve of poses, the task file's errors, simulation and perception."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from pytest import approx
from scipy.spatial.transform import Rotation

from lucibot.core.errors import UserError
from lucibot.core.euler import euler_xyz_deg_to_matrix
from lucibot.core.geometry import pose_np
from lucibot.core.joint import Joint
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.objective.success import judge
from lucibot.perception.articulated import cheapest_path
from lucibot.perception.config import PoseConfig
from lucibot.perception.poses import refine_poses
from lucibot.sim.state import BodyState, FinalState
from lucibot.task import load_task
from lucibot.vision.draw import DrawMesh, draw_depth
from lucibot.vision.trajectory import Trajectory


def some_joint(kind: str) -> Joint:
    axis = np.array([0.2, -0.5, 1.0])
    return Joint(
        kind=kind, axis=axis / np.linalg.norm(axis), origin_m=np.array([0.1, -0.05, 0.02]),
        lower=-0.5, upper=1.9, T_world_object=euler_xyz_deg_to_matrix([0.3, 0.1, 0.2], [20, 40, 75]),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["hinge", "slider"])
def test_values_are_read_back_from_the_poses_they_give(kind):
    joint = some_joint(kind)
    values = np.linspace(joint.lower, joint.upper, 41).reshape(1, 41)
    T = joint.poses(values)
    np.testing.assert_allclose(joint.values(pose_np(T)), values, atol=1e-9)
    np.testing.assert_allclose(joint.poses(0.0), joint.T_world_object, atol=1e-12)
    # What lies on the hinge's axis stays where it is; a slider keeps its rotation.
    on_axis = np.append(joint.origin_m + 0.3 * joint.axis, 1.0)
    if kind == "hinge":
        np.testing.assert_allclose(T @ on_axis - joint.T_world_object @ on_axis, 0, atol=1e-12)
    else:
        np.testing.assert_allclose(T[..., :3, :3] - joint.T_world_object[:3, :3], 0, atol=1e-12)
    outside = joint.poses(np.array([joint.lower - 0.2, joint.upper + 0.2]))
    np.testing.assert_allclose(joint.values(pose_np(outside)), [joint.lower, joint.upper])


@pytest.mark.parametrize("limits_deg", [(0, 180), (-180, 0), (0, 170), (-170, 170)])
def test_a_hinge_that_opens_far_is_not_read_as_shut(limits_deg):
    lower, upper = np.deg2rad(limits_deg)
    joint = replace(some_joint("hinge"), lower=lower, upper=upper)
    values = np.linspace(lower, upper, 41)
    np.testing.assert_allclose(joint.values(pose_np(joint.poses(values))), values, atol=1e-7)
    past = 0.2 if upper - lower < np.pi + 1 else 0.1
    outside = joint.values(pose_np(joint.poses(np.array([lower - past, upper + past]))))
    np.testing.assert_allclose(outside, [lower, upper], atol=1e-7)


@pytest.mark.parametrize("limits_deg", [(-360, 0), (0, 360), (0, 355)])
def test_about_the_first_pose_no_hinge_is_read_as_a_turn_away(limits_deg):
    lower, upper = np.deg2rad(limits_deg)
    joint = replace(some_joint("hinge"), lower=lower, upper=upper)
    about = np.array([0, 1e-6, -1e-6, 0.01, -0.01])
    found = joint.values(pose_np(joint.poses(about)))
    np.testing.assert_allclose(found, np.clip(about, lower, upper), atol=1e-9)
    values = np.linspace(lower, upper, 41)[1:-1]
    np.testing.assert_allclose(joint.values(pose_np(joint.poses(values))), values, atol=1e-7)


SCENE = """
title = "Open"
[camera]
position_m = [0.0, -1.0, 0.8]
look_at_m = [0.0, 0.0, 0.1]
[simulation]
rigid_collision = false
[[background]]
name = "floor"
size_m = [2.0, 2.0, 0.04]
position_m = [0.0, 0.0, -0.02]
[[objects]]
name = "door"
roles = ["actuator", "target"]
mesh = "door.obj"
position_m = [-0.1, 0.0, 0.01]
material = { kind = "MATERIAL" }
joint = JOINT
"""
HINGE = '{ kind = "hinge", axis = [0, 0, 1], lower = -120.0, upper = 0.0 }'


def written(folder, joint: str = HINGE, material: str = "rigid"):
    import trimesh

    (folder / "task.toml").write_text(SCENE.replace("JOINT", joint).replace("MATERIAL", material))
    (folder / "instruction.md").write_text("Open the door.")
    door = trimesh.creation.box((0.2, 0.02, 0.3))
    door.apply_translation([0.1, 0.0, 0.15])
    door.export(folder / "door.obj")
    return folder


@pytest.mark.parametrize(
    ("joint", "material", "message"),
    [
        (
            '{ kind = "hinge", axis = [0, 0, 0], upper = 90.0 }',
            "rigid",
            "axis: a direction must not be zero",
        ),
        ('{ kind = "hinge", axis = [0, 0, 1], upper = 0.0 }', "rigid", "above lower"),
        ('{ kind = "hinge", axis = [0, 0, 1], upper = 400.0 }', "rigid", "span a whole turn"),
        ('{ kind = "slider", axis = [1, 0, 0], lower = 0.1, upper = 0.2 }', "rigid", "joint.lower"),
        (
            '{ kind = "hinge", axis = [0, 0, 1], upper = 90.0, parent = "wall" }',
            "rigid",
            "hangs on 'wall', which is no free rigid object",
        ),
        ('{ kind = "ball", axis = [0, 0, 1], upper = 90.0 }', "rigid", "'hinge' or 'slider'"),
        (
            '{ kind = "hinge", axis = [0, 0, 1], uper = 90.0, upper = 90.0 }',
            "rigid",
            "Did you mean 'upper'",
        ),
    ],
)
def test_a_wrong_joint_is_one_clear_line(tmp_path, joint, material, message):
    with pytest.raises(UserError, match=message) as found:
        load_task(written(tmp_path, joint, material))
    assert "\n" not in str(found.value)


def test_the_task_file_writes_degrees_in_the_objects_own_frame(tmp_path):
    joint = load_task(written(tmp_path)).objects[0].articulation
    assert joint.lower == approx(np.deg2rad(-120)) and joint.unit == "deg"
    T = joint.poses(np.deg2rad(-90))
    np.testing.assert_allclose(T[:3, 0], [0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(T[:3, 3], [-0.1, 0, 0.01], atol=1e-12)
    assert joint.shown(np.deg2rad(-90)) == approx(-90)


def opened(task, **values: float) -> FinalState:
    """Each named object at its joint's value [rad or m]."""
    bodies = {}
    for name, value in values.items():
        o = task.object(name)
        bodies[name] = BodyState(
            initial_pose=pose_np(o.T_world_object), velocity=np.zeros(6), joint=np.asarray(value),
            pose=pose_np(o.articulation.poses(value)),
        )  # fmt: skip
    return FinalState(bodies=bodies, particles={})


def with_success(task, **entry):
    return type(task)(task.folder, task.spec.model_copy(update={"success": [entry]}), "")


def test_success_asks_for_an_angle_or_a_share_of_the_travel(tmp_path):
    task = with_success(
        load_task(written(tmp_path)), predicate="joint_angle", object="door", min_deg=50.0
    )
    found = judge(task, opened(task, door=np.deg2rad(-60)))
    assert found.success and found.score == 1 and found.metrics["door.angle_deg"] == approx(60)
    found = judge(task, opened(task, door=np.deg2rad(-25)))
    assert not found.success and found.score == approx(0.5)

    with pytest.raises(UserError, match="'door' is not on a slider"):
        judge(with_success(task, predicate="joint_opening", object="door", min_share=0.5),
              opened(task, door=0.0))  # fmt: skip

    task = with_success(
        load_task(written(tmp_path, SLIDER)), predicate="joint_opening", object="door",
        min_share=0.5,
    )  # fmt: skip
    found = judge(task, opened(task, door=0.18))
    assert found.success and found.metrics["door.opened_share"] == approx(0.6)
    assert not judge(task, opened(task, door=0.12)).success


SLIDER = '{ kind = "slider", axis = [0, -1, 0.1], upper = 0.3 }'


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", [HINGE.replace("axis", "origin_m = [0.02, 0.01, 0], axis"), SLIDER]
)
def test_every_environment_is_put_at_its_own_value(tmp_path, text):
    import torch

    from lucibot.sim.rollout import measured_pose, run_rollout
    from lucibot.sim.scene import SimScene
    from lucibot.sim.state import StateRecorder

    task = load_task(written(tmp_path, text))
    joint = task.objects[0].articulation
    scene = SimScene(task, n_envs=3)
    end = joint.lower + joint.upper
    values = np.array([[0.2 * end, 0.7 * end], [0.0, end], [0.0, 0.0]])
    waypoints = pose_np(joint.poses(values))[:, :, None].astype(np.float32)
    recorder = StateRecorder(scene)
    recorder.start()
    run_rollout(scene, torch.as_tensor(waypoints), np.ones((2, 1), bool))
    np.testing.assert_allclose(scene.joint_value("door"), values[:, 1], atol=1e-6)
    np.testing.assert_allclose(measured_pose(scene, "door"), waypoints[:, 1, 0], atol=1e-6)
    np.testing.assert_allclose(scene.velocity("door"), 0, atol=1e-6)
    states = recorder.states()
    assert [float(s.bodies["door"].joint) for s in states] == approx(values[:, 1], abs=1e-6)
    assert not scene.diverged().any()


STORYBOARD = """
duration_s = 2.0
time_jitter = 0.0
[jitter.open]
joint = 4.0
[[track]]
object = "door"
key = [{ at_s = 0.0, VALUE = 0.0 }, { at_s = 0.5, VALUE = 0.0 }, { at_s = 1.5, VALUE = -70.0, group = "open" }]
[miss]
object = "door"
group = "open"
joint = 50.0
"""


def test_a_storyboard_moves_a_jointed_object_by_its_value(tmp_path):
    from lucibot.providers.video.storyboard.plan import make_plan
    from lucibot.providers.video.storyboard.schema import load_storyboard

    task = load_task(written(tmp_path))
    joint = task.objects[0].articulation
    (tmp_path / "storyboard.toml").write_text(STORYBOARD.replace("VALUE", "joint"))
    spec = load_storyboard(task)
    ends = []
    for seed in range(6):
        plan = make_plan(task, spec, np.random.default_rng(seed))
        values = joint.values(pose_np(plan.T_world_object[:, 0]))
        # Every pose lies on the joint's curve and nothing changes its size.
        np.testing.assert_allclose(joint.poses(values), plan.T_world_object[:, 0], atol=1e-9)
        assert (plan.scale == 1).all() and values[0] == 0 and (np.diff(values) <= 1e-9).all()
        ends.append(np.rad2deg(values[-1]))
    assert np.std(ends) > 1 and np.mean(ends) == approx(-70, abs=6)
    missed = make_plan(task, spec, np.random.default_rng(0), miss=True)
    end = joint.values(pose_np(missed.T_world_object[-1, 0]))
    assert np.rad2deg(end) == approx(ends[0] + 50)

    told_by_poses = STORYBOARD.replace(", VALUE = 0.0", "").replace("VALUE = -70.0, ", "")
    (tmp_path / "storyboard.toml").write_text(told_by_poses)
    with pytest.raises(UserError, match="on a joint, so its keys give joint"):
        load_storyboard(task)


@pytest.fixture(scope="module")
def swing(tmp_path_factory):
    """A door that opens behind a moving bar: the task, its view, masks, hand and true values."""
    task = load_task(written(tmp_path_factory.mktemp("swing")))
    camera, joint = task.camera.resized(320, 240), task.objects[0].articulation
    s = np.clip((np.arange(30) / 15 - 0.4) / 1.0, 0, 1)
    values = np.deg2rad(-75) * s * s * (3 - 2 * s)
    mesh = DrawMesh.from_trimesh(task.mesh(task.objects[0]), task.objects[0].T_world_object)
    at = Trajectory.from_poses(pose_np(joint.poses(values)), mesh.anchor_m)
    depth = draw_depth(mesh, at.T_world_object, camera)
    floor = task.spec.background[0]
    slab = DrawMesh.from_trimesh(task.mesh(floor).subdivide().subdivide(), floor.T_world_object)
    lies = Trajectory.from_poses(pose_np(floor.T_world_object)[None], slab.anchor_m)
    under = draw_depth(slab, lies.T_world_object, camera)[0]
    blank = np.full((240, 320, 3), 128, np.uint8)
    view = SceneView(
        camera=camera, names=("door",), first_frame=blank, background_frame=blank,
        labels=(depth[0] < under).astype(np.uint8), depth_m=np.minimum(depth[0], under),
        background_depth_m=under,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    masks = []
    for drawn in depth < under:
        # An outline that errs smoothly by a pixel, as a tracker's does.
        inside = cv2.distanceTransform(drawn.astype(np.uint8), cv2.DIST_L2, 5)
        outside = cv2.distanceTransform((~drawn).astype(np.uint8), cv2.DIST_L2, 5)
        noise = cv2.GaussianBlur(rng.normal(size=drawn.shape), (0, 0), 6)
        masks.append(inside - outside > noise / noise.std())
    masks = np.stack(masks)
    hand = np.zeros_like(masks)
    for k in range(5, 22):
        hand[k, 100:, 120 + 2 * k : 150 + 2 * k] = True
    return task, view, masks & ~hand, hand, values


def test_values_are_read_from_masks_behind_a_hand(swing):
    task, view, masks, hand, values = swing
    tracks = Tracks(
        masks=masks[:, None], hand=hand, confidence=np.ones((30, 1), np.float32),
        lost=np.zeros((30, 1), bool), poses=np.full((30, 1, 6), np.nan, np.float32),
    )  # fmt: skip
    found = refine_poses(task, view, tracks, 15.0, PoseConfig(width=320))
    joint = task.objects[0].articulation
    got = joint.values(found.poses[:, 0])
    # Every pose lies on the curve, and the door is where it was drawn.
    np.testing.assert_allclose(pose_np(joint.poses(got)), found.poses[:, 0], atol=1e-5)
    off = np.abs(np.rad2deg(got - values))
    assert off.mean() < 1.0 and off[-5:].max() < 1.0
    assert (got[:5] == 0).all()


def test_the_cheapest_path_rests_where_noise_would_move_it():
    rng = np.random.default_rng(3)
    grid = np.linspace(0, 1, 101)
    true = np.concatenate([np.zeros(10), np.linspace(0, 0.6, 20), np.full(20, 0.603)])
    cost = 0.2 * np.abs(grid - true[:, None]) ** 1.5 + rng.normal(0, 3e-5, (50, 101))
    cost[34] = 0.0  # A frame in which nothing is seen.
    path = cheapest_path(grid, cost)
    assert (path[:10] == 0).all()
    np.testing.assert_allclose(path[12:28], true[12:28], atol=0.03)
    np.testing.assert_allclose(path[32:], 0.603, atol=0.004)
    assert np.ptp(path[32:]) < 0.006


def hammer_path(task, bottom_m: float, beside_m: float = 0.0) -> list[np.ndarray]:
    """Pose vectors of the hammer: over the peg, down until its middle is at `bottom_m`, up, back."""
    x, y, _ = task.object("peg").position_m
    rest = pose_np(task.object("hammer").T_world_object)

    def at(z):
        return pose_np(euler_xyz_deg_to_matrix([x + beside_m, y, z], [0, 0, -60]))

    back = [rest + np.array([0, 0, h, 0, 0, 0]) for h in (0.05, 0.001)]
    aside = pose_np(euler_xyz_deg_to_matrix([0.11, 0.0, 0.15], [-40, 10, -66]))
    return [aside, at(0.24), at(0.195), at(bottom_m), at(0.24), *back]


@pytest.mark.slow
def test_hammer_peg_is_done_by_a_blow_and_not_by_weight_or_beside_it():
    import torch

    from lucibot.sim.rollout import run_rollout
    from lucibot.sim.scene import SimScene
    from lucibot.sim.state import StateRecorder

    task = load_task("hammer_peg")
    # The peg's head is 11 mm high and the hammer's face 36 mm from its middle: at 147 mm it is in.
    ways = [hammer_path(task, 0.147), hammer_path(task, 0.143), hammer_path(task, 0.170),
            hammer_path(task, 0.147, beside_m=0.03)]  # fmt: skip
    scene = SimScene(task, n_envs=4)
    recorder = StateRecorder(scene)

    def judged(waypoints, held):
        scene.reset()
        recorder.start()
        run_rollout(scene, torch.as_tensor(np.array(waypoints, np.float32))[:, :, None], held)
        assert not scene.diverged().any()
        return [judge(task, s) for s in recorder.states()]

    found = judged(ways, np.ones((7, 1), bool))
    assert [f.success for f in found] == [True, True, False, False]
    assert found[2].metrics["peg.opened_share"] < 0.5
    assert all(f.metrics["block.displacement_m"] < 0.002 for f in found)
    # A hammer that is set on the peg and let go does not move it.
    resting = [hammer_path(task, 0.184)[:4]] * 4
    held = np.array([[True], [True], [True], [False]])
    for way in resting:
        way[2] = way[3]
    found = judged(resting, held)
    assert all(f.metrics["peg.opened_m"] < 0.001 for f in found)


@pytest.mark.slow
@pytest.mark.parametrize("joint", [
    'kind = "slider", axis = [0, 0.6, -0.8], upper = 0.3', 'kind = "hinge", axis = [1, 2, 0], origin_m = [0, 0.02, 0.1], upper = 90',
])  # fmt: skip
def test_what_hangs_on_something_that_moves_has_its_velocity_too(tmp_path, joint):
    import torch

    from lucibot.sim.scene import SimScene

    folder = written(tmp_path, f'{{ {joint}, parent = "frame" }}')
    frame = """
[[objects]]
name = "frame"
roles = ["target"]
mesh = "door.obj"
position_m = [0.2, 0.1, 1.0]
rotation_deg = [20, -40, 70]
material = { kind = "rigid" }
"""
    (folder / "task.toml").write_text((folder / "task.toml").read_text() + frame)
    scene = SimScene(load_task(folder), n_envs=1)
    rng = np.random.default_rng(0)
    for name, size in (("frame", 6), ("door", 1)):
        scene._entities[name].set_dofs_velocity(
            torch.tensor(rng.uniform(0.5, 1, (1, size))).float()
        )
    for _ in range(3):
        scene.step()
    at, q, before = (
        scene.position("door").clone(),
        scene.quaternion("door").clone(),
        scene.velocity("door"),
    )
    scene.step()
    middle = (before + scene.velocity("door"))[0].numpy() / 2
    np.testing.assert_allclose(middle[:3], (scene.position("door") - at)[0] / scene.dt_s, atol=0.03)
    turns = [
        Rotation.from_quat(x[0].numpy(), scalar_first=True) for x in (q, scene.quaternion("door"))
    ]
    turned = (turns[1] * turns[0].inv()).as_rotvec()
    np.testing.assert_allclose(middle[3:], turned / scene.dt_s, atol=0.03)
