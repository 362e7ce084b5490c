"""One scene for many episodes: rolled out together where each begins elsewhere, filmed one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lucibot.core.camera import Camera
from lucibot.core.errors import RunFailed
from lucibot.core.progress import Progress, silent
from lucibot.objective.config import Scored
from lucibot.objective.evaluation import Evaluation
from lucibot.objective.supervision import Supervision
from lucibot.sim.process import SimProcess
from lucibot.sim.state import FinalState
from lucibot.store.rollout import Rollout
from lucibot.task import LightSpec, Task


@dataclass(frozen=True, kw_only=True)
class Rolled:
    """What one environment did."""

    state: FinalState
    rollout: Rollout
    failed: bool
    """It diverged."""


class Studio:
    """A scene in a process of its own, building in the background from now on; it ends with the context.

    Args:
        task: of all of its environments, but for where things begin in each.
        camera: of the size and the angle of view that all films have.
    """

    def __init__(self, task: Task, *, camera: Camera, n_envs: int):
        self.n_envs, self._built = n_envs, False
        self._process = SimProcess(_studio, task, camera, n_envs)

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, kind, *_) -> None:
        self._process.close(at_once=kind is not None)

    def roll(
        self, tasks: Sequence[Task], waypoints: np.ndarray, supervision: Supervision, stride: int
    ) -> list[Rolled]:  # fmt: skip
        """Roll out (B, K, A, 6) waypoints, each where its task has things begin.

        Args:
            supervision: of the first, for who holds what when, and where deformables are grasped.
            stride: particles are kept every so many steps.
        """
        return self._ask("roll", tuple(tasks), waypoints, supervision, stride)

    def evaluate(
        self, task: Task, supervision: Supervision, objective: Scored, waypoints: np.ndarray
    ) -> Evaluation:
        """Losses of (P, K, A, 6) waypoints, all where one task has things begin."""
        return self._ask("evaluate", task, supervision, objective, waypoints)

    def film(
        self, rollout: Rollout, steps: Sequence[int], camera: Camera, light: LightSpec
    ) -> np.ndarray:
        """(T, H, W, 3) uint8 of a rollout after each of `steps`, at which its particles were kept."""
        return self._ask("film", rollout, tuple(steps), camera, light)

    def wait(self, progress: Progress = silent) -> None:
        """Until it is built."""
        if not self._built:
            progress("building the scene")
            self._receive()
            self._built = True

    def _ask(self, *message: Any) -> Any:
        self.wait()
        self._process.send(message)
        return self._receive()

    def _receive(self) -> Any:
        answer = self._process.receive()
        if answer is None:
            raise RunFailed(
                f"the simulation died (exit code {self._process.exit_code}); too little memory is the "
                "usual reason"
            )
        return answer


def _studio(task: Task, camera: Camera, n_envs: int):
    """In the process: takes what `Studio._ask` sends."""
    from lucibot.sim.scene import SimScene

    scene = SimScene(task, n_envs=n_envs, camera=camera)
    does = {"roll": _roll, "evaluate": _evaluate, "film": _film}

    def answer(message) -> Any:
        what, *arguments = message
        return does[what](scene, *arguments)

    return answer


def _roll(scene, tasks, waypoints, supervision, stride) -> list[Rolled]:
    import torch

    from lucibot.sim.grip import grasps, regrasps
    from lucibot.sim.record import RolloutRecorder
    from lucibot.sim.rollout import run_rollout
    from lucibot.sim.state import StateRecorder

    scene.stand(tasks)
    scene.reset()
    states = StateRecorder(scene)
    states.start()
    recorders = [RolloutRecorder(scene, stride, b) for b in range(scene.n_envs)]
    failed = torch.zeros(scene.n_envs, dtype=torch.bool, device=scene.device)

    def look(step: int) -> None:
        for r in recorders:
            r.look(step)

    def aim(aims) -> None:
        for r in recorders:
            r.aim(aims)

    def keyframe(_: int) -> None:
        nonlocal failed
        failed = failed | scene.diverged()
        states.look()

    look(0)
    run_rollout(
        scene, torch.from_numpy(np.asarray(waypoints, np.float32)), supervision.held,
        grasps=grasps(tasks[0], supervision), regrasps=regrasps(tasks[0], supervision),
        on_keyframe=keyframe, on_step=look, on_aim=aim,
    )  # fmt: skip
    keyframe(-1)
    return [
        Rolled(state=s, rollout=r.rollout(), failed=bool(f))
        for s, r, f in zip(states.states(), recorders, failed, strict=True)
    ]


def _evaluate(scene, task, supervision, objective, waypoints) -> Evaluation:
    from lucibot.sim.evaluator import Evaluator

    scene.stand([task] * scene.n_envs)
    return Evaluator(scene, supervision, objective).evaluate(waypoints)


def _film(scene, rollout, steps, camera, light) -> np.ndarray:
    scene.look_through(camera, light)
    pictures = []
    for step in steps:
        scene.show(rollout, step)
        try:
            pictures.append(scene.film_frame())
        except RunFailed:  # No surface can be laid around the particles: the picture before stays.
            if not pictures:
                raise
            pictures.append(pictures[-1])
    return np.stack(pictures)
