"""The stages in order, and the rule that runs, skips and resumes them.

    task folder -> scene -> prompt -> imagine -> select -> perceive -> optimize -> execute
                -> robot, where an arm is asked for -> report

Each stage reads upstream folders and writes its own. What was bought or took long outlives them:
candidate videos as they came in `20_imagine/candidates`, verdicts in `verdicts`, tracks and measured
depth in `kept`, answers and what was paid in `services`. `imagine` may do the work of `select` as well: where a budget lets it go on until
a video is usable, it asks the same judge, whose verdicts `select` then finds. Everything after `imagine` sees pixels only:
no later stage may read a task's storyboard, and only `report` uses the success predicates.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lucibot.config import RunConfig
from lucibot.core.errors import UserError, unknown_name
from lucibot.core.progress import Progress
from lucibot.core.video import sha256_of
from lucibot.providers.answerer import VlmAnswerer
from lucibot.services import Services
from lucibot.store.configs import agrees, settled
from lucibot.store.result import RESULT
from lucibot.store.run import RESULTS, RunDirectory, StageFolder, digest
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a stage is given."""

    task: Task
    config: Any
    seed: int
    folder: Path
    """Where the stage writes."""
    inputs: dict[str, Path]
    """Folders of the stages it reads. `unfinished` is given those that have finished."""
    run: RunDirectory
    progress: Progress
    note: Callable[[str], None]
    """Record a fallback or a finding in the manifest and the log."""
    services: Services
    """Who is asked over the network, if anyone is."""
    began: float = 0.0
    """When this command began to work on the run (`time.perf_counter`)."""
    ahead: Any = None
    """What the stage's `begin` has started, if it has one and the run came to it in time."""


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """Where a run ended before its last stage."""

    stage: str
    folder: Path
    """Of that stage: what it left there may tell why."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    number: int
    name: str
    version: int
    """Bump by hand when the stage's output changes for the same input."""
    needs: tuple[str, ...]
    config: str | None
    """The field of `RunConfig` that the stage reads."""
    reads: tuple[str, ...]
    """Parts of the task (`Task.digest_of`) that the stage reads: another part's change does not
    touch it."""
    seeded: bool = False
    asks: Callable[[RunConfig], tuple[str, ...]] = lambda config: ()
    """Later stages whose work it does as well with such a config: their version counts for it, and
    what they read of the task."""
    needs_too: Callable[[RunConfig], tuple[str, ...]] = lambda config: ()
    """Stages that it needs as well with such a config."""
    reads_too: Callable[[RunConfig], tuple[str, ...]] = lambda config: ()
    """Parts of the task that it reads with such a config."""
    asked_for: Callable[[RunConfig], bool] = lambda config: True
    """Whether there is anything for it to do with such a config."""
    keep: tuple[str, ...] = ()
    """Patterns of checkpoints that survive when the stage starts again."""
    last_words: bool = False
    """Run every time: it reads the whole run directory. Where the run ends before it, its module's
    `unfinished(context, stopped)` says what there is."""
    shared: bool = False
    """It rests on the task alone: what an earlier run beside this one has made is taken over."""
    begins_early: bool = False
    """Its module has `begin(task, config)`, a context manager over what is slow to start; it is
    entered in the background of the stages before."""

    def needs_with(self, config: RunConfig) -> tuple[str, ...]:
        """The stages that it needs with such a config."""
        return (*self.needs, *(n for n in self.needs_too(config) if n not in self.needs))

    def run(self, context: Context) -> None:
        import_module(f"lucibot.stages.{self.name}").run(context)

    def unfinished(self, context: Context, stopped: Stopped) -> None:
        import_module(f"lucibot.stages.{self.name}").unfinished(context, stopped)

    def begin(self, task: Task, config: RunConfig) -> AbstractContextManager:
        return import_module(f"lucibot.stages.{self.name}").begin(task, config)


STAGES: tuple[Stage, ...] = (
    Stage(number=10, name="scene", version=2, needs=(), config="scene", reads=("scene",),
          shared=True),
    Stage(number=15, name="prompt", version=1, needs=("scene",), config="prompt",
          reads=("scene", "roles", "hands", "instruction"), shared=True),
    Stage(number=20, name="imagine", version=5, needs=("scene", "prompt"), config="imagine",
          reads=("scene", "roles", "hands", "storyboard"), seeded=True,
          asks=lambda config: ("select",) if config.imagine.judge else ()),
    Stage(number=30, name="select", version=18, needs=("scene", "imagine"), config="select",
          reads=("scene", "roles", "hands", "goal", "instruction")),
    Stage(number=40, name="perceive", version=27, needs=("scene", "imagine", "select"),
          config="perceive", reads=("scene", "roles", "hands"),
          reads_too=lambda c: ("instruction",) if isinstance(c.perceive.answerer, VlmAnswerer) else ()),
    Stage(number=50, name="optimize", version=13, needs=("scene", "perceive"), config="optimize",
          reads=("scene", "roles", "simulation"), seeded=True, keep=("checkpoints", "judge"),
          begins_early=True, needs_too=lambda c: c.optimize.objective.READS,
          reads_too=lambda c: c.optimize.objective.READS_TASK),
    Stage(number=60, name="execute", version=9, needs=("perceive", "optimize"), config="execute",
          reads=("scene", "roles", "simulation"), begins_early=True,
          needs_too=lambda c: ("scene",) if c.optimize.objective.JUDGED else (),
          reads_too=lambda c: c.optimize.objective.READS_TASK),
    Stage(number=65, name="robot", version=4, needs=("perceive", "execute"), config="robot",
          reads=("scene", "roles", "simulation"), asked_for=lambda c: c.robot is not None),
    Stage(number=70, name="report", version=6, needs=("scene", "prompt", "imagine", "select",
          "perceive", "optimize", "execute", "robot"), config=None,
          reads=("scene", "roles", "instruction", "simulation", "success", "title"),
          last_words=True),
)  # fmt: skip


