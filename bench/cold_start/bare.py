"""Genesis alone, as its own examples use it: build a task's scene and step through one rollout."""

import sys

from lucibot.sim.scene import SimScene
from lucibot.task import load_task


def main(name: str, environments: int, steps: int, device: str) -> None:
    scene = SimScene(load_task(name), n_envs=environments, device=device, own_kernels=False)
    for _ in range(steps):
        scene.step()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
