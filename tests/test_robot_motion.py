"""From a trajectory to an arm's joints, when it is where, and what comes of it in the simulation."""

import dataclasses
import json
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lucibot import planning
from lucibot.core.errors import RunFailed
from lucibot.robot import motion
from lucibot.robot.arm import arm_names, load_arm
from lucibot.robot.collision import CollisionWorld
from lucibot.robot.config import RobotConfig
from lucibot.robot.holds import Hold, NoPlan
from lucibot.robot.kinematics import Kinematics
from lucibot.robot.motion import plan_motion
from lucibot.robot.plan import OFF_M, plan_holds
from lucibot.robot.simulation import perform, tracking
from lucibot.robot.timing import JointLimits, timed
from lucibot.robot.ways import CHECKED_RAD, free_way
from lucibot.stages import robot as stage
from lucibot.store.rollout import Rollout


@pytest.fixture(scope="module", params=arm_names())
def arm(request):
    return load_arm(request.param)


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


def test_an_arm_follows_a_cup_and_hits_nothing(arm, cups):
    hold = lifted(cups, "yellow_cup")
    (plan,) = next(plan_holds(cups, [hold], arm, [np.zeros((0, 3))]))
    assert plan.angles.shape == (6, len(plan.joints)) and plan.off_m.max() < OFF_M
    assert plan.remark.startswith("no finger tips were seen") and plan.takes_s >= hold.times_s[-1]
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
        cups,
        (cups.object("yellow_cup"), plan.T_obj_tcp),
        opening_m=plan.width_m,
    )
    for q, others in zip(plan.angles, hold.others, strict=True):
        assert world.hits(q, others) == []


def test_what_the_arm_cannot_do_is_put_down_to_a_stage(panda, cups):
    away = np.tile(np.eye(4), (6, 1, 1))
    away[:, 0, 3], away[:, 2, 3] = np.linspace(0, 3, 6), 0.2
    base = np.eye(4)
    with pytest.raises(NoPlan, match="reaches") as e:
        next(plan_holds(
            cups, [way_of(cups, "yellow_cup", away)], panda, [np.zeros((0, 3))], T_world_base=base
        ))  # fmt: skip
    assert e.value.stage == "kinematics"
    big = panda.spec.gripper.model_copy(update={"opening_m": 1e-3})
    narrow = load_arm("franka")
    narrow.spec = panda.spec.model_copy(update={"gripper": big})
    with pytest.raises(NoPlan, match="1 mm") as e:
        next(plan_holds(cups, [lifted(cups, "yellow_cup")], narrow, [np.zeros((0, 3))]))
    assert e.value.stage == "grasp"


@pytest.mark.parametrize("jerk", [None, 30.0])
@pytest.mark.parametrize("seconds", [0.5, 8.0])
def test_times_keep_the_limits_and_are_no_shorter_than_they_need_be(panda, seconds, jerk):
    spec = panda.spec.model_copy(update={"jerk_rad_s3": jerk and [jerk] * 7})
    share = np.linspace(0, 1, 41)
    angles = np.zeros((41, 7))
    # Two stretches with a rest between them, as a hand comes to rest in each waypoint.
    half = 2 * share % 1
    angles[:, 0] = np.where(share < 0.5, 0, 1.5) + 1.5 * half**3 * (10 - 15 * half + 6 * half**2)
    angles[-1, 0] = 3
    dt = 0.001
    found = timed(seconds * share, angles, JointLimits.of(spec), dt, fastest=1.0)
    n = len(found.times_s)
    still = np.vstack(
        [np.repeat(found.angles[:1], 4, 0), found.angles, np.repeat(found.angles[-1:], 4, 0)]
    )
    rates = [np.diff(still, k, axis=0) / dt**k for k in (1, 2, 3)]
    assert (np.abs(rates[0]) <= np.array(spec.velocity_rad_s) * 1.001).all()
    assert (np.abs(rates[1]) <= np.array(spec.acceleration_rad_s2) * 1.001).all()
    if jerk:
        assert (np.abs(rates[2]) <= jerk * 1.001).all()
    np.testing.assert_allclose(found.speeds, np.gradient(found.angles, dt, axis=0), atol=0.01)
    np.testing.assert_allclose(found.angles[[0, -1]], angles[[0, -1]], atol=1e-6)
    assert (np.diff(found.places) >= -1e-9).all() and found.places[-1] == pytest.approx(seconds)
    # From rest to rest at full speed and acceleration, twice; each change of acceleration takes its own time.
    v, a = spec.velocity_rad_s[0], spec.acceleration_rad_s2[0]
    least = 2 * (1.5 / v + v / a) if not jerk else 2 * least_of(1.5, v, a, jerk)
    if seconds < least:
        assert least - dt <= n * dt < (2.0 if jerk else 1.1) * least
    else:
        assert n * dt == pytest.approx(seconds, rel=0.05)


