"""The Python door: runs from a notebook or a script. `lucibot` itself gives these names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lucibot.config import RunConfig
from lucibot.core.errors import UserError
from lucibot.estimate import announce, estimate
from lucibot.options import preset as preset_named
from lucibot.options import read_seed, with_settings
from lucibot.pipeline import StageConsole, run_stages
from lucibot.preflight import settled_run, unsettled_run
from lucibot.providers.embedder import ColourEmbedder, EmbedderConfig
from lucibot.record import open_run, reconfigure, start_run
from lucibot.store.run import RunDirectory
from lucibot.task import Task, load_task


def run(
    task: str | Path | Task,
    *,
    video: str | Path | None = None,
    preset: str = "quick",
    seed: int = 0,
    out: str | Path = "runs",
    config: RunConfig | None = None,
    settings: Mapping[str, Any] | None = None,
    until: str | None = None,
    console: StageConsole | None = None,
) -> RunDirectory:
    """Take a task through every stage, as `lucibot run` does.

    Args:
        task: a shipped task's name, a task folder, or a loaded task.
        video: a video file or a video model's name.
        config: in place of the preset's.
        settings: changes to it, by their paths: {"optimize.search.population": 64}.
        until: the last stage to run.
        console: is told what happens; silent if absent.

    Returns:
        the run directory; its `result()` says what came out.

    Raises:
        UserError: bad input. RunFailed: a stage could not do its work; finished stages stay.
    """
    task = task if isinstance(task, Task) else load_task(task)
    config = settled_run(task, _with(config or preset_named(preset), settings, video))
    seed = read_seed(seed)
    directory = start_run(task, config, seed=seed, out=Path(out))
    if console is not None:
        announce(estimate(task, config, seed=seed, run=directory, until=until), console.say)
    run_stages(directory, task, config, seed=seed, console=console, until=until)
    return directory


def resume(
    run: str | Path | RunDirectory,
    *,
    task: str | Path | None = None,
    seed: int | None = None,
    video: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    again: str | None = None,
    until: str | None = None,
    console: StageConsole | None = None,
) -> RunDirectory:
    """Go on with a run, as `lucibot resume` does: what is finished and still fits is kept.

    Args:
        run: a run directory.
        task: where its task folder is now, if it has been moved.
        again: make this stage and all after it anew (`--from`).
        seed, video, settings, until, console: as for `run`; what is not given stays as it was.

    Raises:
        UserError: bad input. RunFailed: a stage could not do its work, or another process works on
            the run.
    """
    path = run.path if isinstance(run, RunDirectory) else Path(run)
    directory, loaded, config, before = open_run(path, task=task)
    config = settled_run(loaded, _with(unsettled_run(loaded, config), settings, video))
    seed = before if seed is None else read_seed(seed)
    say = (console or StageConsole()).say
    with directory.locked(), reconfigure(directory, loaded, config, seed, say=say):
        if console is not None:
            announce(estimate(loaded, config, seed=seed, run=directory, until=until), say)
        run_stages(directory, loaded, config, seed=seed, console=console, until=until, again=again)
    return directory


def embed(images: np.ndarray, embedder: EmbedderConfig | None = None) -> np.ndarray:
    """Pictures as vectors whose products say how alike they are, from -1 to 1.

    Args:
        images: (N, H, W, 3) uint8 RGB.
        embedder: of `lucibot.providers.embedder`; if not given, `ColourEmbedder`, which needs no
            weights.

    Returns:
        (N, D) float32 unit vectors.

    Raises:
        UserError: the images are of another shape or type; the embedder lacks what it needs.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise UserError(
            f"embed takes images (N, H, W, 3) of uint8, not {images.shape} of {images.dtype}"
        )
    return (embedder or ColourEmbedder()).create().embed(images)


def _with(
    config: RunConfig, settings: Mapping[str, Any] | None, video: str | Path | None
) -> RunConfig:
    given = {
        path.replace("_", "-"): "none" if value is None else str(value)
        for path, value in (settings or {}).items()
    }
    return with_settings(config, given | ({} if video is None else {"video": str(video)}))
