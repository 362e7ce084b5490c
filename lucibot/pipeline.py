"""The stages in order, and the rule that runs, skips and resumes them.

    task folder -> scene -> imagine -> select -> perceive -> optimize -> execute -> report

Each stage reads upstream folders and writes its own. Everything after `imagine` sees pixels only:
no later stage may read a task's storyboard, and only `report` uses the success predicates.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lucibot.config import RunConfig
from lucibot.core.errors import LuciBotError, UserError
from lucibot.core.progress import Progress
from lucibot.store.configs import from_dict, to_dict
from lucibot.store.run import RunDirectory, StageFolder, digest, write_json
from lucibot.task import Task, load_task


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a stage is given."""

    task: Task
    config: Any
    seed: int
    folder: Path
    """Where the stage writes."""
    inputs: dict[str, Path]
    """Folders of the stages it reads."""
    run: RunDirectory
    progress: Progress
    note: Callable[[str], None]
    """Record a fallback or a finding in the manifest and the log."""
    ahead: Any = None
    """What the stage's `begin` has started, if it has one and the run came to it in time."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    number: int
    name: str
    version: int
    """Bump by hand when the stage's output changes for the same input."""
    needs: tuple[str, ...]
    config: str | None
    """The field of `RunConfig` that the stage reads."""
    seeded: bool = False
    keep: tuple[str, ...] = ()
    """Patterns of checkpoints that survive when the stage starts again."""
    last_words: bool = False
    """Run every time: it reads the whole run directory."""
    shared: bool = False
    """It rests on the task alone: what an earlier run beside this one has made is taken over."""
    begins_early: bool = False
    """Its module has `begin(task, config)`, a context manager over what is slow to start; it is
    entered in the background of the stages before."""

    def run(self, context: Context) -> None:
        import_module(f"lucibot.stages.{self.name}").run(context)

    def begin(self, task: Task, config: RunConfig) -> AbstractContextManager:
        return import_module(f"lucibot.stages.{self.name}").begin(task, config)


STAGES: tuple[Stage, ...] = (
    Stage(number=10, name="scene", version=1, needs=(), config="scene", shared=True),
    Stage(number=20, name="imagine", version=2, needs=("scene",), config="video", seeded=True),
    Stage(number=30, name="select", version=5, needs=("scene", "imagine"), config="select"),
    Stage(number=40, name="perceive", version=10, needs=("scene", "imagine", "select"),
          config="perceive"),
    Stage(number=50, name="optimize", version=4, needs=("scene", "perceive"), config="optimize",
          seeded=True, keep=("checkpoints",), begins_early=True),
    Stage(number=60, name="execute", version=4, needs=("perceive", "optimize"), config="execute",
          begins_early=True),
    Stage(number=70, name="report", version=1, needs=("scene", "imagine", "select", "perceive",
          "optimize", "execute"), config=None, last_words=True),
)  # fmt: skip


class StageConsole:
    """Where a run shows itself; the command line's console replaces it."""

    def start(self, stage: Stage) -> Progress:
        return lambda message, done=None: None

    def done(self, stage: Stage, seconds: float, skipped: bool) -> None: ...

    def say(self, message: str) -> None: ...


def start_run(task: Task, config: RunConfig, *, seed: int, out: Path) -> RunDirectory:
    """Make the run directory of a new run."""
    record = {
        "task": str(task.folder), "task_digest": task.digest, "instruction": task.instruction,
        "seed": seed, "config": to_dict(config),
    }  # fmt: skip
    return RunDirectory.create(out, task.name, record)


def open_run(path: Path) -> tuple[RunDirectory, Task, RunConfig, int]:
    """Open a run to resume it.

    Raises:
        UserError: no run directory, or its task folder is gone.
    """
    run = RunDirectory.open(path)
    record = run.record
    return run, load_task(record["task"]), from_dict(RunConfig, record["config"]), record["seed"]


def reconfigure(run: RunDirectory, config: RunConfig) -> None:
    """Record a changed config: stages that it touches get sibling folders."""
    write_json(run.path / "run.json", {**run.record, "config": to_dict(config)})


def run_stages(
    run: RunDirectory,
    task: Task,
    config: RunConfig,
    *,
    seed: int,
    console: StageConsole | None = None,
    until: str | None = None,
    ahead: dict[str, Any] | None = None,
    take_over: bool = False,
) -> None:
    """Run what is not finished, in order; skip what a valid manifest covers.

    Args:
        ahead: by stage, what `begin` has made; it is used and left open, so that several runs of
            one task can share it.
        take_over: let every stage, not those alone that rest on the task only, be taken over from
            a run beside this one.

    Raises:
        UserError: bad input; RunFailed: a stage could not do its work. Finished stages stay.
    """
    with ExitStack() as background:
        begun = None if ahead is None else {n: nullcontext(a) for n, a in ahead.items()}
        _run_stages(run, task, config, seed, console or StageConsole(), until, begun, background,
                    take_over)  # fmt: skip


