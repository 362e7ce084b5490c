"""`lucibot tasks list | check NAME | new NAME | goals NAME | predicates`."""

from __future__ import annotations

import argparse
import inspect
import textwrap
from dataclasses import dataclass
from pathlib import Path

from lucibot.core.config import Config
from lucibot.core.errors import UserError
from lucibot.core.schema import Spec
from lucibot.services import ServicesConfig
from lucibot.settings import Parser, configured
from lucibot.task import find_task


def command(argv: list[str]) -> int:
    """Run one subcommand; returns the exit status."""
    if argv[:1] == ["goals"]:
        return _goals(argv[1:])
    parser = argparse.ArgumentParser(prog="lucibot tasks", description="Task folders.")
    sub = parser.add_subparsers(dest="what", required=True)
    sub.add_parser("list", help="the shipped tasks")
    check = sub.add_parser("check", help="try everything that a task needs, one line a check")
    check.add_argument("task", help="a shipped task's name, or a task folder")
    check.add_argument("--out", type=Path, default=Path("."), help="where the thumbnail goes")
    new = sub.add_parser("new", help="write a small working task folder to start from")
    new.add_argument("name")
    new.add_argument("--dir", type=Path, default=Path("."), help="where the folder is made")
    sub.add_parser("goals", help="let a vision-language model propose [[goal]]", add_help=False)
    sub.add_parser("predicates", help="what [[success]] and [[goal]] can ask for")
    arguments = parser.parse_args(argv)
    if arguments.what == "list":
        return _list()
    if arguments.what == "predicates":
        return _predicates()
    if arguments.what == "check":
        return _check(find_task(arguments.task), arguments.out)
    return _new(arguments.name, arguments.dir)


def _list() -> int:
    from rich.console import Console
    from rich.table import Table

    from lucibot.authoring import list_tasks

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "title", "materials", "actuators -> targets"):
        table.add_column(heading)
    for row in list_tasks():
        moves = f"{', '.join(row['actuators'])} -> {', '.join(row['targets'])}"
        table.add_row(row["name"], row["title"], ", ".join(dict.fromkeys(row["materials"])), moves)
    Console().print(table)
    return 0


def _check(task: Path, out: Path) -> int:
    from lucibot.authoring.check import check_task

    failed = 0

    def show(check) -> None:
        nonlocal failed
        failed += not check.passed
        print(f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.message}", flush=True)

    check_task(task, out, on_check=show)
    print(f"{task.name}: {failed} checks failed" if failed else f"{task.name}: all checks passed")
    return 2 if failed else 0


def _predicates() -> int:
    from lucibot.objective.success import KINDS
    from lucibot.providers.verifier.goals import RELATIONS

    print("[[success]] predicate: measured from the simulator's state, for the report only\n")
    for name, kind in sorted(KINDS.items()):
        print(f"  {name} ({_fields(kind)})\n{_words(kind)}\n")
    print("[[goal]] relation: seen in the video, for its verifier\n")
    for name, (kind, measured) in sorted(RELATIONS.items()):
        print(f"  {name} ({_fields(kind)})\n{_words(measured)}\n")
    return 0


@dataclass(frozen=True, kw_only=True)
class _GoalSettings(Config):
    services: ServicesConfig = ServicesConfig()


def _goals(argv: list[str]) -> int:
    """Show what a model proposes; write it if that is asked for."""
    from lucibot.authoring.goals import as_text, propose, write_goal
    from lucibot.services import Services, ensure_vlm
    from lucibot.task import load_task

    p = Parser(
        "lucibot tasks goals", "TASK --model NAME [--write] [--SETTING VALUE ...]",
        "Let a vision-language model propose [[goal]] of a task from its instruction and first frame. "
        "It is shown, to be checked and edited, and written to task.toml only with --write.",
    )  # fmt: skip
    p.add_argument("task", metavar="TASK", help="a shipped task's name, or a task folder")
    p.add_argument("--model", metavar="NAME", help="the model's name at its server")
    p.add_argument(
        "--write", action="store_true", help="put it into task.toml, which must have none"
    )
    p.add_argument("--out", type=Path, metavar="DIR",
                   help="where the answer and what was paid are kept (default: runs)")  # fmt: skip
    p.add_settings(_GoalSettings, _GoalSettings())
    options, given = p.parse(argv)
    if not options.get("model"):
        raise UserError("lucibot tasks goals needs --model NAME, the model's name at its server")
    task = load_task(options["task"])
    if options.get("write") and task.spec.goal:
        raise UserError(
            f"{task.folder / 'task.toml'} has a goal already; edit it, or remove it first"
        )
    config = configured(_GoalSettings(), given).services
    ensure_vlm(config.vlm)
    services = Services(options.get("out", Path("runs")) / "goals" / task.name, config)
    entries, reason = propose(task, services, options["model"])
    print("\n".join(f"# {line}" for line in textwrap.wrap(reason, 92)))
    if not entries:
        print("# No relation tells that this task is done: it can be judged by a model alone, "
              "--select.verifier vlm")  # fmt: skip
        return 0
    print(as_text(entries), end="")
    if options.get("write"):
        print(f"# written to {write_goal(task, entries)}; next: lucibot tasks check {task.folder}")
    else:
        print(f"# not written: put it into {task.folder / 'task.toml'}, or say --write")
    return 0


def _fields(kind: type[Spec]) -> str:
    fields = kind.model_fields.items()
    return ", ".join(n if f.is_required() else f"{n} = {f.default!r}" for n, f in fields)


def _words(thing: object) -> str:
    """Its docstring's first paragraph, indented."""
    first = inspect.getdoc(thing).partition("\n\n")[0]
    return textwrap.indent(textwrap.fill(" ".join(first.split()), 92), "    ")


def _new(name: str, folder: Path) -> int:
    from lucibot.authoring.new import new_task

    made = new_task(name, folder)
    print(f"wrote {made}; next: lucibot tasks check {made}")
    return 0