def stages_of(config: RunConfig) -> tuple[Stage, ...]:
    """Those that have something to do."""
    return tuple(s for s in STAGES if s.asked_for(config))


def version_of(name: str) -> int:
    return next(s.version for s in STAGES if s.name == name)


class StageConsole:
    """Where a run shows itself; the command line's console replaces it."""

    def start(self, stage: Stage) -> Progress:
        return lambda message, done=None: None

    def done(self, stage: Stage, seconds: float, skipped: bool) -> None: ...

    def say(self, message: str) -> None: ...


def run_stages(
    run: RunDirectory,
    task: Task,
    config: RunConfig,
    *,
    seed: int,
    console: StageConsole | None = None,
    until: str | None = None,
    again: str | None = None,
    ahead: dict[str, Any] | None = None,
    take_over: bool = False,
) -> None:
    """Run what is not finished, in order; skip what a valid manifest covers.

    Args:
        until: the last stage to run.
        again: make this stage and all after it anew, whatever there is of them.
        ahead: by stage, what `begin` has made; it is used and left open, so that several runs of
            one task can share it.
        take_over: let every stage, not those alone that rest on the task only, be taken over from
            a run beside this one.

    Raises:
        UserError: bad input; RunFailed: a stage could not do its work, or another process works on
            this run. Finished stages stay.
    """
    for name in (until, again):
        ensure_stage(name, config)
    with run.locked(), ExitStack() as background:
        _Walk(
            run=run, task=task, config=config, seed=seed, console=console or StageConsole(),
            until=until, again=again, take_over=take_over, background=background,
            begun=None if ahead is None else {n: nullcontext(a) for n, a in ahead.items()},
        ).go()  # fmt: skip


def kept_stages(run: RunDirectory, task: Task, config: RunConfig, *, seed: int) -> dict[str, Path]:
    """The folders of the stages that `run_stages` would keep; nothing is made or taken over."""
    walk = _Walk(
        run=run, task=task, config=config, seed=seed, console=StageConsole(), until=None,
        again=None, take_over=False, background=ExitStack(), begun={},
    )  # fmt: skip
    for stage in stages_of(config):
        folder = walk._folder(stage, make=False)
        if stage.last_words or not folder.finished() or folder.damaged():
            break
        if not walk._made_with(stage, folder):
            break
        walk.folders[stage.name] = folder
    return {name: folder.path for name, folder in walk.folders.items()}


def ensure_stage(name: str | None, config: RunConfig) -> None:
    """
    Raises:
        UserError: there is no such stage, or nothing for it to do with such a config.
    """
    if name is None:
        return
    names = [s.name for s in STAGES]
    if name not in names:
        raise unknown_name("stage", name, names)
    if name not in [s.name for s in stages_of(config)]:
        raise UserError(f"there is no arm in this run for the stage {name!r}: --robot NAME")


