"""One rollout, scored: what a simulation worker does from its start on."""

import sys

from lucibot.benchmark.workload import candidates, supervision
from lucibot.objective.config import VideoObjective
from lucibot.sim.compiled import build_scene
from lucibot.sim.evaluator import Evaluator
from lucibot.task import load_task


def main(name: str, environments: int, device: str) -> None:
    task = load_task(name)
    scene = build_scene(task, n_envs=environments, device=device)
    Evaluator(scene, supervision(scene), VideoObjective()).evaluate(candidates(task, environments))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
