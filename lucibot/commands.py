"""What each command of the command line does."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lucibot.config import PRESETS, RunConfig
from lucibot.console import RichConsole
from lucibot.core.errors import UserError, unknown_name
from lucibot.pipeline import open_run, reconfigure, run_stages, start_run
from lucibot.providers.video import FileVideo, StoryboardVideo
from lucibot.store.run import RunDirectory
from lucibot.task import load_task


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Take a task through every stage: imagine, select, perceive, optimize, execute, report."""

    task: Annotated[str, tyro.conf.Positional]
    """A shipped task's name (`lucibot tasks list`) or a task folder."""
    video: str | None = None
    """A video file, or a video model: "storyboard"."""
    preset: str = "quick"
    """quick: for two CPU cores. paper: the paper's protocol, 5 generations of 128."""
    seed: int = 0
    """Seed of the imagination and the search."""
    out: Path = Path("runs")
    """Where the run directory is made."""
    force_video: int | None = None
    """Take this candidate whatever the verifier says."""
    cluster: str | None = None
    """Search on a Ray cluster: its address, or "auto"."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")] = RunConfig()


@dataclass(frozen=True, kw_only=True)
class ResumeArguments:
    """Go on with a run: finished stages are kept, damaged ones are run again."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    force_video: int | None = None
    """Take this candidate whatever the verifier says."""


@dataclass(frozen=True, kw_only=True)
class ShowArguments:
    """Print a run's result."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""


def run(argv: list[str]) -> int:
    """`lucibot run`."""
    preset = _peek(argv, "--preset", "quick")
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    default = RunArguments(task=tyro.MISSING, config=PRESETS[preset])
    a = tyro.cli(RunArguments, args=argv, default=default, prog="lucibot run")
    task = load_task(a.task)
    config = _force(a.config, a.force_video)
    if a.cluster is not None:
        optimize = dataclasses.replace(config.optimize, cluster=a.cluster)
        config = dataclasses.replace(config, optimize=optimize)
    if a.video == "storyboard":
        config = dataclasses.replace(config, video=StoryboardVideo())
    elif a.video is not None:
        if not Path(a.video).is_file():
            raise UserError(
                f"--video {a.video}: no such file, and not the name of a video model (storyboard)"
            )
        config = dataclasses.replace(config, video=FileVideo(path=Path(a.video).resolve()))
    directory = start_run(task, config, seed=a.seed, out=a.out)
    print(f"run directory: {directory.path}", file=sys.stderr)
    return _go(directory, task, config, a.seed)


def resume(argv: list[str]) -> int:
    """`lucibot resume`."""
    a = tyro.cli(ResumeArguments, args=argv, prog="lucibot resume")
    directory, task, config, seed = open_run(a.run)
    if a.force_video is not None:
        config = _force(config, a.force_video)
        reconfigure(directory, config)
    return _go(directory, task, config, seed)


def show(argv: list[str]) -> int:
    """`lucibot show`."""
    a = tyro.cli(ShowArguments, args=argv, prog="lucibot show")
    directory = RunDirectory.open(a.run)
    if not (directory.path / "result.json").is_file():
        raise UserError(f"{a.run} has no result yet; `lucibot resume {a.run}` goes on")
    _print_result(directory)
    return 0


def tasks(argv: list[str]) -> int:
    """`lucibot tasks list|check|new`."""
    from lucibot import authoring

    return authoring.command(argv)


def bench(argv: list[str]) -> int:
    """`lucibot bench`."""
    from lucibot.benchmark.command import command

    return command(argv)


def doctor(argv: list[str]) -> int:
    """`lucibot doctor`."""
    import argparse

    from lucibot.doctor import report

    argparse.ArgumentParser(
        prog="lucibot doctor", description="Say what works on this machine, one line each."
    ).parse_args(argv)
    return report()


def _go(directory: RunDirectory, task, config: RunConfig, seed: int) -> int:
    console = RichConsole()
    try:
        run_stages(directory, task, config, seed=seed, console=console)
    finally:
        console.close()
    return _print_result(directory)


def _print_result(directory: RunDirectory) -> int:
    result = json.loads((directory.path / "result.json").read_text())
    word = "success" if result["success"] else "no success"
    print(f"{result['task']}: {word} (score {result['score']:.2f}, loss {result['loss']:.4f}, "
          f"{result['rollouts']} rollouts, {sum(result['seconds'].values()):.0f} s)")  # fmt: skip
    print(f"report: {directory.path / 'report.html'}")
    print(f"result: {directory.path / 'result.json'}")
    return 0


def _force(config: RunConfig, force_video: int | None) -> RunConfig:
    if force_video is None:
        return config
    select = dataclasses.replace(config.select, force_video=force_video)
    return dataclasses.replace(config, select=select)


def _peek(argv: list[str], flag: str, default: str) -> str:
    """A flag's value before the real parser runs: the preset decides its defaults."""
    for i, word in enumerate(argv):
        if word == flag and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return default
