"""What a search asks of the evaluator, without a video: real scene, real sizes, made-up goals."""

from __future__ import annotations

import numpy as np
import torch
from lucibot_kernels import even_ranks

from lucibot.core.geometry import pose_np
from lucibot.objective.supervision import Affordance, Supervision
from lucibot.optimize.clearance import Clearance
from lucibot.optimize.parametrization import Parametrization
from lucibot.sim.observer import SceneObserver
from lucibot.sim.scene import SimScene
from lucibot.task import Task

WIDTH = 320
"""Of the observation [pixels], as in a run."""
KEYFRAMES = 11
CLOUD_POINTS = 1024
RAISED_M = 0.10


def as_a_worker(device: str) -> None:
    """Let torch use one thread on a CPU, as it does in the processes that roll out."""
    if device == "cpu":
        torch.set_num_threads(1)


def waypoints(task: Task, keyframes: int = KEYFRAMES) -> np.ndarray:
    """(K, A, 6) float32: every actuator is taken up, goes over the target's middle and down onto it,
    and comes back; what hangs on a joint goes through its range."""
    out = np.empty((keyframes, len(task.actuators), 6), np.float32)
    target = task.targets[0]
    goal = target.T_world_object[:3, 3]
    for a, o in enumerate(task.actuators):
        if o.articulation is not None:
            values = np.linspace(o.articulation.lower, o.articulation.upper, keyframes + 1)[1:]
            out[:, a] = pose_np(o.articulation.poses(values))
            continue
        home = pose_np(o.T_world_object)
        over = home.copy()
        over[:2] = goal[:2] if o is not target else home[:2]
        stations = np.array([home, home, over, over, over, home, home])
        stations[1:6, 2] += np.array([1.0, 1.0, 0.2, 1.0, 1.0]) * RAISED_M
        at = np.linspace(0, len(stations) - 1, keyframes + 1)[1:]
        low = np.minimum(at.astype(int), len(stations) - 2)
        share = (at - low)[:, None]
        out[:, a] = stations[low] * (1 - share) + stations[low + 1] * share
    return Clearance.of(task).repaired(out, np.ones(out.shape[:2], bool))


def candidates(
    task: Task, population: int, keyframes: int = KEYFRAMES, seed: int = 0
) -> np.ndarray:
    """(P, K, A, 6) float32: as a search samples them around `waypoints`, all different."""
    start = waypoints(task, keyframes)
    around = Parametrization(
        start=start, free=np.ones(start.shape[:2], bool), sigma_position_m=0.004,
        sigma_rotation_rad=np.deg2rad(3.0), correlation=0.64,
    )  # fmt: skip
    z = np.random.default_rng(seed).normal(size=(population, around.dimension))
    return Clearance.of(task).repaired(around.waypoints(z), around.free)


def supervision(scene: SimScene, keyframes: int = KEYFRAMES) -> Supervision:
    """What a video would say that shows every object where it stands at first."""
    task = scene.task
    height = round(task.camera.height * WIDTH / task.camera.width)
    camera = task.camera.resized(WIDTH, height)
    scene.reset()
    label, depth = SceneObserver(scene, camera).observe(scene.moment())
    label, depth = label[0].cpu().numpy(), depth[0].cpu().numpy().astype(float)
    actuators, targets = task.actuators, task.targets
    masks = {o.name: label == task.label(o.name) for o in task.objects}
    shown = camera.unproject(np.where(np.isfinite(depth), depth, 0))

    def cloud(name: str) -> np.ndarray:
        points = shown[masks[name] & np.isfinite(depth)]
        out = np.full((CLOUD_POINTS, 3), np.nan, np.float32)
        points = points[even_ranks(len(points), CLOUD_POINTS)]
        out[: len(points)] = points
        return out

    target = np.any([masks[o.name] for o in targets], axis=0)
    return Supervision(
        camera=camera, actuators=tuple(o.name for o in actuators),
        targets=tuple(o.name for o in targets),
        contact_pairs=((actuators[0].name, targets[-1].name),), keyframes=np.arange(keyframes),
        waypoints=waypoints(task, keyframes),
        waypoint_confidence=np.ones((keyframes, len(actuators)), np.float32),
        held=np.ones((keyframes, len(actuators)), bool),
        actuator_masks=np.stack([[masks[o.name] for o in actuators]] * keyframes),
        target_masks=np.stack([target] * keyframes),
        valid=np.ones((keyframes, *label.shape), bool),
        actuator_clouds=np.stack([cloud(o.name) for o in actuators]),
        target_cloud=cloud(targets[0].name), contact=np.ones((keyframes, 1), bool),
        around_pairs=(), around=np.zeros(0, bool),
        affordance=Affordance.none(keyframes, len(actuators)),
        part_masks=np.stack([masks[o.name] for o in targets]),
        part_clouds=np.stack([cloud(o.name) for o in targets]),
        part_valid=np.ones(label.shape, bool),
    )  # fmt: skip
