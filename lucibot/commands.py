"""What each command of the command line does."""

from __future__ import annotations

import errno
import functools
import sys
from pathlib import Path
from typing import Any

from lucibot.config import PRESETS, RunConfig
from lucibot.console import RichConsole
from lucibot.core.errors import RunFailed, UserError, resume_hint
from lucibot.core.stopping import goes_on
from lucibot.estimate import Estimate, announce, estimate
from lucibot.options import add_shorthands, preset, read_seed, with_preset, with_settings
from lucibot.pipeline import STAGES, ensure_stage, run_stages
from lucibot.preflight import ensure_models, ensure_possible, settled_run, unsettled_run
from lucibot.record import open_run, reconfigure, start_run
from lucibot.settings import Parser
from lucibot.store.finished import stages_finished
from lucibot.store.result import RESULT, read_result
from lucibot.store.run import RunDirectory
from lucibot.task import Task, load_task


def run(argv: list[str]) -> int:
    """`lucibot run`."""
    p = Parser(
        "lucibot run", "TASK [--SETTING VALUE ...]",
        "Take a task through every stage: imagine, select, perceive, optimize, execute, report.",
    )  # fmt: skip
    p.add_argument("task", metavar="TASK",
                   help="a shipped task's name (`lucibot tasks list`) or a task folder")  # fmt: skip
    _add_options(p)
    p.add_argument("--out", type=Path, metavar="DIR",
                   help="where the run directory is made (default: runs)")  # fmt: skip
    p.add_settings(RunConfig, PRESETS["quick"])
    options, given = p.parse(argv)
    task = load_task(options["task"])
    config = settled_run(task, with_settings(preset(options.get("preset", "quick")), given))
    seed = read_seed(options.get("seed", 0))
    ensure_stage(options.get("until"), config)
    if options.get("dry_run"):
        ensure_possible(task, config)
        return _say_estimate(estimate(task, config, seed=seed, until=options.get("until")), config)
    directory = start_run(task, config, seed=seed, out=options.get("out", Path("runs")))
    print(f"run directory: {directory.path}", file=sys.stderr)
    return _go(directory, task, config, seed, options)


def resume(argv: list[str]) -> int:
    """`lucibot resume`."""
    p = Parser(
        "lucibot resume", "RUN [--SETTING VALUE ...]",
        "Go on with a run: finished stages are kept, damaged ones are run again. Settings of `lucibot "
        "run` change it: what they touch is made anew, beside what there was. Defaults are the run's.",
    )  # fmt: skip
    p.add_argument("run", metavar="RUN", type=Path, help="the run directory")
    p.add_argument(
        "--task", metavar="FOLDER", help="where its task folder is, if it has been moved"
    )
    p.add_argument("--from", metavar="STAGE", help="make this stage and all after it anew")
    _add_options(p)
    p.add_settings(RunConfig)
    options, given = p.parse(argv)
    directory, task, config, seed = open_run(options["run"], task=options.get("task"))
    config = unsettled_run(task, config)
    if "preset" in options:
        config = with_preset(config, options["preset"])
    config = settled_run(task, with_settings(config, given))
    seed = read_seed(options.get("seed", seed))
    for name in ("from", "until"):
        ensure_stage(options.get(name), config)
    if options.get("dry_run"):
        ensure_possible(task, config)
        until = options.get("until")
        return _say_estimate(estimate(task, config, seed=seed, run=directory, until=until), config)
    say = functools.partial(print, file=sys.stderr)
    with directory.locked(), reconfigure(directory, task, config, seed, say=say):
        return _go(directory, task, config, seed, options)


def show(argv: list[str]) -> int:
    """`lucibot show`."""
    p = Parser("lucibot show", "RUN", "Print a run's result.")
    p.add_argument("run", metavar="RUN", type=Path, help="the run directory")
    options, _ = p.parse(argv)
    directory = RunDirectory.open(options["run"])
    _print_result(directory)
    return 0


def tasks(argv: list[str]) -> int:
    """`lucibot tasks list|check|new|goals|predicates`."""
    from lucibot import authoring

    return authoring.command(argv)