def least_of(way, velocity, acceleration, jerk):
    """Seconds from rest to rest with limited jerk, where the acceleration's limit or none but the jerk's is met."""
    acceleration = min(acceleration, (velocity * jerk) ** 0.5)
    ramp = velocity / acceleration + acceleration / jerk
    if way >= velocity * ramp:
        return way / velocity + ramp
    return 4 * (way / 2 / jerk) ** (1 / 3)


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


def test_the_whole_motion_begins_at_home_and_leads_on_from_phase_to_phase(panda, cups):
    rollout = lifted_rollout(cups, "yellow_cup")
    areas = [np.zeros((0, 3))] * len(cups.actuators)
    plans, planned = plan_motion(cups, panda, rollout, areas)
    assert [p.kind for p in planned.phases] == [
        "approach", "approach", "close", "follow", "open", "retreat", "rest"
    ]  # fmt: skip
    angles = np.concatenate(
        [np.array(panda.spec.home_rad)[None], *(p.angles for p in planned.phases)]
    )
    speeds = np.abs(np.diff(angles, axis=0)) / planned.dt_s
    assert (speeds <= np.array(panda.spec.velocity_rad_s) * 1.02).all()
    follow = planned.phases[3]
    T = planned.T_world_base @ Kinematics(panda.chain).tcp(torch.as_tensor(follow.angles)).numpy()
    cup = T @ np.linalg.inv(planned.grasps[0])
    np.testing.assert_allclose(cup, follow.wanted, atol=2e-3)
    assert (np.diff(follow.simulated_s) >= -1e-9).all()
    assert planned.slower[0] >= 1 and follow.opening_m[0] == pytest.approx(plans[0].width_m)
    # Nothing but what it takes is met on the way, with an open hand.
    world = CollisionWorld(panda, planned.T_world_base, cups)
    for q in planned.phases[0].angles[::5]:
        assert all("yellow_cup" in pair for pair in world.hits(q))
    # What nothing is held in is nobody's to do.
    idle = dataclasses.replace(rollout, held=np.zeros_like(rollout.held))
    with pytest.raises(NoPlan, match="nothing is held"):
        plan_motion(cups, panda, idle, areas)


@pytest.mark.parametrize(
    ("spans", "collides", "opens"),
    [({"yellow_cup": [(10, 30), (60, 101)]}, False, [True, False]),
     ({"yellow_cup": [(10, 30), (60, 101)]}, True, [True, True]),
     ({"yellow_cup": [(10, 30), (60, 80)]}, False, [True, True]),
     ({"red_cup": [(10, 101)], "yellow_cup": [(60, 101)]}, False, [True, False])],
    ids=["twice, to the end", "it stands by itself", "not to the end", "two to the end"],
)  # fmt: skip
def test_the_hand_is_empty_before_it_takes_something_else(
    cups, monkeypatch, spans, collides, opens
):
    sim = {"dt_s": 0.01, "steps_per_waypoint": 50, "settle_steps": 20, "rigid_collision": collides}
    task = SimpleNamespace(
        spec=SimpleNamespace(simulation=SimpleNamespace(**sim)), object=cups.object
    )
    rollout = lifted_rollout(cups, "yellow_cup")
    held = np.zeros_like(rollout.held)
    for name, stretches in spans.items():
        for start, end in stretches:
            held[start:end, rollout.actuators.index(name)] = True
    rollout = dataclasses.replace(rollout, held=held)
    holds = motion.holds_of(task, rollout)
    still = np.zeros((2, 7))

    def followed(times, *arguments):
        return SimpleNamespace(places=times[:2], times_s=times[:2], angles=still, speeds=still)

    def timed(self, kind, h, way, opening):
        self._add(kind, h, still, still, opening)

    monkeypatch.setattr(motion, "followed", followed)
    monkeypatch.setattr(motion, "Kinematics", lambda chain: None)
    monkeypatch.setattr(motion, "CollisionWorld", lambda *arguments: None)
    for name, does in (
        ("_followed", lambda self, plan, hold, steps: (rollout.times_s[steps], steps, still)),
        ("_straight", lambda self, angles: still), ("_timed", timed),
        ("_approach", lambda self, h, hold, last: self._timed("approach", h, last, self._opening)),
    ):  # fmt: skip
        monkeypatch.setattr(motion._Composer, name, does)
    gripper = SimpleNamespace(opening_m=0.08)
    arm = SimpleNamespace(chain=None, spec=SimpleNamespace(home_rad=[0.0] * 7, gripper=gripper))
    plan = SimpleNamespace(T_world_base=np.eye(4), T_obj_tcp=np.eye(4), width_m=0.02)
    found = motion._Composer(task=task, arm=arm, plans=[plan] * len(holds), holds=holds,
                             rollout=rollout).motion()  # fmt: skip
    ends = [[p.kind for p in found.phases if p.hold == h and p.kind in ("open", "retreat")]
            for h in range(len(holds))]  # fmt: skip
    assert ends == [["open", "retreat"] if o else [] for o in opens]


