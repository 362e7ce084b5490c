"""Checks of a task folder: the cheap ones that `run` makes as well, and everything that a run will
need, tried on a small scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lucibot.checks import Check, checks, try_one
from lucibot.core.errors import UserError
from lucibot.core.folders import make_folder
from lucibot.core.progress import Progress, silent
from lucibot.task import Task, load_task
from lucibot.twin import is_twin

ENVIRONMENTS = 4
THUMBNAIL_WIDTH = 400


def check_task(
    name: str | Path,
    out_dir: Path,
    progress: Progress = silent,
    *,
    on_check: Callable[[Check], None] | None = None,
) -> list[Check]:
    """Check a task by name or folder; write a picture of it to `out_dir/<name>.png`.

    A task that cannot be loaded gives a single failed check; otherwise every check is made, whether
    or not an earlier one failed, but no simulation of what is not sound. `on_check` sees each as it
    is done.
    """
    done: list[Check] = []

    def add(check: Check) -> bool:
        done.append(check)
        if on_check:
            on_check(check)
        return check.passed

    loaded: list[Task] = []

    def schema() -> str:
        loaded.append(load_task(name))
        return f"task.toml and instruction.md are valid ({len(loaded[0].objects)} objects)"

    if not add(try_one("schema", schema)):
        return done
    task = loaded[0]
    for check in checks(task, progress=progress):
        add(check)
    if is_twin(task.folder):
        add(try_one("twin", lambda: _twin(task)))
    if all(c.passed for c in done):
        dear = {
            # The simulation comes first: it starts the runtime that the observer then shares.
            "simulation": lambda: _simulation(task, progress),
            "camera": lambda: _camera(task),
            "thumbnail": lambda: _thumbnail(task, Path(out_dir), progress),
        }
        for title, act in dear.items():
            progress(f"checking {title}")
            add(try_one(title, act))
    return done


def _twin(task: Task) -> str:
    """How well a twin fits its photo, and its overlay drawn again."""
    from lucibot.twin.look import GOOD, write_overlay

    overlaps, path = write_overlay(task)
    told = ", ".join(f"{name} {value:.3f}" for name, value in overlaps.items())
    if min(overlaps.values()) < GOOD:
        raise UserError(f"IoU {told}: below {GOOD:g}; look at {path}")
    return f"IoU {told}; {path}"


def _simulation(task: Task, progress: Progress) -> str:
    """A few environments in which every actuator is moved about a little, each differently."""
    import torch

    from lucibot.core.geometry import pose_np
    from lucibot.sim.rollout import run_rollout
    from lucibot.sim.scene import SimScene

    scene = SimScene(task, n_envs=ENVIRONMENTS, progress=progress)
    rest = np.stack([pose_np(o.T_world_object) for o in task.actuators])
    K, A = 2, len(rest)
    waypoints = np.tile(rest, (ENVIRONMENTS, K, 1, 1))
    rng = np.random.default_rng(0)
    waypoints[..., :3] += rng.normal(scale=0.004, size=(ENVIRONMENTS, K, A, 3))
    waypoints[..., 2] += 0.03
    steps = 0

    def count(_: int) -> None:
        nonlocal steps
        steps += 1

    held = np.ones((K, A), bool)
    run_rollout(scene, torch.as_tensor(waypoints, dtype=torch.float32), held, on_step=count)
    bad = scene.diverged().nonzero().flatten().tolist()
    if bad:
        raise UserError(f"environments {bad} of {ENVIRONMENTS} diverged within {steps} steps")
    return f"{ENVIRONMENTS} environments, {steps} steps, none diverged"


def _camera(task: Task) -> str:
    from lucibot.providers.renderer.surfaces import look_through, task_surfaces

    labels, _, _ = look_through(task_surfaces(task, foreground=True), task.camera)
    share = {o.name: float((labels == task.label(o.name)).mean()) for o in task.objects}
    for name, seen in share.items():
        if seen < 5e-4:
            raise UserError(f"{name} fills {100 * seen:.3f}% of the picture: too little to follow")
    return "sees " + ", ".join(f"{n} ({100 * s:.1f}%)" for n, s in share.items())


def _thumbnail(task: Task, out_dir: Path, progress: Progress) -> str:
    import cv2

    from lucibot.providers.renderer import MitsubaRenderer

    camera = task.spec.camera
    size = {"width": THUMBNAIL_WIDTH, "height": THUMBNAIL_WIDTH * camera.height // camera.width}
    spec = task.spec.model_copy(update={"camera": camera.model_copy(update=size)})
    small = Task(task.folder, spec, task.instruction)
    picture = MitsubaRenderer().create().render(small, foreground=True, progress=progress)
    path = make_folder(out_dir) / f"{task.name}.png"
    cv2.imwrite(str(path), picture[..., ::-1])
    return str(path)