def twin(argv: list[str]) -> int:
    """`lucibot twin`."""
    from lucibot.twin.command import command

    return command(argv)


def export(argv: list[str]) -> int:
    """`lucibot export`."""
    from lucibot.export.command import command

    return command(argv)


def robot(argv: list[str]) -> int:
    """`lucibot robot`."""
    from lucibot.planning import command

    return command(argv)


def bench(argv: list[str]) -> int:
    """`lucibot bench`."""
    from lucibot.benchmark.command import command

    return command(argv)


def doctor(argv: list[str]) -> int:
    """`lucibot doctor`."""
    from lucibot.doctor import report

    Parser("lucibot doctor", "", "Say what works on this machine, one line each.").parse(argv)
    return report()


def _add_options(p: Parser) -> None:
    p.add_argument("--preset", metavar="|".join(PRESETS),
                   help="quick: for two CPU cores; paper: the paper's protocol, 5 generations of 128")  # fmt: skip
    p.add_argument("--seed", metavar="INT", help="of the imagination and the search (default: 0)")
    p.add_argument("--until", metavar="STAGE",
                   help=f"the last stage to run: {', '.join(s.name for s in STAGES)}")  # fmt: skip
    p.add_argument("--dry-run", action="store_true",
                   help="say what would be asked of others and what it may cost, and stop")  # fmt: skip
    add_shorthands(p)


def _go(
    directory: RunDirectory, task: Task, config: RunConfig, seed: int, options: dict[str, Any]
) -> int:
    """Run the stages and say what came out; what is going to be paid is said first."""
    console = RichConsole()
    announce(
        estimate(task, config, seed=seed, run=directory, until=options.get("until")), console.say
    )
    try:
        with goes_on(f"{resume_hint(directory.path)} goes on from the last checkpoint"):
            run_stages(
                directory, task, config, seed=seed, console=console, until=options.get("until"),
                again=options.get("from"),
            )  # fmt: skip
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        kept = ", ".join(stages_finished(directory)) or "no stage"
        raise RunFailed(
            f"{e.strerror}{f' ({e.filename})' if e.filename else ''}; {kept} had finished. Make room "
            f"or give the right to write, then {resume_hint(directory.path)}"
        ) from e
    finally:
        console.close()
    if options.get("until", STAGES[-1].name) != STAGES[-1].name:
        print(f"stopped after {options['until']}; {resume_hint(directory.path)} goes on")
        return 0
    _print_result(directory)
    robot = read_result(directory.path).robot
    if robot is not None and robot["failed"] is not None:
        raise RunFailed(f"the arm could not do it ({robot['failed']}): {robot['why']}")
    return 0


def _say_estimate(found: Estimate, config: RunConfig) -> int:
    """What a run would ask for, and what it would be refused for as things are."""
    print("\n".join(found.lines()))
    try:
        ensure_models(config)
    except UserError as e:
        print(f"it cannot begin yet: {e}")
    return 0


def _print_result(directory: RunDirectory) -> None:
    result = read_result(directory.path)
    before = ""
    if result.taken_over:
        before = f" and {result.taken_over_seconds:.0f} s taken over from earlier runs"
    loss = "the replay diverged" if result.loss is None else f"loss {result.loss:.4f}"
    print(f"{result.task}: {result.verdict}, {loss}, {result.rollouts} rollouts, "
          f"{result.own_seconds:.0f} s{before}")  # fmt: skip
    if (robot := result.robot) is not None:
        t = robot["tracking"]
        off = f", {t['mean_mm']:.1f} mm off on the way (at most {t['most_mm']:.1f})" if t else ""
        outcome = "success" if robot["success"] else f"no success ({result.failed_at})"
        print(f"with the arm {robot['arm']}: {outcome}{off}")
    if result.cost_usd:
        print(f"cost: {result.cost_usd:.2f} USD")
    print(f"report: {directory.path / 'report.html'}")
    print(f"result: {directory.path / RESULT}")
