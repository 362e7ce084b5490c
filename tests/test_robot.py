"""The arm: its kinematics against libraries that are not ours, grasps on shapes whose grasps are known, and
ways through scenes in which it is known what is in the way."""

import dataclasses
import json
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from lucibot.cli import main
from lucibot.core.errors import RunFailed, UserError
from lucibot.robot.arm import arm_names, load_arm
from lucibot.robot.collision import CollisionWorld
from lucibot.robot.config import RobotConfig
from lucibot.robot.grasps import FRICTION, NEAR_M, sample_grasps
from lucibot.robot.holds import Hold, NoPlan
from lucibot.robot.kinematics import Kinematics, cheapest
from lucibot.robot.motion import plan_motion
from lucibot.robot.plan import OFF_M, plan_holds
from lucibot.robot.simulation import perform, tracking
from lucibot.robot.timing import timed
from lucibot.robot.ways import CHECKED_RAD, free_way
from lucibot.stages import robot as stage
from lucibot.store.rollout import Rollout
from lucibot.task import load_task


@pytest.fixture(scope="module", params=arm_names())
def arm(request):
    return load_arm(request.param)


@pytest.fixture(scope="module")
def panda():
    return load_arm("franka")


def frame(position, approach=(0, 0, -1), y=(0, 1, 0)):
    T = np.eye(4)
    T[:3, :3] = np.stack([np.cross(y, approach), y, approach], 1)
    T[:3, 3] = position
    return T


# Kinematics ---------------------------------------------------------------------------------------


def test_the_hand_is_where_pinocchio_says(arm):
    import pinocchio as pin

    solver = Kinematics(arm.chain)
    q = solver.random(20, 1)
    T, J = solver.jacobian(q)
    built = pin.buildModelFromMJCF(str(arm.model_path))
    model = built[0] if isinstance(built, tuple) else built
    data = model.createData()
    tcp = np.eye(4)
    tcp[:3, 3] = arm.spec.gripper.tcp_m
    # Pinocchio leaves out how a model turns its first body.
    first = mujoco.MjSpec.from_file(str(arm.model_path)).worldbody.first_body()
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, first.quat / np.linalg.norm(first.quat))
    turn = turn.reshape(3, 3)
    ids = [model.joints[model.getJointId(n)] for n in arm.spec.joints]
    for i in range(len(q)):
        every = pin.neutral(model)
        for joint, angle in zip(ids, q[i], strict=True):
            every[joint.idx_q] = angle
        pin.framesForwardKinematics(model, data, every)
        tip = model.getFrameId(arm.spec.tip)
        there = data.oMf[tip].homogeneous @ tcp
        np.testing.assert_allclose(T[i, :3, 3], turn @ there[:3, 3], atol=1e-9)
        np.testing.assert_allclose(T[i, :3, :3], turn @ there[:3, :3], atol=1e-9)
        # Of the tip: the TCP is carried by it.
        spatial = pin.computeFrameJacobian(model, data, every, tip, pin.LOCAL_WORLD_ALIGNED)
        spatial = spatial[:, [j.idx_v for j in ids]]
        arm_m = data.oMf[tip].rotation @ tcp[:3, 3]
        carried = spatial[:3] - np.cross(arm_m, spatial[3:], axis=0)
        np.testing.assert_allclose(J[i, :3], turn @ carried, atol=1e-9)
        np.testing.assert_allclose(J[i, 3:], turn @ spatial[3:], atol=1e-9)
    lower = model.lowerPositionLimit[[j.idx_q for j in ids]]
    np.testing.assert_allclose(arm.chain.lower, lower, atol=1e-9)


def test_angles_are_found_within_the_limits(arm):
    solver = Kinematics(arm.chain)
    wanted = solver.random(40, 2)
    T = solver.tcp(wanted)
    found = torch.zeros(len(T), dtype=torch.bool)
    for k in range(10):
        s = solver.solve(solver.random(len(T), 3 + k), T)
        there = (s.off_m < 1e-4) & (s.off_rad < 1e-3)
        # What it says it is off, it is.
        np.testing.assert_allclose(
            (solver.tcp(s.angles) - T)[:, :3, 3].norm(dim=1), s.off_m, atol=1e-9
        )
        assert (s.angles >= solver.lower).all() and (s.angles <= solver.upper).all()
        found |= there
    assert found.double().mean() >= 0.95
    near = solver.solve((wanted + 0.05).clamp(solver.lower, solver.upper), T, iterations=12)
    assert ((near.off_m < 1e-4) & (near.off_rad < 1e-3)).all()
    # What is out of reach is not, and comes as near as it gets.
    far = T[:1].clone()
    far[:, :3, 3] = torch.tensor([3.0, 0, 0.3])
    s = solver.solve(solver.random(1, 5), far)
    assert 1.5 < s.off_m < 2.6


