"""Where a hand takes hold: on shapes whose grasps are known, and where there is room for it."""

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from lucibot.robot.arm import load_arm
from lucibot.robot.collision import CollisionWorld
from lucibot.robot.grasps import FRICTION, NEAR_M, TURNS, pinches, sample_grasps
from lucibot.robot.holds import Hold, NoPlan
from lucibot.robot.plan import plan_holds
from lucibot.robot.room import HandRoom
from lucibot.task import load_task


def test_a_plate_is_taken_across_and_within_the_opening(panda):
    plate = trimesh.creation.box((0.12, 0.01, 0.2))
    tips = np.array([[0.05, 0.005, 0.08], [0.05, -0.005, 0.08]])
    found = sample_grasps(plate, tips, panda.spec.gripper)
    assert len(found) and found.within_m == NEAR_M
    cone = np.arctan(FRICTION)
    for T, width in zip(found.frames, found.width_m, strict=True):
        np.testing.assert_allclose(T[:3, :3].T @ T[:3, :3], np.eye(3), atol=1e-9)
        assert np.linalg.det(T[:3, :3]) > 0
        # Across the thin side; both contacts in the friction cone and near the tips.
        assert np.arccos(min(abs(T[1, 1]), 1)) <= cone and width <= 0.0115
        ends = T[:3, 3] + np.outer([-0.5, 0.5], width * T[:3, 1])
        assert np.linalg.norm(ends[:, None] - tips, axis=-1).min() < NEAR_M + 1e-3
        # The palm is outside: the hand comes from where the plate ends within a finger's length.
        behind = T[:3, 3] - 0.046 * T[:3, 2]
        assert (np.abs(behind) > np.array([0.06, 0.005, 0.1])).any()


def test_what_is_wider_than_the_opening_is_not_taken(panda):
    cube = trimesh.creation.box((0.1, 0.1, 0.1))
    assert not len(sample_grasps(cube, np.zeros((0, 3)), panda.spec.gripper))


def test_a_hand_without_room_on_the_way_is_left_out_and_looked_for_farther_away(panda):
    bar = trimesh.creation.box((0.30, 0.02, 0.02))
    tips = np.array([[0.10, 0.0, 0.0]])

    def clear(frames, width_m):
        return frames[:, 0, 3] < 0.05

    near = sample_grasps(bar, tips, panda.spec.gripper)
    found = sample_grasps(bar, tips, panda.spec.gripper, clear=clear)
    assert near.within_m == NEAR_M and (near.frames[:, 0, 3] > 0.05).all()
    assert found.within_m > NEAR_M and len(found) and clear(found.frames, 0.02).all()
    none = sample_grasps(bar, tips, panda.spec.gripper, clear=lambda f, w: np.zeros(len(f), bool))
    assert not len(none)


def test_where_no_pair_is_near_the_tips_it_is_looked_for_farther_away(panda):
    # A ball too large for the hand, with a stick.
    ball = trimesh.creation.icosphere(radius=0.06)
    stick = trimesh.creation.cylinder(radius=0.008, height=0.2)
    stick.apply_translation([0, 0, 0.14])
    mallet = trimesh.boolean.union([ball, stick]) if trimesh.boolean.engines_available else None
    if mallet is None:
        mallet = trimesh.util.concatenate([ball, stick])
    found = sample_grasps(mallet, np.array([[0.0, 0.06, 0.0]]), panda.spec.gripper)
    assert len(found) and found.within_m > NEAR_M and (found.frames[:, 2, 3] > 0.04).all()


def test_what_lies_beside_a_wall_is_pinched_from_where_there_is_room(panda):
    task = load_task("rubber_band")
    (stick,) = [b for b in task.spec.background if b.name == "right_stick"]
    beside = np.eye(4)
    beside[:3, 3] = stick.T_world_object[:3, 3] + [0.042, 0.0, 0.006]
    hold = Hold(actuator="band", steps=np.arange(2), times_s=np.arange(2.0), frames=np.stack([beside] * 2),
                others=[{}, {}])  # fmt: skip
    world = CollisionWorld(panda, np.eye(4), task)
    room = HandRoom(task, hold, world, panda.spec.gripper.opening_m)
    found, anywhere = pinches(room.clear), pinches(lambda f, w: np.ones(len(f), bool), count=999)
    assert 0 < len(found) < len(anywhere)
    down = found.frames[:, :3, 2] @ [0, 0, -1]
    assert (np.diff(down) < 1e-9).all(), "those that are least aslant come first"
    wall = task.mesh(stick).convex_hull.apply_transform(stick.T_world_object)
    corners = world.hand(0.0)

    def deepest(T):
        inside = trimesh.proximity.signed_distance(wall, (corners @ (beside @ T).T)[:, :3])
        return inside.max()

    kept = {T.tobytes() for T in found.frames}
    assert all(deepest(T) < 2e-3 for T in found.frames[:12])
    left_out = [T for T in anywhere.frames[: TURNS * (TURNS + 1)] if T.tobytes() not in kept]
    assert left_out
    for T in left_out[:12]:
        low = (corners @ (beside @ T).T)[:, 2].min()
        assert deepest(T) > 5e-4 or low < -5e-4


def test_a_narrow_hand_has_room_where_a_wide_one_has_not(panda):
    # A knife that lies on its side, and then stands on its edge, all but 12 degrees.
    task = load_task("cut_dough")
    flat, upright = task.object("knife").T_world_object, np.eye(4)
    upright[:3, :3] = Rotation.from_euler("xz", [12, 96], degrees=True).as_matrix()
    upright[:3, 3] = [-0.016, -0.011, 0.02]
    hold = Hold(actuator="knife", steps=np.arange(2), times_s=np.arange(2.0), others=[{}, {}],
                frames=np.stack([flat, upright]))  # fmt: skip
    grip = np.array([[-0.12, 0.0, 0.03]])
    with pytest.raises(
        NoPlan, match=r"the hand of franka takes it, it is in (table|board).* 200 mm wide"
    ) as e:
        next(plan_holds(task, [hold], panda, [np.zeros((0, 3))]))
    assert e.value.stage == "planning"
    arm = load_arm("ur5e")
    narrow = HandRoom(task, hold, CollisionWorld(arm, np.eye(4), task), arm.spec.gripper.opening_m)
    mesh = task.mesh(task.object("knife"))
    assert len(sample_grasps(mesh, grip, arm.spec.gripper, clear=narrow.clear))
