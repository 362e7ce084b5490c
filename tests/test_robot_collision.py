"""What the arm hits: in scenes in which that is known, and against a library that is not ours."""

import numpy as np
import pytest
import torch

from lucibot.robot.collision import CollisionWorld
from lucibot.robot.kinematics import Kinematics
from lucibot.task import load_task


def frame(position, approach=(0, 0, -1), y=(0, 1, 0)):
    T = np.eye(4)
    T[:3, :3] = np.stack([np.cross(y, approach), y, approach], 1)
    T[:3, 3] = position
    return T


def test_what_is_in_the_arm_is_said(panda, cups):
    base = np.eye(4)
    base[:3, 3] = [-0.45, 0.0, 0.0]
    world = CollisionWorld(panda, base, cups)
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
    obj = cups.object("yellow_cup")
    carrying = CollisionWorld(panda, base, cups, (obj, np.linalg.inv(frame([0, 0, 0.3]))))
    assert any("carried" in pair for pair in carrying.hits(home)) is False
    inside = CollisionWorld(panda, base, cups, (obj, frame([0.09, 0, 0.25], approach=(0, 0, 1))))
    assert any("carried" in pair for pair in inside.hits(home))


@pytest.mark.parametrize(
    "turned", ['euler="0 0 1.2"', 'axisangle="1 1 0 0.7"', 'quat="0.6 0 0.8 0"', 'zaxis="1 0 2"']
)
def test_the_arm_stands_as_its_model_turns_it(own_arm, cups, turned):
    links = "".join(f'<body pos="0.05 0 0.1"><joint name="j{i}" axis="0 {i % 2} {1 - i % 2}"/>'
                    '<geom size="0.02"/>' for i in range(4))  # fmt: skip
    arm = own_arm("stick.xml", (
        f'<mujoco><compiler angle="radian"/><worldbody><body name="b" pos="0.1 0 0" {turned}>{links}'
        f'<body name="tip" pos="0 0 0.1"><geom size="0.01"/></body>{"</body>" * 5}</worldbody></mujoco>'
    ))  # fmt: skip
    q, base = [0.3, -0.4, 0.5, 0.6], frame([0.2, -0.5, 0.1], (0, 0, 1))
    tip = base @ Kinematics(arm.chain).tcp(torch.tensor([q]).double())[0].numpy()
    # The tip's own sphere, 0.1 behind the TCP.
    world = CollisionWorld(arm, base, cups)
    (ball,) = [g for g, s in world.own_shapes().items() if np.allclose(s.extents, 0.02, rtol=0.1)]
    np.testing.assert_allclose(
        world.shape_poses(q)[ball][:3, 3], (tip @ [0, 0, -0.1, 1])[:3], atol=1e-9
    )


def test_links_beside_each_other_may_overlap_and_the_next_ones_may_not(own_arm, cups):
    links = "".join(f'<body pos="0 0 0.06"><joint name="j{i}" axis="0 {i % 2} {1 - i % 2}"/>'
                    '<geom size="0.04"/>' for i in range(4))  # fmt: skip
    # The base in two pieces, and bodies without names.
    arm = own_arm("stick.xml", (
        '<mujoco><compiler angle="radian"/><worldbody><body><geom size="0.05"/>'
        f'<body pos="0 0 0.02"><geom size="0.05"/>{links}<body name="tip" pos="0 0 0.1"/>{"</body>" * 6}'
        '</worldbody></mujoco>'
    ))  # fmt: skip
    base = frame([-0.5, 0, 0.1], (0, 0, 1))
    world = CollisionWorld(arm, base, cups)
    assert world.hits([0, 0, 0, 0]) == []
    # The second hinge lies level: what is beyond it comes down on the base.
    assert world.hits([0, 3.1, 0, 0]) != []


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


def test_what_hits_is_what_coal_says(panda, cups):
    import coal

    def hull(mesh):
        points = coal.StdVec_Vec3s()
        for v in mesh.convex_hull.vertices:
            points.append(v)
        return coal.Convex.convexHull(points, False, "")

    base = np.eye(4)
    base[:3, 3] = [-0.45, 0.0, 0.0]
    world = CollisionWorld(panda, base, cups)
    scene = []
    for thing in (*cups.spec.background, *cups.objects):
        pieces = [cups.mesh(thing)]
        if thing.name.endswith("cup"):
            pieces = [cups.read_mesh(f).apply_scale(thing.scale) for f in thing.material.collision]
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


def test_what_the_arm_stands_before_is_hidden(panda, cups):
    base = np.eye(4)
    base[:3, 3] = [-0.45, 0.0, 0.0]
    world, home = CollisionWorld(panda, base, cups), panda.spec.home_rad
    # Along the column of the arm, past it, and down on a cup: a thing hides nothing, the arm does.
    behind, beside = [-1.2, 0.0, 0.2], [-1.2, 1.0, 0.2]
    eye = np.array([0.3, 0.0, 0.2])
    assert world.covered(home, eye, np.array([behind])) == 1
    assert world.covered(home, eye, np.array([beside, behind, beside, behind])) == 0.5
    assert world.covered(home, eye, np.array([[-0.2, 0.0, 0.2]])) == 0, "it is before the arm"
    cup = cups.object("red_cup").T_world_object[:3, 3]
    above = cup + np.array([0, 0, 0.3])
    assert world.covered(home, above, np.array([cup - [0, 0, 0.02]])) == 0