def test_a_half_turn_off_is_a_half_turn_off():
    T, target = torch.eye(4, dtype=torch.float64)[None], torch.eye(4, dtype=torch.float64)[None]
    T, target = T.clone(), target.clone()
    for angle in (1e-9, 0.3, 3.1):
        target[0, :2, :2] = torch.tensor(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        e = Kinematics._error(T, target)[0]
        np.testing.assert_allclose(e, [0, 0, 0, 0, 0, 0.1 * angle], atol=1e-9)


def test_the_cheapest_way_is_the_cheapest_of_all_ways():
    g = torch.Generator().manual_seed(0)
    angles = torch.rand((4, 3, 2), dtype=torch.float64, generator=g)
    fine = torch.ones(4, 3, dtype=torch.bool)
    fine[2, 1] = False
    ways = torch.cartesian_prod(*[torch.arange(3)] * 4)
    rows = torch.arange(4)
    costs = torch.stack([
        (angles[rows, w].diff(dim=0).square().sum() if fine[rows, w].all() else torch.tensor(torch.inf))
        for w in ways
    ])  # fmt: skip
    assert cheapest(angles, fine, longest_rad=9).tolist() == ways[costs.argmin()].tolist()
    fine[2] = False
    assert cheapest(angles, fine, longest_rad=9) is None
    assert cheapest(angles, ~torch.zeros_like(fine), longest_rad=1e-6) is None


# Grasps -------------------------------------------------------------------------------------------


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


# Collisions and plans -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task(small_task, tmp_path_factory):
    return small_task("stack_cups", tmp_path_factory.mktemp("t") / "stack_cups", width=160, height=120, fps=10)  # fmt: skip


def test_what_is_in_the_arm_is_said(panda, task):
    base = np.eye(4)
    base[:3, 3] = [-0.45, 0.0, 0.0]
    world = CollisionWorld(panda, base, task)
    home = panda.spec.home_rad
    assert world.hits(home) == []
    low = np.array(home)
    low[1] = 1.4  # Bent forwards, into the table.
    assert any("table" in pair for pair in world.hits(low))
    # A cup that is where the hand is, and is not when it has gone.
    T = base @ Kinematics(panda.chain).tcp(torch.tensor([home]))[0].numpy()
    cup = {"red_cup": np.array([*T[:3, 3] - [0, 0, 0.03], 1, 0, 0, 0])}
    assert any("red_cup" in pair for pair in world.hits(home, cup))
    assert world.hits(home, {"red_cup": np.array([5.0, 0, 0, 1, 0, 0, 0])}) == []
    # What is carried may touch the table, but not the arm.
    obj = task.object("yellow_cup")
    carrying = CollisionWorld(panda, base, task, (obj, np.linalg.inv(frame([0, 0, 0.3]))))
    assert any("carried" in pair for pair in carrying.hits(home)) is False
    inside = CollisionWorld(panda, base, task, (obj, frame([0.09, 0, 0.25], approach=(0, 0, 1))))
    assert any("carried" in pair for pair in inside.hits(home))


def way_of(task, name, stations):
    others = {
        o.name: np.array([*o.T_world_object[:3, 3], 1, 0, 0, 0])
        for o in task.objects
        if o.name != name
    }
    return Hold(
        actuator=name, steps=np.arange(len(stations)), times_s=0.1 * np.arange(len(stations)),
        frames=np.stack(stations), others=[others] * len(stations),
    )  # fmt: skip


def lifted(task, name, n=6, height=0.1):
    T = task.object(name).T_world_object
    ways = []
    for s in np.linspace(0, 1, n):
        M = T.copy()
        M[:3, 3] += [0, 0, height * s]
        ways.append(M)
    return way_of(task, name, ways)


def test_an_arm_follows_a_cup_and_hits_nothing(arm, task):
    hold = lifted(task, "yellow_cup")
    (plan,) = next(plan_holds(task, [hold], arm, [np.zeros((0, 3))]))
    assert plan.angles.shape == (6, len(plan.joints)) and plan.off_m.max() < OFF_M
    solver = Kinematics(arm.chain)
    T = plan.T_world_base @ solver.tcp(torch.as_tensor(plan.angles)).numpy()
    # At every station the cup is where it is to be, by the grasp; checked by MuJoCo's own kinematics.
    np.testing.assert_allclose(T @ np.linalg.inv(plan.T_obj_tcp), hold.frames, atol=2e-3)
    model = arm.model()
    model = model.compile()
    data = mujoco.MjData(model)
    for angle, name in zip(plan.angles[3], plan.joints, strict=True):
        data.joint(name).qpos[0] = angle
    mujoco.mj_kinematics(model, data)
    tip = data.body(arm.spec.tip)
    tcp = tip.xpos + tip.xmat.reshape(3, 3) @ arm.spec.gripper.tcp_m
    np.testing.assert_allclose((plan.T_world_base @ [*tcp, 1])[:3], T[3, :3, 3], atol=1e-9)
    world = CollisionWorld(
        arm,
        plan.T_world_base,
        task,
        (task.object("yellow_cup"), plan.T_obj_tcp),
        opening_m=plan.width_m,
    )
    for q, others in zip(plan.angles, hold.others, strict=True):
        assert world.hits(q, others) == []


def test_what_the_arm_cannot_do_is_put_down_to_a_stage(panda, task):
    away = [frame([x, 0, 0.2]) for x in np.linspace(0, 3, 6)]
    base = np.eye(4)
    with pytest.raises(NoPlan, match="reaches") as e:
        next(plan_holds(
            task, [way_of(task, "yellow_cup", away)], panda, [np.zeros((0, 3))], T_world_base=base
        ))  # fmt: skip
    assert e.value.stage == "kinematics"
    big = panda.spec.gripper.model_copy(update={"opening_m": 1e-3})
    narrow = load_arm("franka")
    narrow.spec = panda.spec.model_copy(update={"gripper": big})
    with pytest.raises(NoPlan, match="1 mm") as e:
        next(plan_holds(task, [lifted(task, "yellow_cup")], narrow, [np.zeros((0, 3))]))
    assert e.value.stage == "grasp"


@pytest.mark.parametrize("seconds", [0.5, 8.0])
def test_times_keep_the_limits_and_are_no_shorter_than_they_need_be(panda, seconds):
    velocity, acceleration = panda.spec.velocity_rad_s, panda.spec.acceleration_rad_s2
    share = np.linspace(0, 1, 41)
    angles = np.zeros((41, 7))
    # Two stretches with a rest between them, as a hand comes to rest in each waypoint.
    half = 2 * share % 1
    angles[:, 0] = np.where(share < 0.5, 0, 1.5) + 1.5 * half**3 * (10 - 15 * half + 6 * half**2)
    angles[-1, 0] = 3
    found = timed(seconds * share, angles, velocity, acceleration, 0.004, fastest=1.0)
    rates = np.diff(found.speeds, axis=0) / 0.004
    assert (np.abs(found.speeds) <= np.array(velocity) * 1.01).all()
    assert (np.abs(rates) <= np.array(acceleration) * 1.05).all()
    np.testing.assert_allclose(found.angles[[0, -1]], angles[[0, -1]], atol=1e-6)
    assert (np.diff(found.places) >= -1e-9).all() and found.places[-1] == pytest.approx(seconds)
    np.testing.assert_allclose(found.speeds[[0, -1]], 0, atol=0.05)
    least = 2 * (1.5 / velocity[0] + velocity[0] / acceleration[0])
    if seconds < least:
        assert least <= found.times_s[-1] < 1.6 * least
    else:
        assert found.times_s[-1] == pytest.approx(seconds, rel=0.05)


def test_a_way_goes_around_what_is_in_it_and_is_the_same_twice(panda):
    chain, home = panda.chain, np.array(panda.spec.home_rad)
    goal = home + 0.8

    def free(q):
        return not (0.3 < q[0] < 0.5 and q[1] < 0)

    way = free_way(home, goal, chain.lower, chain.upper, free)
    np.testing.assert_array_equal(way[[0, -1]], [home, goal])
    assert np.abs(np.diff(way, axis=0)).max() <= CHECKED_RAD + 1e-9
    assert all(free(q) for q in way)
    assert ((way >= chain.lower) & (way <= chain.upper)).all()
    np.testing.assert_array_equal(way, free_way(home, goal, chain.lower, chain.upper, free))
    assert free_way(home, goal, chain.lower, chain.upper, lambda q: not 0.3 < q[0] < 0.5) is None


# Arms as folders, and the command -----------------------------------------------------------------


def test_an_arm_is_a_folder(tmp_path, panda, capsys):
    text = (panda.folder / "arm.toml").read_text()
    for broken, words in (
        (None, "no arm.toml"),
        ("title = 3", "title"),
        (text.replace('"joint7"]', '"joint8"]'), "no such body or joint"),
        (text.replace("panda.xml", "pandas.xml"), "no such file"),
        (text.replace("0.785]", "0.785, 1.0]"), "home_rad"),
        (text.replace('["joint1", "joint2"', '["joint2", "joint1"'), "from the base"),
    ):
        folder = tmp_path / "mine"
        folder.mkdir(exist_ok=True)
        if broken is not None:
            (folder / "arm.toml").write_text(broken)
        with pytest.raises(UserError, match=words):
            _ = load_arm(folder).chain
    for broken, words in (
        (text.replace('"finger_joint2"', '"thumb"'), "thumb"),
        (text.replace('"joint1", "joint2"', '"joint1", "joint1"'), "named twice"),
    ):
        (folder / "arm.toml").write_text(broken)
        assert main(["robot", str(tmp_path / "none"), "--arm", str(folder)]) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(UserError, match="franka"):
        load_arm("frank")
    # A model of one's own beside it.
    links = "".join(f'<body pos="0 0 0.1"><joint name="j{i}" axis="0 {i % 2} {1 - i % 2}" range="-2 2"/>'
                    '<geom size="0.02"/>' for i in range(5))  # fmt: skip
    (folder / "stick.xml").write_text(
        f'<mujoco><compiler angle="radian"/><worldbody><body name="b"><geom size="0.05"/>{links}'
        f'<body name="tip" pos="0 0 0.1"><geom size="0.02"/></body>{"</body>" * 5}</body></worldbody></mujoco>'
    )
    (folder / "arm.toml").write_text(
        'title = "A stick"\nmodel = "stick.xml"\ntip = "tip"\n'
        + "joints = " + json.dumps([f"j{i}" for i in range(5)])
        + "".join(f"\n{n} = [{', '.join(['1.0'] * 5)}]" for n in ("home_rad", "velocity_rad_s", "acceleration_rad_s2"))
        + "\n[gripper]\ntcp_m = [0.0, 0.0, 0.1]\nopening_m = 0.05\nfinger_m = [0.02, 0.01, 0.04]\npalm_m = [0.05, 0.1, 0.05]\n"
    )  # fmt: skip
    T = Kinematics(load_arm(folder).chain).tcp(torch.zeros((1, 5), dtype=torch.float64))
    np.testing.assert_allclose(T[0, :3, 3], [0, 0, 0.7], atol=1e-12)


def test_bad_words_of_the_command_are_said(tmp_path, capsys):
    for argv, words in (
        ([str(tmp_path)], "run"),
        ([str(tmp_path), "--arm", "frank"], "franka"),
        ([str(tmp_path), "--base", "1,2"], "X,Y,Z,DEG"),
    ):
        assert main(["robot", *argv]) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "folder").mkdir()
    for flags, words in (
        (["--robot", "frank"], "franka"),
        (["--robot", str(tmp_path / "folder")], "no arm.toml"),
        (["--robot.base", "1,2"], "X,Y,Z,DEG"),
        (["--until", "robot"], "--robot NAME"),
        (["--robot.folder", str(tmp_path / "gone")], "gone"),
    ):
        assert main(["run", "open_door", *flags, "--out", str(tmp_path / "runs")]) == 2, flags
        assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_arm_in_a_shipped_scene_meets_what_is_there_by_its_name(panda):
    task = load_task("scoop_sand")
    away = np.eye(4)
    away[:3, 3] = [-0.6, -0.5, 0]
    assert CollisionWorld(panda, away, task).hits(panda.spec.home_rad) == []
    # In the same place as the box of sand.
    (box,) = [b for b in task.spec.background if b.name == "box"]
    there = np.eye(4)
    there[:3, 3] = box.T_world_object[:3, 3] - [0.5, 0, 0]
    reached = Kinematics(panda.chain).solve(
        torch.tensor([panda.spec.home_rad]).double(), torch.as_tensor(frame([0.5, 0, 0.02]))[None]
    )
    assert any("box" in pair for pair in CollisionWorld(panda, there, task).hits(reached.angles[0]))


