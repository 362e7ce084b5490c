"""What a finished run left, as judges look at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.errors import UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video, read_video
from lucibot.record import task_of
from lucibot.sim.state import FinalState
from lucibot.store.finished import replays, stage_folder
from lucibot.store.run import RunDirectory
from lucibot.task import Task, load_task


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of one run's replay."""

    name: str
    """The run directory, as it was given."""
    run: RunDirectory
    task: Task
    seed: int
    replay: Path
    """The folder of the stage "execute"."""
    method: str = ""
    """What made it, where the caller knows."""

    @cached_property
    def state(self) -> FinalState:
        return FinalState.load(self.replay / "final_state.npz")

    @cached_property
    def last_frame(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, as the simulation is filmed."""
        return read_picture(self.replay / "goal.png")

    @cached_property
    def film(self) -> Video:
        return read_video(self.replay / "film.mp4")

    @cached_property
    def view(self) -> SceneView:
        """The scene at first."""
        return SceneView.load(stage_folder(self.run, "scene"))


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise UserError(f"{path} is no picture that can be read")
    return np.ascontiguousarray(picture[..., ::-1])


def read_outcome(
    run: str | Path, *, tasks: Mapping[str, Task] | None = None, method: str = ""
) -> Outcome:
    """How a run ended: its newest replay.

    Args:
        tasks: task folders that have been moved, loaded, by name.

    Raises:
        UserError: no run directory, its replay has not finished or is damaged, or its task folder is
            gone.
    """
    return read_every(run, tasks=tasks, method=method)[-1]


def read_every(
    run: str | Path, *, tasks: Mapping[str, Task] | None = None, method: str = ""
) -> list[Outcome]:
    """All replays that a run directory holds, the newest last.

    Args and Raises: as for `read_outcome`.
    """
    directory = RunDirectory.open(Path(run))
    moved = (tasks or {}).get(Path(directory.record["task"]).name)
    task, seed = moved or task_of(directory), directory.record["seed"]
    found = replays(directory)
    return [
        Outcome(
            name=str(run) if replay == found[-1] else f"{run} ({replay.name})", run=directory,
            task=task, seed=seed, replay=replay, method=method,
        )
        for replay in found
    ]  # fmt: skip


def moved_tasks(folders: list[str]) -> dict[str, Task]:
    """Task folders by name.

    Raises:
        UserError: one is none.
    """
    loaded = [load_task(f) for f in folders]
    return {t.name: t for t in loaded}
