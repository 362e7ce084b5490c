"""The arm: its kinematics against a library that is not ours, arms as folders, and the command's words."""

import json
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from lucibot.cli import main
from lucibot.core.errors import UserError
from lucibot.robot.arm import arm_names, kept_arm, load_arm
from lucibot.robot.collision import CollisionWorld
from lucibot.robot.kinematics import Kinematics, cheapest


@pytest.fixture(scope="module", params=arm_names())
def arm(request):
    return load_arm(request.param)


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


def test_an_arm_is_found_again_from_elsewhere(slow_panda, panda, tmp_path, monkeypatch):
    monkeypatch.chdir(slow_panda.parent)
    own, shipped = load_arm(Path("franka")), load_arm("franka")
    assert shipped.spec == panda.spec and own.spec != panda.spec, (
        "a name is the shipped one's first"
    )
    monkeypatch.chdir(slow_panda)
    assert load_arm(".").name == "franka"
    monkeypatch.chdir(tmp_path)
    assert kept_arm("franka", own.own_folder).spec == own.spec
    assert (shipped.own_folder, load_arm(shipped.folder).own_folder) == ("", "")
    assert kept_arm("franka", "").spec == panda.spec
    slow_panda.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"own/franka is gone"):
        kept_arm("franka", own.own_folder)


def test_an_arm_may_be_a_urdf(own_arm, cups, tmp_path):
    lengths = (0.15, 0.05, 0.3, 0.05, 0.3, 0.05, 0.05)
    solid = ('<inertial><mass value="1"/><inertia ixx="0.01" iyy="0.01" izz="0.01" ixy="0" ixz="0" iyz="0"/>'
             '</inertial><collision><origin xyz="0 0 0.02"/><geometry><box size="0.04 0.04 0.04"/></geometry>'
             "</collision>")  # fmt: skip
    links = "".join(
        f'<link name="l{i}">{solid}</link><joint name="j{i}" type="revolute"><parent link="{f"l{i - 1}" if i else "base"}"/>'
        f'<child link="l{i}"/><origin xyz="0 0 {z}"/><axis xyz="0 {i % 2} {1 - i % 2}"/>'
        '<limit lower="-2.5" upper="2.5" effort="80" velocity="3"/></joint>' for i, z in enumerate(lengths)
    )  # fmt: skip
    arm = own_arm("stick.urdf", (
        f'<robot name="stick"><link name="base"><collision><origin xyz="0 0 0.05"/><geometry>'
        f'<cylinder radius="0.05" length="0.1"/></geometry></collision></link>{links}<link name="tip"/>'
        '<joint name="flange" type="fixed"><parent link="l6"/><child link="tip"/><origin xyz="0 0 0.1"/>'
        "</joint></robot>"
    ), joints=7)  # fmt: skip
    T = Kinematics(arm.chain).tcp(torch.zeros((1, 7), dtype=torch.float64))
    np.testing.assert_allclose(T[0, :3, 3], [0, 0, sum(lengths) + 0.1 + 0.1], atol=1e-12)
    base = np.eye(4)
    base[:3, 3] = -0.5, 0.0, 0.0
    world = CollisionWorld(arm, base, cups)
    assert world.hits(np.zeros(7)) == []
    assert ("l2", "table") in world.hits([0, 2.2, 0, 0, 0, 0, 0])
    file, _ = arm.simulated(tmp_path)
    assert {"base", "l6", "tip", "left_finger"} <= {
        b.name for b in mujoco.MjSpec.from_file(str(file)).bodies
    }
    # What hangs on the second joint: 5 links of 1 kg and the hand.
    heights = np.cumsum(lengths[2:])
    assert arm.inertia(file)[1] > (heights**2).sum() * 0.9


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