def test_what_hits_is_what_coal_says(panda, task):
    import coal

    def hull(mesh):
        points = coal.StdVec_Vec3s()
        for v in mesh.convex_hull.vertices:
            points.append(v)
        return coal.Convex.convexHull(points, False, "")

    base = np.eye(4)
    base[:3, 3] = [-0.45, 0.0, 0.0]
    world = CollisionWorld(panda, base, task)
    scene = []
    for thing in (*task.spec.background, *task.objects):
        pieces = [task.mesh(thing)]
        if thing.name.endswith("cup"):
            pieces = [task.read_mesh(f).apply_scale(thing.scale) for f in thing.material.collision]
        T = thing.T_world_object
        scene += [(thing.name, hull(p), coal.Transform3s(T[:3, :3], T[:3, 3])) for p in pieces]
    home = np.array(panda.spec.home_rad)
    moved = zip(world.shapes(home), world.shapes(home + 0.1), strict=True)
    stands = [np.allclose(a.vertices, b.vertices) for a, b in moved]
    told, agreed = 0, 0
    for q in home + 0.7 * np.random.default_rng(0).normal(size=(20, 7)):
        q = np.clip(q, panda.chain.lower, panda.chain.upper)
        least = {}
        for i, shape in enumerate(world.shapes(q)):
            if stands[i]:
                continue  # The base: what stands on the table touches it.
            mine = hull(shape)
            for name, other, T in scene:
                apart = coal.distance(mine, coal.Transform3s.Identity(), other, T,
                                      coal.DistanceRequest(), coal.DistanceResult())  # fmt: skip
                least[name] = min(least.get(name, 9), apart)
        hit = {n for pair in world.hits(q) for n in pair}
        for name, apart in least.items():
            if abs(apart + 1e-3) > 2e-3:
                assert (name in hit) == (apart < 0), (name, apart)
                told, agreed = told + 1, agreed + (apart < 0)
    assert told > 40 and agreed > 3