def _run_stages(run, task, config, seed, console, until, begun, background: ExitStack,
                take_over: bool) -> None:  # fmt: skip
    folders: dict[str, StageFolder] = {}
    for stage in STAGES:
        stage_config = getattr(config, stage.config) if stage.config else None
        inputs = {n: folders[n].digest() for n in stage.needs}
        fingerprint = digest(
            [stage.name, stage.version, to_dict(stage_config), inputs, task.digest,
             _storyboard_digest(task, stage), seed if stage.seeded else None]
        )  # fmt: skip
        folder = run.stage(stage.number, stage.name, fingerprint)
        damaged = folder.damaged()
        if damaged:
            console.say(f"{stage.name}: {damaged[0]} is damaged; the stage is run again")
        kept = (folder.finished() and not damaged) or (
            (stage.shared or take_over) and not stage.last_words and run.take_over(folder)
        )
        if kept and not stage.last_words:
            console.done(stage, folder.manifest()["seconds"], skipped=True)
        else:
            folder.clear(keep=stage.keep)
            if begun is None:
                begun = _begin_later_stages(stage, task, config, until, background)
            # What was begun ends with its stage, while later ones work.
            with begun.get(stage.name, nullcontext()) as ahead:
                _run_one(
                    stage, folder, inputs, folders, run, task, stage_config, seed, console, ahead
                )
        folders[stage.name] = folder
        if stage.name == until:
            return


def _begin_later_stages(
    first: Stage, task: Task, config: RunConfig, until, background: ExitStack
) -> dict[str, AbstractContextManager]:
    """Start what later stages will need, up to `until`, while `first` and its followers work."""
    last = next((s.number for s in STAGES if s.name == until), STAGES[-1].number)
    return {
        s.name: background.enter_context(s.begin(task, config))
        for s in STAGES
        if s.begins_early and first.number < s.number <= last
    }


def _run_one(stage, folder, inputs, folders, run, task, config, seed, console, ahead) -> None:
    notes: list[str] = []

    def note(message: str) -> None:
        notes.append(message)
        folder.event(message, kind="note")
        console.say(f"{stage.name}: {message}")

    progress = console.start(stage)
    folder.event("start", stage=stage.name)
    begin = time.perf_counter()
    context = Context(
        task=task, config=config, seed=seed, folder=folder.path, run=run, progress=progress,
        inputs={n: folders[n].path for n in stage.needs}, note=note, ahead=ahead,
    )  # fmt: skip
    try:
        stage.run(context)
    except LuciBotError as e:
        folder.event("failed", error=str(e))
        raise
    seconds = time.perf_counter() - begin
    folder.finish(inputs=inputs, seconds=seconds, notes=notes)
    folder.event("done", seconds=round(seconds, 3))
    console.done(stage, seconds, skipped=False)


def _storyboard_digest(task: Task, stage: Stage) -> str | None:
    """Only `imagine` rests on the storyboard, and only where there is one."""
    path = task.folder / "storyboard.toml"
    if stage.name != "imagine" or not path.is_file():
        return None
    return digest(path.read_text())


def stage_folder(run: RunDirectory, name: str) -> Path:
    """The newest finished folder of a stage.

    Raises:
        UserError: the stage has not finished.
    """
    done = _finished_folders(run, name)
    if not done:
        raise UserError(f"{run.path}: stage {name!r} has not finished; `lucibot resume {run.path}`")
    return max(done, key=lambda f: f.manifest_path.stat().st_mtime).path


def made_from(run: RunDirectory, folder: Path, name: str) -> Path:
    """The folder of stage `name` whose artefacts a finished stage folder was made from.

    Raises:
        UserError: they are no longer there.
    """
    wanted = StageFolder(folder, folder.name).manifest()["inputs"][name]
    for made in _finished_folders(run, name):
        if made.digest() == wanted:
            return made.path
    raise UserError(f"{folder} was made from another {name!r} stage; `lucibot resume {run.path}`")


def _finished_folders(run: RunDirectory, name: str) -> list[StageFolder]:
    stage = next(s for s in STAGES if s.name == name)
    root = run.path / f"{stage.number:02d}_{name}"
    folders = [StageFolder(p, p.name) for p in sorted(root.glob("*")) if p.is_dir()]
    return [f for f in folders if f.finished()]
