"""One trajectory in a simulation apart from the search's, filmed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lucibot.core.camera import Camera
from lucibot.core.errors import RunFailed
from lucibot.core.progress import Progress, silent
from lucibot.objective.config import Scored
from lucibot.objective.evaluation import Evaluation
from lucibot.objective.supervision import Supervision
from lucibot.sim.process import MAX_DEATHS, SimProcess
from lucibot.sim.state import FinalState
from lucibot.store.rollout import Rollout
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class Replayed:
    evaluation: Evaluation
    """Of a population of one."""
    state: FinalState
    rollout: Rollout
    pictures: dict[int, np.ndarray]
    """(H, W, 3) uint8 after so many simulation steps; 0 is the initial state."""
    undrawn: int
    """How many of the pictures could not be drawn and repeat the one before."""


class Replay:
    """A fresh simulation in a process of its own, building in the background from now on.

    Args:
        n_envs: as many as in the search where rigid bodies collide: only the same batch size gives
            the same bits. The others repeat the one trajectory.
    """

    def __init__(self, task: Task, *, camera: Camera, n_envs: int, device: str = "cpu"):
        self._arguments, self._built = (task, camera, n_envs, device), False
        self._process = SimProcess(_replayer, *self._arguments)
        self.n_envs, self.camera = n_envs, camera

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, kind, *_) -> None:
        self._process.close(at_once=kind is not None)

    @property
    def process_id(self) -> int:
        return self._process.pid

    def run(
        self, waypoints: np.ndarray, supervision: Supervision, objective: Scored,
        film_steps: list[int], particle_stride: int, progress: Progress = silent,
    ) -> Replayed:  # fmt: skip
        """Roll out (K, A, 6) waypoints and take a picture after each of `film_steps`. A process that
        dies is replaced.

        Args:
            particle_stride: `Replayed.rollout` holds particles every so many steps.

        Raises:
            RunFailed: it died again and again.
        """
        for _ in range(MAX_DEATHS + 1):
            if not self._built:
                progress("building a fresh simulation")
                self._built = self._process.receive() is not None
            if self._built:
                progress("replaying and filming")
                self._process.send((waypoints, supervision, objective, film_steps, particle_stride))
                answer = self._process.receive()
                if answer is not None:
                    return answer
            progress("the replaying simulation died; starting it again")
            died, self._built = self._process, False
            died.close()
            self._process = SimProcess(_replayer, *self._arguments)
        raise RunFailed(
            f"the replaying simulation died {MAX_DEATHS + 1} times (last exit code "
            f"{died.exit_code}); too little memory is the usual reason"
        )


def _replayer(task: Task, camera: Camera, n_envs: int, device: str):
    """In the process: takes what `Replay.run` sends."""
    from lucibot.sim.compiled import build_scene
    from lucibot.sim.evaluator import Evaluator
    from lucibot.sim.record import RolloutRecorder

    scene = build_scene(task, n_envs=n_envs, device=device, camera=camera)

    def answer(message) -> Replayed:
        waypoints, supervision, objective, film_steps, particle_stride = message
        wanted, pictures, undrawn = set(film_steps), {}, []

        recorder = RolloutRecorder(scene, particle_stride)

        def look(step: int) -> None:
            recorder.look(step)
            if step not in wanted:
                return
            try:
                pictures[step] = scene.film_frame()
            except RunFailed:
                undrawn.append(step)
                black = np.zeros((camera.height, camera.width, 3), np.uint8)
                pictures[step] = next(reversed(pictures.values()), black)

        evaluator = Evaluator(scene, supervision, objective)
        # The scene may be where the trajectory before has left it.
        scene.reset()
        look(0)
        result, states = evaluator.evaluate_with_states(
            waypoints[None], on_step=look, on_aim=recorder.aim
        )
        return Replayed(
            evaluation=result, state=states[0], rollout=recorder.rollout(), pictures=pictures,
            undrawn=len(undrawn),
        )  # fmt: skip

    return answer
