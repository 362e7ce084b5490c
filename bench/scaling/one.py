"""One batch of rollouts of one size; prints what it took as JSON."""

import json
import sys
import time

import psutil

from lucibot.benchmark.workload import as_a_worker, candidates, supervision
from lucibot.objective.config import VideoObjective
from lucibot.sim.engine import start_genesis
from lucibot.sim.evaluator import Evaluator
from lucibot.sim.memory import environment_bytes
from lucibot.sim.scene import SimScene
from lucibot.task import Task, load_task


def main(name: str, environments: int, keyframes: int, particles: int, device: str) -> None:
    as_a_worker(device)
    task = load_task(name)
    if particles:
        task = with_particles(task, particles)
    start_genesis(device)
    before = allocated(device)
    scene = SimScene(task, n_envs=environments, device=device)
    evaluator = Evaluator(scene, supervision(scene, keyframes), VideoObjective())
    evaluator.evaluate(candidates(task, environments, keyframes))
    begin = time.perf_counter()
    evaluator.evaluate(candidates(task, environments, keyframes, seed=1))
    print(json.dumps({
        "seconds": time.perf_counter() - begin,
        "particles": sum(len(scene.particles(o.name)) for o in scene.particle_objects),
        "bytes": allocated(device) - before, "estimated": environment_bytes(task) * environments,
    }))  # fmt: skip


def with_particles(task: Task, count: int) -> Task:
    """The task with its targets made of about `count` particles; the grid stays as it is."""
    objects = []
    for o in task.objects:
        if not o.is_rigid:
            size = (task.mesh(o).volume / count) ** (1 / 3)
            material = o.material.model_copy(update={"particle_size_m": size})
            o = o.model_copy(update={"material": material})
        objects.append(o)
    spec = task.spec.model_copy(update={"objects": objects})
    return Task(task.folder, spec, task.instruction)


def allocated(device: str) -> int:
    """Bytes that this process holds, or that are taken on its GPU."""
    if device == "cpu":
        return psutil.Process().memory_info().rss
    import torch

    free, total = torch.cuda.mem_get_info()
    return total - free


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5])