def test_of_places_that_do_the_best_is_taken_and_few_are_looked_at(monkeypatch, cups):
    looked = []

    def plan_holds(*arguments, **named):
        for cost in (3.0, 1.0, 2.0, 4.0, 0.0):
            looked.append(cost)
            yield [SimpleNamespace(cost=cost)]

    class Composer:
        def __init__(self, plans, **named):
            (self.plan,) = plans

        def motion(self):
            if self.plan.cost == 1.0:
                raise NoPlan("planning", "no way was found")
            return self.plan.cost

    monkeypatch.setattr(motion, "plan_holds", plan_holds)
    monkeypatch.setattr(motion, "_Composer", Composer)
    rollout = lifted_rollout(cups, "yellow_cup")
    plans, found = plan_motion(cups, None, rollout, [np.zeros((0, 3))] * len(cups.actuators))
    assert (plans[0].cost, found, looked) == (2.0, 2.0, [3.0, 1.0, 2.0, 4.0])


def test_a_plan_that_fails_leaves_nothing_of_the_one_before(cups, panda, tmp_path, monkeypatch):
    out = tmp_path / "robot" / "franka"
    out.mkdir(parents=True)
    before = ("plan.json", "joints.csv", "0_yellow_cup.npz", "0_yellow_cup.png", "11_red_cup.npz")
    for name in (*before, "notes.txt", "yellow_cup.png"):
        (out / name).write_text("{}")

    def plan_motion(*arguments, **named):
        assert not (out / "plan.json").exists()
        raise NoPlan("grasp", "no room")

    areas = SimpleNamespace(affordance=SimpleNamespace(areas=list))
    for name, does in (
        ("open_run", lambda run: (SimpleNamespace(path=tmp_path), cups, None, 0)),
        ("stage_folder", lambda run, name: tmp_path), ("replay_of", lambda run, folder: None),
        ("made_from", lambda run, folder, name: tmp_path), ("plan_motion", plan_motion),
    ):  # fmt: skip
        monkeypatch.setattr(planning, name, does)
    monkeypatch.setattr(planning.Supervision, "load", lambda path: areas)
    assert planning.plan_run(tmp_path, panda)["failed"] == "grasp"
    assert sorted(p.name for p in out.iterdir()) == ["notes.txt", "plan.json", "yellow_cup.png"]
    assert json.loads((out / "plan.json").read_text())["why"] == "no room"


@pytest.mark.slow
def test_an_arm_lifts_a_cup_and_lets_it_go(panda, cups):
    rollout = lifted_rollout(cups, "yellow_cup")
    areas = [np.zeros((0, 3))] * len(cups.actuators)
    _, planned = plan_motion(cups, panda, rollout, areas)
    done = perform(cups, panda, planned, {}, cups.camera, 20)
    off = tracking(done, planned)
    assert not done.diverged and off["mean_mm"] < 2 and off["most_mm"] < 8, off
    r = done.rollout
    assert r.arm == "franka" and r.arm_angles.shape == (planned.steps + 1, 7)
    np.testing.assert_allclose(r.arm_angles[0], panda.spec.home_rad, atol=1e-5)
    assert len(done.pictures) == planned.steps // 20 + 1
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
        plan = SimpleNamespace(
            actuator="fork", remark="taken far away", told=dict, save=lambda path: None
        )
        return [plan], SimpleNamespace(slower=np.ones(1))

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
    assert notes[-1].endswith(why) and "Panda" in notes[-1]
    assert notes[:-1] == ([] if "plan" in fails else ["fork: taken far away"])
