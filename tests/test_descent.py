"""A start that comes down the slope: the walk on slopes that are known, the smooth loss against its own
differences, and the whole chain through physics against the simulator's."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lucibot.cli import main
from lucibot.config import OptimizeConfig, RunConfig
from lucibot.core.errors import UserError
from lucibot.core.geometry import matrix_np, pose_np
from lucibot.objective.evaluation import Evaluation
from lucibot.objective.supervision import Affordance, Supervision
from lucibot.objective.weights import LossWeights
from lucibot.optimize.config import DescentStart
from lucibot.optimize.descent import Descended, descend
from lucibot.preflight import ensure_possible
from lucibot.sim.gradient import refused
from lucibot.sim.moment import Moment
from lucibot.sim.smooth import SmoothLoss
from lucibot.task import Task, load_task
from lucibot.vision.draw import DrawMesh, draw_depth

STEEP = np.array([4.0, 1.0, 0.25])


class Bowl:
    """A loss whose slope is known; farther than `fails` from its bottom every rollout fails."""

    def __init__(self, fails: float = np.inf, slope=None):
        self.bottom, self.fails, self.given, self.last = (
            np.array([1.0, -1.0, 0.5]),
            fails,
            slope,
            None,
        )

    def roll(self, samples: np.ndarray) -> Evaluation:
        self.last, off = samples, samples - self.bottom
        failed = np.linalg.norm(off, axis=1) > self.fails
        # What a failed rollout's loss is said to be does not count.
        loss = np.where(failed, -1.0, (STEEP * off**2).sum(1))
        return Evaluation(loss=loss, terms={}, failed=failed, seconds={})

    def slope(self, number: int) -> tuple[float, np.ndarray]:
        off = self.last[number] - self.bottom
        gradient = 2 * STEEP * off if self.given is None else self.given
        return float((STEEP * off**2).sum()), gradient


def test_it_comes_down_step_by_step_and_counts_what_that_took():
    config = DescentStart(steps=12, tries=4, first_step=0.5)
    bowl = Bowl()
    found = descend(bowl, 3, config)
    assert (np.diff(found.losses) < 0).all()
    assert found.losses[0] == pytest.approx(5.0625) and found.losses[-1] < 0.05 * found.losses[0]
    assert found.losses[-1] == pytest.approx(float(bowl.roll(found.sample[None]).loss[0]))
    assert found.slopes <= 12 and found.rollouts % 4 == 1
    assert found.equivalents >= found.rollouts


@pytest.mark.parametrize("slope", [np.zeros(3), np.full(3, np.nan), np.full(3, np.inf)])
def test_where_there_is_no_slope_the_start_stays(slope):
    found = descend(Bowl(slope=slope), 3, DescentStart())
    assert len(found.losses) == 1 and found.slopes == 1 and not found.sample.any()


def test_uphill_is_left_alone():
    uphill = -2 * STEEP * (0 - np.array([1.0, -1.0, 0.5]))
    found = descend(Bowl(slope=uphill), 3, DescentStart(steps=3))
    assert found.slopes == 1 and not found.sample.any() and found.rollouts > 5


def test_no_length_is_tried_twice_from_one_place():
    uphill = -2 * STEEP * (0 - np.array([1.0, -1.0, 0.5]))
    bowl, lengths = Bowl(slope=uphill), []
    roll = bowl.roll
    bowl.roll = lambda samples: lengths.extend(np.linalg.norm(samples, axis=1)) or roll(samples)
    descend(bowl, 3, DescentStart(steps=1, tries=3))
    # From the start each length is half of the one before.
    np.testing.assert_allclose(lengths[1:], 2.0 ** -np.arange(len(lengths) - 1))
    assert len(lengths) > 1 + 3


def test_rollouts_that_fail_are_never_lower():
    # The longest of its first steps leaves what can be rolled out.
    found = descend(Bowl(fails=1.55), 3, DescentStart(steps=4, first_step=4.0))
    assert found.losses.min() >= 0 and found.losses[-1] < found.losses[0]
    lost = descend(Bowl(fails=0.1), 3, DescentStart())
    assert lost.losses.tolist() == [np.inf] and lost.slopes == 0


def test_what_was_found_is_kept_and_damage_is_told(tmp_path):
    path = tmp_path / "descent.npz"
    assert Descended.load(path) is None
    found = descend(Bowl(), 3, DescentStart())
    found.save(path)
    again = Descended.load(path)
    np.testing.assert_array_equal(again.sample, found.sample)
    assert again.equivalents == found.equivalents and again.slopes == found.slopes
    data = path.read_bytes()
    for broken in (b"", data[: len(data) // 2], data[:60] + b"\0" * 40 + data[100:]):
        path.write_bytes(broken)
        assert Descended.load(path) is None


@pytest.mark.parametrize(
    ("task", "why"),
    [("scoop_sand", "sand"), ("stack_cups", "material point"), ("pour_liquid", "material point"),
     ("rubber_band", "rigid tool"), ("cut_dough", None), ("lift_mochi", None), ("spread_butter", None)],
)  # fmt: skip
def test_which_tasks_have_a_slope(task, why):
    told = refused(load_task(task))
    assert told is None if why is None else why in told


def test_a_task_that_has_none_is_told_before_anything_is_made(tmp_path, capsys):
    out = tmp_path / "runs"
    assert main(["run", "stack_cups", "--optimize.start", "descent", "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "--optimize.start descent" in told and "--optimize.start video" in told
    assert not out.exists()
    other = ["--optimize.start", "descent", "--optimize.objective", "t2r", "--out", str(out)]
    assert main(["run", "cut_dough", *other]) == 2
    assert "objective video" in capsys.readouterr().err and not out.exists()


def test_a_rigid_target_is_told_before_anything_is_made():
    """It is the tool itself, which meets dough that is only there."""
    task = load_task("cut_dough")
    objects = [o.model_copy(update={"roles": ["actuator", "target"] if o.is_rigid else []})
               for o in task.objects]  # fmt: skip
    task = Task(task.folder, task.spec.model_copy(update={"objects": objects}), task.instruction)
    config = RunConfig(optimize=OptimizeConfig(start=DescentStart()))
    with pytest.raises(UserError, match="a target of particles"):
        ensure_possible(task, config)


# The smooth loss ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dough() -> SimpleNamespace:
    """What the smooth loss asks of a scene: dough of a few particles, and no simulation."""
    task = load_task("cut_dough")
    obj = task.targets[0]
    mesh = task.mesh(obj)
    points = np.random.default_rng(0).uniform(*mesh.bounds, (2000, 3))
    points = points[mesh.contains(points)]
    T = obj.T_world_object
    cloud = torch.as_tensor(points @ T[:3, :3].T + T[:3, 3], dtype=torch.float32)
    return SimpleNamespace(
        task=task, particle_objects=[obj], particle_sizes_m={obj.name: 0.008},
        particles=lambda name: cloud[:, None],
    )  # fmt: skip


def moments(scene, waypoints: np.ndarray, cloud: torch.Tensor) -> list[Moment]:
    """(K, 6) of the tool, and the target's particles (N, 3) at the last."""
    knife, target, found = scene.task.actuators[0].name, scene.task.targets[0].name, []
    for w in waypoints:
        half = np.linalg.norm(w[3:]) / 2
        q = np.r_[np.cos(half), np.sinc(half / np.pi) * w[3:] / 2]
        found.append(Moment(
            position={knife: torch.as_tensor(w[None, :3])},
            quaternion={knife: torch.as_tensor(q[None])}, velocity={},
            particles={target: cloud[:, None]}, particle_velocity={},
            error=torch.zeros(1, dtype=torch.bool),
        ))  # fmt: skip
    return found