# In the simulation --------------------------------------------------------------------------------


def lifted_rollout(task, name, height=0.08, steps=120):
    """What a replay would say of a cup that a hand lifts straight up."""
    bodies = tuple(o.name for o in task.objects if o.is_rigid)
    T = [task.object(n).T_world_object for n in bodies]
    share = np.concatenate([[0], np.clip(np.arange(steps) / (steps - 1), 0, 1)])
    positions = np.repeat(np.stack([M[:3, 3] for M in T])[None], steps + 1, 0)
    turns = np.stack([np.roll(Rotation.from_matrix(M[:3, :3]).as_quat(), 1) for M in T])
    b, a = bodies.index(name), [o.name for o in task.actuators].index(name)
    positions[:, b, 2] += height * share**3 * (10 - 15 * share + 6 * share**2)
    held = np.zeros((steps + 1, len(task.actuators)), bool)
    held[1:, a] = True
    targets = np.full((steps + 1, len(task.actuators), 3), np.nan)
    quaternions = np.full((steps + 1, len(task.actuators), 4), np.nan)
    targets[1:, a], quaternions[1:, a] = positions[1:, b], turns[b]
    return Rollout(
        times_s=np.arange(steps + 1) * task.spec.simulation.dt_s, bodies=bodies,
        positions_m=positions, quaternions=np.repeat(turns[None], steps + 1, 0), joints=(),
        joint_values=np.zeros((steps + 1, 0)), actuators=tuple(o.name for o in task.actuators),
        held=held, targets_m=targets, target_quaternions=quaternions, grasped={},
        particle_steps=np.array([0, steps]), particles={},
    )  # fmt: skip


