"""`lucibot tasks list | check NAME | new NAME | predicates`."""

from __future__ import annotations

import argparse
import inspect
import textwrap
from pathlib import Path

from lucibot.core.schema import Spec
from lucibot.task import find_task


def command(argv: list[str]) -> int:
    """Run one subcommand; returns the exit status."""
    parser = argparse.ArgumentParser(prog="lucibot tasks", description="Task folders.")
    sub = parser.add_subparsers(dest="what", required=True)
    sub.add_parser("list", help="the shipped tasks")
    check = sub.add_parser("check", help="try everything that a task needs, one line a check")
    check.add_argument("task", help="a shipped task's name, or a task folder")
    check.add_argument("--out", type=Path, default=Path("."), help="where the thumbnail goes")
    new = sub.add_parser("new", help="write a small working task folder to start from")
    new.add_argument("name")
    new.add_argument("--dir", type=Path, default=Path("."), help="where the folder is made")
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