@dataclass(kw_only=True)
class _Walk:
    """One command's way through the stages."""

    run: RunDirectory
    task: Task
    config: RunConfig
    seed: int
    console: StageConsole
    until: str | None
    again: str | None
    take_over: bool
    background: ExitStack
    """Holds what has been begun early."""
    begun: dict[str, AbstractContextManager] | None
    folders: dict[str, StageFolder] = dataclasses.field(default_factory=dict)
    """Of the stages that have finished."""
    began: float = dataclasses.field(default_factory=time.perf_counter)

    def go(self) -> None:
        anew = False
        for stage in stages_of(self.config):
            anew = anew or stage.name == self.again
            folder = self._folder(stage)
            if not stage.last_words and not anew and self._kept(stage, folder):
                folder.event("kept")
                self.console.done(stage, folder.manifest()["seconds"], skipped=True)
            else:
                self._forget_result()
                outdated = anew or self._outdated(stage, folder)
                folder.clear(keep=() if outdated else stage.keep)
                if self.begun is None:
                    self.begun = self._begin_later_stages(stage)
                self._run(stage, folder)
            self.folders[stage.name] = folder
            if stage.name == self.until:
                if not (self.run.path / RESULT).exists():
                    self._last_words(stage, folder, "It was to go no further (--until).")
                return

    def _folder(self, stage: Stage, *, make: bool = True) -> StageFolder:
        inputs = self._inputs(stage)
        asked = [s for s in STAGES if s.name in stage.asks(self.config)]
        reads = {
            *stage.reads,
            *stage.reads_too(self.config),
            *(part for s in asked for part in s.reads),
        }
        fingerprint = digest(
            [stage.name, stage.version, *(s.version for s in asked), self._settled(stage), inputs,
             self.task.digest_of(*reads), self.seed if stage.seeded else None]
        )  # fmt: skip
        return self.run.stage(stage.number, stage.name, fingerprint, make=make)

    def _inputs(self, stage: Stage) -> dict[str, str]:
        """Digests of the stages that it reads, but for those that had nothing to do."""
        there = {s.name for s in stages_of(self.config)}
        needed = stage.needs_with(self.config)
        return {n: self.folders[n].digest() for n in needed if n in there}

    def _settled(self, stage: Stage, *, defaults: bool = False) -> Any:
        config = getattr(self.config, stage.config) if stage.config else None
        return settled(config, self._content, defaults=defaults)

    def _content(self, path: Path) -> str:
        """The digest of a file or folder that the config names; one that is gone had the one recorded."""
        if path.exists():
            return sha256_of(path)
        recorded = self.run.record.get("files", {}).get(str(path))
        if recorded is None:
            raise UserError(f"no such file: {path}")
        return recorded

    def _kept(self, stage: Stage, folder: StageFolder) -> bool:
        """Whether the stage's folder can be trusted, or another run's, which is then taken over."""
        if folder.finished():
            damaged = folder.damaged()
            if not damaged and self._made_with(stage, folder):
                return True
            why = f"{damaged[0]} is damaged" if damaged else "defaults have changed since"
            self.console.say(f"{stage.name}: {why}; the stage is run again")
        return (
            (stage.shared or self.take_over)
            and self.run.take_over(folder)
            and self._made_with(stage, folder)
        )

    def _made_with(self, stage: Stage, folder: StageFolder) -> bool:
        """Whether what is a default now was one then: defaults are not in the fingerprint."""
        config = getattr(self.config, stage.config) if stage.config else None
        return agrees(folder.manifest().get("config"), config, self._content)

    def _outdated(self, stage: Stage, folder: StageFolder) -> bool:
        """Whether it is known that what is there was made under other defaults, its checkpoints too."""
        told = "config" in (folder.manifest() or {})
        return told and not self._made_with(stage, folder)

    def _forget_result(self) -> None:
        """What lies at the top is of the last command, and this one makes it anew."""
        for name in RESULTS:
            (self.run.path / name).unlink(missing_ok=True)

    def _begin_later_stages(self, first: Stage) -> dict[str, AbstractContextManager]:
        """Start what later stages will need, up to `until`, while `first` and its followers work."""
        last = next((s.number for s in STAGES if s.name == self.until), STAGES[-1].number)
        return {
            s.name: self.background.enter_context(s.begin(self.task, self.config))
            for s in STAGES
            if s.begins_early and first.number < s.number <= last
        }

    def _context(self, stage: Stage, folder: StageFolder, ahead: Any = None) -> Context:
        return Context(
            task=self.task, config=getattr(self.config, stage.config) if stage.config else None,
            seed=self.seed, folder=folder.path, run=self.run, progress=self.console.start(stage),
            inputs={n: self.folders[n].path for n in stage.needs_with(self.config) if n in self.folders},
            note=lambda message: None, ahead=ahead, began=self.began,
            services=Services(self.run.path / "services", self.config.services),
        )  # fmt: skip

    def _run(self, stage: Stage, folder: StageFolder) -> None:
        notes: list[str] = []

        def note(message: str) -> None:
            notes.append(message)
            folder.event(message, kind="note")
            self.console.say(f"{stage.name}: {message}")

        folder.event("start", stage=stage.name)
        begin = time.perf_counter()
        try:
            # What was begun ends with its stage, while later ones work.
            with self.begun.get(stage.name, nullcontext()) as ahead:
                stage.run(dataclasses.replace(self._context(stage, folder, ahead), note=note))
        except Exception as e:
            folder.event(
                "failed", error=f"{type(e).__name__}: {e}", traceback=traceback.format_exc()
            )
            self._last_words(stage, folder, str(e).strip() or repr(e))
            raise
        seconds = time.perf_counter() - begin
        folder.finish(
            config=self._settled(stage, defaults=True),
            inputs=self._inputs(stage), seconds=seconds, notes=notes,
        )  # fmt: skip
        folder.event("done", seconds=round(seconds, 3))
        self.console.done(stage, seconds, skipped=False)

    def _last_words(self, stage: Stage, folder: StageFolder, reason: str) -> None:
        """Let the last stage say what there is of a run that ends at `stage`."""
        last = STAGES[-1]
        if not last.last_words or stage is last:
            return
        stopped = Stopped(stage=stage.name, folder=folder.path, reason=reason)
        try:
            last.unfinished(self._context(last, folder), stopped)
        except Exception as e:
            # The reason why the run ended must not be lost to that of a picture that failed.
            self.console.say(f"no report could be written of it: {type(e).__name__}: {e}")