def test_the_whole_motion_begins_at_home_and_leads_on_from_phase_to_phase(panda, task):
    rollout = lifted_rollout(task, "yellow_cup")
    areas = [np.zeros((0, 3))] * len(task.actuators)
    plans, motion = plan_motion(task, panda, rollout, areas)
    assert [p.kind for p in motion.phases] == [
        "approach", "approach", "close", "follow", "open", "retreat", "rest"
    ]  # fmt: skip
    angles = np.concatenate(
        [np.array(panda.spec.home_rad)[None], *(p.angles for p in motion.phases)]
    )
    speeds = np.abs(np.diff(angles, axis=0)) / motion.dt_s
    assert (speeds <= np.array(panda.spec.velocity_rad_s) * 1.02).all()
    follow = motion.phases[3]
    T = motion.T_world_base @ Kinematics(panda.chain).tcp(torch.as_tensor(follow.angles)).numpy()
    cup = T @ np.linalg.inv(motion.grasps[0])
    np.testing.assert_allclose(cup, follow.wanted, atol=2e-3)
    assert (np.diff(follow.simulated_s) >= -1e-9).all()
    assert motion.slower[0] >= 1 and follow.opening_m[0] == pytest.approx(plans[0].width_m)
    # Nothing but what it takes is met on the way, with an open hand.
    world = CollisionWorld(panda, motion.T_world_base, task)
    for q in motion.phases[0].angles[::5]:
        assert all("yellow_cup" in pair for pair in world.hits(q))
    # What nothing is held in is nobody's to do.
    idle = dataclasses.replace(rollout, held=np.zeros_like(rollout.held))
    with pytest.raises(NoPlan, match="nothing is held"):
        plan_motion(task, panda, idle, areas)