def shown(task: Task, waypoints: np.ndarray, cloud: np.ndarray) -> Supervision:
    """A video in which the tool is at these places, and the target ends as this cloud."""
    camera, tool = task.camera.resized(160, 120), task.actuators[0]
    mesh = task.mesh(tool)
    drawn = DrawMesh(
        vertices_m=np.asarray(mesh.vertices, float), faces=np.asarray(mesh.faces, np.int32),
        anchor_m=np.zeros(3),
    )  # fmt: skip
    masks = np.isfinite(draw_depth(drawn, np.stack([matrix_np(w) for w in waypoints]), camera))
    K, shape = len(waypoints), masks.shape[1:]
    target = np.zeros(shape, bool)
    uv, _ = camera.project(cloud)
    u, v = np.round(uv[:, 0]).astype(int), np.round(uv[:, 1]).astype(int)
    inside = (u >= 1) & (u < shape[1] - 1) & (v >= 1) & (v < shape[0] - 1)
    for du in (-1, 0, 1):
        for dv in (-1, 0, 1):
            target[v[inside] + dv, u[inside] + du] = True
    cloud = cloud.astype(np.float32)
    return Supervision(
        camera=camera, actuators=(tool.name,), targets=(task.targets[0].name,), contact_pairs=(),
        keyframes=np.arange(K), waypoints=waypoints[:, None].astype(np.float32),
        waypoint_confidence=np.ones((K, 1), np.float32), held=np.ones((K, 1), bool),
        actuator_masks=masks[:, None], target_masks=np.tile(target, (K, 1, 1)),
        valid=np.ones(masks.shape, bool), actuator_clouds=cloud[None], target_cloud=cloud,
        contact=np.zeros((K, 0), bool), around_pairs=(), around=np.zeros(0, bool),
        affordance=Affordance.none(K, 1), part_masks=target[None], part_clouds=cloud[None],
        part_valid=np.ones(shape, bool),
    )  # fmt: skip


