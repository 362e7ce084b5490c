"""`lucibot bench`: benchmarks are the folders of `bench/`, found by scanning.

A folder holds a `measure.py` with either `measure(bench: Bench)`, a row of the engine's table, or
`main(argv)`, a measurement with arguments of its own.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

from lucibot.benchmark.harness import Bench, machine
from lucibot.core.errors import UserError, unknown_name
from lucibot.task import checkout_folder

PACKAGE = "lucibot_bench"
"""The name under which a benchmark's folder is imported; its files import one another relatively."""


def command(argv: list[str]) -> int:
    """Run benchmarks, or list them.

    Raises:
        UserError: no such benchmark, an unreadable file to compare with, or the package was not
            installed from a checkout.
    """
    known = {p.parent.name: p for p in sorted(checkout_folder("bench").glob("*/measure.py"))}
    rows = {n: p for n, p in known.items() if _defines(p, "measure")}
    if argv and argv[0] in known and argv[0] not in rows:
        return load(argv[0], known[argv[0]]).main(argv[1:]) or 0
    arguments = _parse(argv, known, rows)
    for name in arguments.names:
        if name not in known:
            raise unknown_name("benchmark", name, known)
        if name not in rows:
            raise UserError(f"{name!r} takes arguments of its own: `lucibot bench {name} --help`")
    earlier = _earlier(arguments.compare)
    say = (lambda line: print(line, file=sys.stderr)) if arguments.json else print
    result = {"machine": machine(arguments.device), "device": arguments.device, "benchmarks": {}}
    say(f"machine: {', '.join(f'{k} {v}' for k, v in result['machine'].items())}")
    for name in arguments.names or rows:
        bench = Bench(name=name, device=arguments.device, repeats=arguments.repeats,
                      say=lambda line: say(line))  # fmt: skip
        load(name, rows[name]).measure(bench)
        result["benchmarks"][name] = bench.record()
        if earlier is not None:
            for line in compared(bench, earlier):
                say(line)
    if arguments.json:
        print(json.dumps(result, indent=1))
    return 0


def load(name: str, path: Path) -> ModuleType:
    """A benchmark's `measure.py` as a module of a package of its own."""
    package = f"{PACKAGE}.{name}"
    if PACKAGE not in sys.modules:
        root = ModuleType(PACKAGE)
        root.__path__ = []
        sys.modules[PACKAGE] = root
    holder = ModuleType(package)
    holder.__path__ = [str(path.parent)]
    sys.modules[package] = holder
    spec = importlib.util.spec_from_file_location(f"{package}.measure", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def compared(bench: Bench, earlier: dict[str, float]) -> list[str]:
    """One line for each value that an earlier result has, too."""
    return [
        f"{v.name} {v.value / earlier[v.name]:.3f}x of the earlier {earlier[v.name]:.4g}"
        for v in bench.values
        if earlier.get(v.name)
    ]


def _earlier(path: Path | None) -> dict[str, float] | None:
    if path is None:
        return None
    try:
        data = json.loads(path.read_text())
        return {v["name"]: v["value"] for b in data["benchmarks"].values() for v in b["values"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"--compare {path}: not a result of `lucibot bench --json` ({e})") from None


def _parse(argv: list[str], known: dict[str, Path], rows: dict[str, Path]) -> argparse.Namespace:
    width = max(map(len, known))
    listing = [f"  {n:<{width}}  {_first_line(p)}" for n, p in rows.items()]
    others = [f"  {n:<{width}}  {_first_line(p)}" for n, p in known.items() if n not in rows]
    p = argparse.ArgumentParser(
        prog="lucibot bench", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measure. Without a name, every row of the engine's table:\n\n"
        + "\n".join(listing)
        + "\n\nWith arguments of their own (`lucibot bench NAME --help`):\n\n"
        + "\n".join(others),
    )  # fmt: skip
    p.add_argument("names", nargs="*", metavar="NAME")
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    p.add_argument("--repeats", type=_rounds, default=7, help="rounds of a race (default: 7)")
    p.add_argument("--json", action="store_true", help="print the result as JSON")
    p.add_argument("--compare", type=Path, metavar="FILE",
                   help="a result of --json: print the ratio to it")  # fmt: skip
    return p.parse_args(argv)


def _rounds(text: str) -> int:
    """An argparse type; argparse says what is wrong with it."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least one round")
    return int(text)


def _defines(path: Path, name: str) -> bool:
    body = ast.parse(path.read_text()).body
    return any(isinstance(x, ast.FunctionDef) and x.name == name for x in body)


def _first_line(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    return doc.partition("\n")[0]