@pytest.mark.slow
def test_an_arm_lifts_a_cup_and_lets_it_go(panda, task):
    rollout = lifted_rollout(task, "yellow_cup")
    areas = [np.zeros((0, 3))] * len(task.actuators)
    _, motion = plan_motion(task, panda, rollout, areas)
    done = perform(task, panda, motion, {}, task.camera, 20)
    off = tracking(done, motion)
    assert not done.diverged and off["mean_mm"] < 2 and off["most_mm"] < 8, off
    r = done.rollout
    assert r.arm == "franka" and r.arm_angles.shape == (motion.steps + 1, 7)
    np.testing.assert_allclose(r.arm_angles[0], panda.spec.home_rad, atol=1e-5)
    assert len(done.pictures) == motion.steps // 20 + 1
    cup = r.positions_m[:, r.bodies.index("yellow_cup"), 2]
    held = np.flatnonzero(r.held.any(1))
    assert cup[held[-1]] - cup[0] > 0.075, "it was lifted"
    assert np.abs(cup[: held[0]] - cup[0]).max() < 2e-3, "it stood still while the hand came"
    assert cup[-1] - cup[0] < 0.03, "and fell when it was let go"


@pytest.mark.parametrize(
    ("fails", "at"),
    [({"plan": NoPlan("kinematics", "no grasp reaches the whole of the way")}, "kinematics"),
     ({"perform": RunFailed("the servos cannot hold it")}, "execution")],
    ids=["no plan", "not carried out"],
)  # fmt: skip
def test_what_an_arm_cannot_do_is_a_result(monkeypatch, tmp_path, fails, at):
    def plan(*arguments, **named):
        if "plan" in fails:
            raise fails["plan"]
        return [], SimpleNamespace(slower=np.ones(1))

    def carry_out(*arguments):
        raise fails["perform"]

    monkeypatch.setattr(stage, "plan_motion", plan)
    monkeypatch.setattr(stage, "_perform", carry_out)
    monkeypatch.setattr(stage.Rollout, "load", lambda path: None)
    areas = SimpleNamespace(affordance=SimpleNamespace(areas=list))
    monkeypatch.setattr(stage.Supervision, "load", lambda path: areas)
    notes = []
    inputs = {"execute": tmp_path, "perceive": tmp_path}
    stage.run(SimpleNamespace(task=None, config=RobotConfig(), inputs=inputs, folder=tmp_path,
                              note=notes.append, progress=lambda *a: None))  # fmt: skip
    told = json.loads((tmp_path / stage.ROBOT).read_text())
    (why,) = [str(e) for e in fails.values()]
    assert (told["failed"], told["why"]) == (at, why)
    (note,) = notes
    assert note.endswith(why) and "Panda" in note