def test_the_smooth_loss_agrees_with_its_own_differences(dough):
    task = dough.task
    start = pose_np(task.actuators[0].T_world_object)
    waypoints = start + np.array([[0, 0, 0.05, 0, 0, 0], [0.02, 0.01, 0.08, 0.1, 0, 0.1]])
    cloud = dough.particles("")[:, 0].double()
    wanted = shown(task, waypoints, cloud.numpy()[::3] + np.array([0.02, 0.0, 0.0]))
    smooth = SmoothLoss(dough, wanted, LossWeights())
    off = waypoints + np.array([0.006, -0.004, 0.005, 0.03, -0.05, 0.04])
    found = smooth.slope(moments(dough, off, cloud), 0)
    assert found.value > smooth.slope(moments(dough, waypoints, cloud), 0).value > 0
    assert sorted(found.tool) == [0, 1] and sorted(found.particles) == [1]

    def value(shift: np.ndarray, moved: np.ndarray) -> float:
        posed = off.copy()
        for k in range(2):
            T = matrix_np([0, 0, 0, *shift[k, 3:]])[:3, :3] @ matrix_np(off[k])[:3, :3]
            posed[k, :3] += shift[k, :3]
            posed[k, 3:] = pose_np(np.block([[T, np.zeros((3, 1))], [np.zeros(3), 1]]))[3:]
        return smooth.slope(moments(dough, posed, cloud + torch.as_tensor(moved)), 0).value

    def differences(count: int, size: np.ndarray, ways) -> np.ndarray:
        return np.array([
            (value(*ways(+s * e)) - value(*ways(-s * e))) / (2 * s)
            for e, s in zip(np.eye(count), size, strict=True)
        ])  # fmt: skip

    # Over a tenth of a pixel, for what is covered is decided in whole ones.
    still = np.zeros((len(cloud), 3))
    of_tool = differences(12, STEPS, lambda w: (w.reshape(2, 6), still))
    got = np.concatenate([found.tool[0], found.tool[1]])
    assert_alike(got * STEPS, of_tool * STEPS, 0.97)
    none = np.zeros((2, 6))
    of_cloud = differences(3, 4 * STEPS[:3], lambda w: (none, np.tile(w, (len(cloud), 1))))
    assert_alike(found.particles[1].sum(0), of_cloud, 0.94)


STEPS = np.tile([5e-4] * 3 + [5e-3] * 3, 2)
"""[m] and [rad] of differences."""


def assert_alike(got: np.ndarray, wanted: np.ndarray, least: float) -> None:
    cosine = got @ wanted / np.linalg.norm(got) / np.linalg.norm(wanted)
    assert cosine > least
    assert np.linalg.norm(got) == pytest.approx(np.linalg.norm(wanted), rel=0.25)


def test_of_a_target_that_the_video_never_shows_nothing_is_asked(dough):
    task = dough.task
    waypoints = pose_np(task.actuators[0].T_world_object)[None]
    cloud = dough.particles("")[:, 0].double()
    wanted = dataclasses.replace(
        shown(task, waypoints, cloud.numpy()), target_cloud=np.full((20, 3), np.nan, np.float32)
    )
    found = SmoothLoss(dough, wanted, LossWeights()).slope(moments(dough, waypoints, cloud), 0)
    assert found.particles == {} and found.value < 0.2
