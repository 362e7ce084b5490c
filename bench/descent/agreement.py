"""How well gradients through a rollout agree with the simulator's own differences, keyframe by keyframe.

    python bench/descent/agreement.py cut_dough RUN

RUN is a finished run. About the waypoints that its search found, eight random directions in the search's
coordinates are rolled out both ways; of each keyframe the Chamfer distance of the target's particles to
the video's goal cloud is told along them by differences and by the gradient. Prints, for a step of 0.05
and one of 0.01 first step sizes, the cosine of the two, that of the differences with each other, and
what a rollout and a gradient cost [CPU s].
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from lucibot_kernels import gradients

from lucibot.objective.supervision import Supervision
from lucibot.optimize.parametrization import Parametrization
from lucibot.sim.compiled import build_scene
from lucibot.sim.gradient import RolloutGradient
from lucibot.task import load_task

DIRECTIONS = 8
STEPS = (0.05, 0.01)


def main(name: str, run: Path) -> None:
    torch.set_num_threads(1)
    task = load_task(name)
    supervision = Supervision.load(next(run.glob("40_perceive/*/supervision.npz")))
    found = np.load(next(run.glob("50_optimize/*/trajectory.npz")))["waypoints"].astype(float)
    scene = build_scene(task, n_envs=2 * DIRECTIONS)
    rollout = RolloutGradient(scene)
    space = Parametrization(
        start=found, free=supervision.held, sigma_position_m=0.004,
        sigma_rotation_rad=np.deg2rad(3.0), correlation=0.64,
    )  # fmt: skip
    cloud = supervision.target_cloud[np.isfinite(supervision.target_cloud).all(1)]
    cloud, target = torch.as_tensor(cloud).double(), task.targets[0].name
    sizes = [len(scene.particles(o.name)) for o in scene.particle_objects]
    first = sum(sizes[: [o.name for o in scene.particle_objects].index(target)])

    def losses(moment) -> torch.Tensor:
        x = moment.particles[target].transpose(0, 1).double().contiguous()
        return sum(gradients.chamfer(x, cloud))

    ways = np.random.default_rng(0).normal(size=(DIRECTIONS, space.dimension))
    differences = []
    for step in STEPS:
        begin = time.process_time()
        around = space.waypoints(step * np.concatenate([ways, -ways]))
        values = torch.stack([losses(m) for m in rollout.run(around, supervision.held)])
        seconds = (time.process_time() - begin) / (2 * DIRECTIONS)
        differences.append(((values[:, :DIRECTIONS] - values[:, DIRECTIONS:]) / (2 * step)).numpy())
    moments = rollout.run(
        space.waypoints(np.zeros((2 * DIRECTIONS, space.dimension))), supervision.held
    )
    for k, moment in enumerate(moments):
        x = moment.particles[target][:, 0].double()[None].contiguous().requires_grad_()
        sum(gradients.chamfer(x, cloud)).sum().backward()
        d = np.zeros((sum(sizes), 3))
        d[first : first + x.shape[1]] = x.grad[0].numpy()
        begin = time.process_time()
        back = rollout.back({k: d}, {})
        spent = time.process_time() - begin
        got = ways @ rollout.of_samples(
            back, space.waypoints, np.zeros(space.dimension), supervision.held
        )
        a, b = (x[k] for x in differences)
        print(
            f"polish.{name}.keyframe_{k} gradient_cos_0.05 {_cos(got, a):.3f} gradient_cos_0.01 "
            f"{_cos(got, b):.3f} differences_cos {_cos(a, b):.3f} sizes {_size(got):.2e} "
            f"{_size(a):.2e} {_size(b):.2e} rollout_s {seconds:.3f} back_s {spent:.3f}",
            flush=True,
        )


def _size(a: np.ndarray) -> float:
    return float(np.linalg.norm(a))


def _cos(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(_size(a) * _size(b), 1e-30))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
