"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from lucibot.core import stopping
from lucibot.core.caches import ensure_caches

HELP = """\
LuciBot: robot trajectories learned from generated videos

usage: lucibot COMMAND ...

  run TASK        take a task (a name or a folder) through every stage
  resume RUN      go on with a run directory where it stopped
  sweep TASK...   run tasks over seeds and presets, and list the results
  chain FILE      do several tasks in one scene, each where the last one ended
  show RUN        print a run's result and where its report is
  compare RUN...  lay films, losses, terms and settings of runs side by side, on a page
  runs [DIR]      list the runs below a folder
  view RUN        open a run in rerun's viewer, or write a file for it
  robot RUN       let an arm follow what a run has learned
  evaluate RUN... judge what runs left, by state, picture or a model
  export RUN...   write finished runs as a dataset or as trajectories
  drive FILE      hold an arm's exported trajectory against its limits, and play it at a controller's rate
  collect RUN     try a solved run's trajectory in varied scenes, and keep what succeeds
  paper           the paper's tables with our methods: run what is missing, and write them
  tasks           list, check or make task folders
  twin PHOTO      make a task folder from a photo of a real scene
  bench [NAME...] measure; without a name, every row of the engine's table
  doctor          say what works on this machine

`lucibot COMMAND --help` says more. Exit status: 0 done, 1 the run failed, 2 bad input, 130 or 143
stopped by Ctrl-C or SIGTERM."""


def _run(argv: list[str]) -> int:
    from lucibot.commands import run

    return run(argv)


def _resume(argv: list[str]) -> int:
    from lucibot.commands import resume

    return resume(argv)


def _show(argv: list[str]) -> int:
    from lucibot.commands import show

    return show(argv)


def _runs(argv: list[str]) -> int:
    from lucibot.runs import command

    return command(argv)


def _compare(argv: list[str]) -> int:
    from lucibot.compare import command

    return command(argv)


def _view(argv: list[str]) -> int:
    from lucibot.view import command

    return command(argv)


def _robot(argv: list[str]) -> int:
    from lucibot.commands import robot

    return robot(argv)


def _paper(argv: list[str]) -> int:
    from lucibot.paper.command import command

    return command(argv)


def _collect(argv: list[str]) -> int:
    from lucibot.collect.command import command

    return command(argv)


def _chain(argv: list[str]) -> int:
    from lucibot.chain.command import command

    return command(argv)


def _evaluate(argv: list[str]) -> int:
    from lucibot.evaluate.command import command

    return command(argv)


def _export(argv: list[str]) -> int:
    from lucibot.commands import export

    return export(argv)


def _drive(argv: list[str]) -> int:
    from lucibot.export.drive import command

    return command(argv)


def _sweep(argv: list[str]) -> int:
    from lucibot.sweep import command

    return command(argv)


def _tasks(argv: list[str]) -> int:
    from lucibot.commands import tasks

    return tasks(argv)


def _twin(argv: list[str]) -> int:
    from lucibot.commands import twin

    return twin(argv)


def _bench(argv: list[str]) -> int:
    from lucibot.commands import bench

    return bench(argv)


def _doctor(argv: list[str]) -> int:
    from lucibot.commands import doctor

    return doctor(argv)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run, "resume": _resume, "sweep": _sweep, "chain": _chain, "show": _show, "runs": _runs, "evaluate": _evaluate, "paper": _paper,
    "compare": _compare, "collect": _collect, "export": _export, "drive": _drive, "robot": _robot, "view": _view,
    "tasks": _tasks, "twin": _twin, "bench": _bench, "doctor": _doctor,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    # Simulations are built beside the stages, so cores are shared, and threads of torch and numba
    # that spin while they wait for one that has lost its core cost up to forty times the work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with stopping.listening():
            status = _main(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does; what the interpreter would still write
        # at its end goes nowhere, and a shell calls this 128 + SIGPIPE.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _main(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if args[0] == "--version":
        from lucibot import __version__

        print(f"lucibot {__version__}")
        return 0
    from lucibot.core.errors import LuciBotError, unknown_name

    try:
        if args[0] not in COMMANDS:
            raise unknown_name("command", args[0], COMMANDS)
        ensure_caches()
        return COMMANDS[args[0]](args[1:])
    except LuciBotError as e:
        say(str(e))
        return e.exit_status
    except KeyboardInterrupt as e:
        print(stopping.line(), file=sys.stderr)
        return e.status if isinstance(e, stopping.Stopped) else 130
    except BrokenPipeError:
        raise
    except Exception as e:
        # What comes here is a fault of LuciBot or of what it rests on, to be mended where it arose.
        from lucibot.services.keys import quoted

        say(f"{type(e).__name__}: {quoted(str(e))} (the details are in {write_details(e, args)})")
        return 1


def say(line: str) -> None:
    print(f"lucibot: {line}", file=sys.stderr)


def write_details(e: BaseException, args: Sequence[str]) -> str:
    """A file with what is needed to find a fault; its path."""
    import traceback

    from lucibot.services.keys import hidden
    from lucibot.store.run import machine, versions

    fd, path = tempfile.mkstemp(prefix=f"lucibot_{time.strftime('%Y%m%d-%H%M%S')}_", suffix=".log")
    with os.fdopen(fd, "w") as f:
        f.write(f"lucibot {hidden(' '.join(args))}\n{versions()}\n{machine()}\n\n")
        f.write(hidden("".join(traceback.format_exception(e))))
    return path
