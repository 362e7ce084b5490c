"""`lucibot paper`: run what is missing, and write the tables and figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lucibot import sweep
from lucibot.benchmark.command import load
from lucibot.config import PRESETS, RunConfig
from lucibot.core.errors import LuciBotError, UserError, unknown_name
from lucibot.core.stopping import goes_on
from lucibot.evaluate.command import evaluate
from lucibot.evaluate.config import EvaluateConfig
from lucibot.evaluate.judges import JUDGES
from lucibot.evaluate.outcomes import Outcome, read_outcome
from lucibot.options import add_shorthands
from lucibot.paper import report
from lucibot.paper.cells import Key, Run, own, taken_over
from lucibot.paper.methods import (
    METHODS,
    PREFERRED_ON,
    TASKS,
    Method,
    Step,
    config_of,
    ensure_runnable,
    known_methods,
)
from lucibot.paper.tune import tune
from lucibot.preflight import settled_run
from lucibot.settings import Parser, listed
from lucibot.task import Task, checkout_folder, find_task, load_task

TABLES = (1, 2, 3, 4)


def command(argv: list[str]) -> int:
    """`lucibot paper`; exit status 1 if a run failed.

    Raises:
        UserError: no such table, task, method or judge, or seeds that are none.
    """
    p = Parser(
        "lucibot paper", "[--tables 1,2,3,4] [--SETTING VALUE ...]",
        "Run what is missing of the paper's tables, with our methods, and write them: README.md, figures and "
        "rows. Stopped, the same command goes on where it was. Any setting of `lucibot run` holds for all methods.",
        epilog="methods: " + "; ".join(f"{m.name}, {m.what}" for m in METHODS.values()),
    )  # fmt: skip
    p.add_argument("--tables", metavar="NUMBERS", help="default: 1,2,3,4; 4 is that of selection")
    p.add_argument("--tasks", metavar="NAMES", help="default: the tables' eight")
    p.add_argument("--methods", metavar="NAMES", help="default: all")
    p.add_argument("--seeds", metavar="SEEDS", help="e.g. 0-4 or 1,3 (default: 0-4)")
    p.add_argument("--judge", metavar="NAMES", help=f"of {', '.join(JUDGES)} (default: state)")
    p.add_argument("--judge-model", metavar="NAME", help="the model that vlm-rank and vqa ask")
    p.add_argument(
        "--rollouts", metavar="INT", help="of every search; if not given, as its preset has it"
    )
    p.add_argument("--take-over", metavar="DIR,...",
                   help="sweeps whose runs count where methods have the same names")  # fmt: skip
    p.add_argument("--tune", action="store_true",
                   help="choose the first step size of the paper's protocol, and stop")  # fmt: skip
    p.add_argument("--no-run", action="store_true", help="write down what there is")
    p.add_argument("--out", type=Path, metavar="DIR", help="run directories (default: runs/paper)")
    p.add_argument("--report", type=Path, metavar="DIR",
                   help="README.md, figures, rows.json, the tuned step (default: --out)")  # fmt: skip
    add_shorthands(p, spender="each run, and judging them,")
    p.add_settings(RunConfig, PRESETS["quick"])
    a, given = p.parse(argv)
    asked = _asked(a, given)
    if a.get("tune"):
        with goes_on("the same command goes on where it was"):
            seeds = sweep.seeds(a.get("seeds", "100-101"))
            folders = [str(t.folder) for t in asked.tasks.values()]
            best = tune(folders, seeds, given, asked.out, asked.tuned, asked.rollouts)
        print(f"first step size: {best.position_m:g} m, in {asked.tuned}")
        return 0
    with goes_on("the same command goes on where it was"):
        return _make(asked, a, given, "lucibot paper " + " ".join(argv))


@dataclass(frozen=True, kw_only=True)
class Asked:
    tables: Sequence[int]
    tasks: Mapping[str, Task]
    methods: Sequence[Method]
    seeds: Sequence[int]
    judges: Sequence[str]
    rollouts: int | None
    take_over: Sequence[Path]
    out: Path
    report: Path

    @property
    def tuned(self) -> Path:
        return self.report / "tuned.json"


def _asked(a: Mapping[str, Any], given: Mapping[str, str]) -> Asked:
    numbers = listed(a.get("tables", "1,2,3,4"))
    for n in numbers:
        if n not in map(str, TABLES):
            raise unknown_name("table", n, map(str, TABLES))
    judges = listed(a.get("judge", "state"))
    for j in judges:
        if j not in JUDGES:
            raise unknown_name("judge", j, JUDGES)
    rollouts = None
    if "rollouts" in a:
        if not a["rollouts"].isdigit() or int(a["rollouts"]) < 1:
            raise UserError(f"--rollouts {a['rollouts']}: expected a whole number from 1 on")
        rollouts = int(a["rollouts"])
    folders = [find_task(name) for name in (listed(a["tasks"]) if "tasks" in a else TASKS)]
    sweep.ensure_apart(map(str, folders))
    tasks = {folder.name: load_task(folder) for folder in folders}
    out = a.get("out", Path("runs/paper"))
    for flag, place in (("out", out), ("report", a.get("report", out))):
        if (at := next((q for q in (place, *place.parents) if q.is_file()), None)) is not None:
            raise UserError(f"--{flag} {place}: {at} is a file; choose a folder")
    return Asked(
        tables=[int(n) for n in numbers], tasks=tasks,
        methods=known_methods(listed(a["methods"]) if "methods" in a else list(METHODS)),
        seeds=sweep.seeds(a.get("seeds", "0-4")), judges=list(dict.fromkeys(("state", *judges))),
        rollouts=rollouts, take_over=[Path(d) for d in listed(a.get("take_over", ""))], out=out,
        report=a.get("report", out),
    )  # fmt: skip


def _make(asked: Asked, a: Mapping[str, Any], given: Mapping[str, str], said: str) -> int:
    step = Step.load(asked.tuned)
    configs, missing = _configs(asked, given, step)
    taken: dict[Key, Run] = {}
    for folder in asked.take_over:
        found, left = taken_over(folder, asked.tasks, {
            (t, m): settled_run(task, c) for t, task in asked.tasks.items() for m, c in configs.items()
        })  # fmt: skip
        taken |= found
        missing += left
    failed: list[sweep.Row] = []
    results = asked.out / "results.json"
    if not a.get("no_run"):
        points = [p for p in _points(asked, configs) if p.key not in taken]
        rows = sweep.sweep(
            points, out=asked.out, results=results, say=lambda x: print(x, flush=True)
        )
        mine = {p.key for p in points}
        failed = [r for r in rows if "error" in r and sweep.key(r) in mine]
    wanted = {(m.name, s) for m in asked.methods for s in asked.seeds}
    runs = {
        k: r
        for k, r in (own(results, asked.out, asked.tasks) | taken).items()
        if (k[2], k[1]) in wanted
    }
    selection = _selection(asked, a) if 4 in asked.tables else []
    runs, agreement, lost = _judged(asked, runs, a, given)
    missing += [sweep.line(r) for r in failed] + lost
    folder = asked.report
    path = report.write(
        report.Results(
            runs=runs, methods=asked.methods, tasks=list(asked.tasks), seeds=list(asked.seeds),
            judges=asked.judges, agreement=agreement, selection=selection, missing=missing,
            rollouts=asked.rollouts, step_m=step and step.position_m, command=_without_places(said),
        ),
        asked.tables, folder,
    )  # fmt: skip
    for line in missing:
        print(line, file=sys.stderr)
    print(path)
    return 1 if failed else 0


def _configs(
    asked: Asked, given: Mapping[str, str], step: Step | None
) -> tuple[dict[str, RunConfig], list[str]]:
    """By method; and why there is none of some."""
    configs, missing = {}, []
    for m in asked.methods:
        try:
            config = config_of(m, given, rollouts=asked.rollouts, step=step)
            ensure_runnable(config)
        except UserError as e:
            missing.append(f"{m.title} is not run: {e}")
            continue
        configs[m.name] = config
    return configs, missing


def _points(asked: Asked, configs: Mapping[str, RunConfig]) -> list[sweep.Point]:
    """Seeds first: what is there after a part of it compares all methods."""
    wanted: set[str] = set()
    if {1, 2} & set(asked.tables):
        wanted |= {m.name for m in asked.methods if m.name != "vlm-pref"}
    both = {"vlm-pref", "full"} if 3 in asked.tables else set()
    return [
        sweep.Point(task=str(task.folder), seed=s, method=m.name, config=configs[m.name])
        for s in asked.seeds for t, task in asked.tasks.items() for m in asked.methods
        if m.name in configs and t not in m.leaves_out
        and (m.name in wanted or (m.name in both and t in PREFERRED_ON))
    ]  # fmt: skip


def _judged(
    asked: Asked, runs: Mapping[Key, Run], a: Mapping[str, Any], given: Mapping[str, str]
) -> tuple[dict[Key, Run], dict[str, Any], list[str]]:
    """The runs with every judge's scores; how judges go with the state; and what could not be judged."""
    outcomes: dict[Key, Outcome] = {}
    lost: list[str] = []
    for key, run in sorted(runs.items()):
        try:
            outcomes[key] = read_outcome(run.folder, tasks=asked.tasks, method=key[2])
        except LuciBotError as e:
            lost.append(f"{key[0]} seed {key[1]} {key[2]}: {e}")
    if not outcomes:
        return {}, {}, lost
    from lucibot.options import with_settings

    services = with_settings(
        PRESETS["quick"], {k: v for k, v in given.items() if k.startswith("services.")}
    ).services
    config = EvaluateConfig(model=a.get("judge_model"), against="seed", services=services)
    found = evaluate(list(outcomes.values()), asked.judges, config, asked.out / "judges")
    scored = {}
    for key, told in zip(outcomes, found["runs"], strict=True):
        scores = {j: told["judges"][j]["score"] for j in asked.judges}
        # By the predicates as they are now, whatever the list says.
        success = told["judges"]["state"]["success"]
        row = {**runs[key].row, "success": bool(success), "score": scores["state"]}
        scored[key] = replace(runs[key], row=row, scores=scores)
        lost += [f"{key[0]} seed {key[1]} {key[2]}: {j}: {told['judges'][j]['error']}"
                 for j in asked.judges if told["judges"][j]["error"]]  # fmt: skip
    return scored, found["agreement_with_state"], lost


def _selection(asked: Asked, a: Mapping[str, Any]) -> list[dict]:
    """Verdicts over the labelled videos; those that are missing are made."""
    cache = asked.out / "selection"
    if not a.get("no_run"):
        measure = checkout_folder("bench") / "selection/measure.py"
        load("selection", measure).main([
            "--cache", str(cache), "--runs", str(asked.out), "--tasks", ",".join(asked.tasks),
        ])  # fmt: skip
    return [json.loads(p.read_text()) for p in sorted((cache / "results/now").glob("*.json"))]


def _without_places(said: str) -> str:
    """The command without where things lie on this machine."""
    words, out = said.split(), []
    while words:
        word = words.pop(0)
        if word in ("--out", "--report", "--take-over"):
            words[:1] = []
            continue
        out.append(word)
    return " ".join(out)
