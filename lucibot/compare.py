"""`lucibot compare`: two or more runs side by side, on one page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from lucibot.core.errors import UserError
from lucibot.core.scene_view import SceneView
from lucibot.report.compare import Compared, write_comparison
from lucibot.report.data import Rollouts
from lucibot.settings import Parser
from lucibot.store.finished import made_from, stage_folder, stages_finished
from lucibot.store.result import RESULT, Result
from lucibot.store.run import RunDirectory
from lucibot.store.verdicts import VERDICTS, chosen_video

PAGE = Path("compare.html")


def command(argv: list[str]) -> int:
    """`lucibot compare`.

    Raises:
        UserError: see `compare`.
    """
    p = Parser(
        "lucibot compare", "RUN RUN... [--out FILE.html]",
        "Lay films, losses, terms and differing settings of two or more runs side by side, on one page "
        "that opens anywhere. The runs may be of different tasks, and unfinished.",
    )  # fmt: skip
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    p.add_argument("--out", type=Path, metavar="FILE.html",
                   help=f"the page (default: {PAGE})")  # fmt: skip
    a, _ = p.parse(argv)
    out = a.get("out", PAGE)
    compare(a["runs"], out)
    print(f"comparison: {out}")
    return 0


def compare(runs: list[Path], out: Path) -> None:
    """Write the page of several runs; one that is there is replaced.

    Raises:
        UserError: fewer than two runs, one given twice, more than there are letters, no run directory,
            or one that is damaged; `out` is a folder or cannot be written.
    """
    if not 2 <= len(runs) <= len(ascii_uppercase):
        raise UserError(f"give 2 to {len(ascii_uppercase)} runs to compare; there is {len(runs)}")
    for i, run in enumerate(runs):
        if run.resolve() in [other.resolve() for other in runs[:i]]:
            raise UserError(f"{run} is given twice")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give a file's name")
    compared = [_read(run, letter) for run, letter in zip(runs, ascii_uppercase, strict=False)]
    try:
        write_comparison(compared, out)
    except OSError as e:
        raise UserError(f"--out {out}: cannot be written ({e.strerror}); choose another") from None


def _read(path: Path, letter: str) -> Compared:
    """A run as far as it came; what goes together: the last replay, and what it was made from."""
    run = RunDirectory.open(path)
    record, done = run.record, stages_finished(run)
    result = run.result() if (path / RESULT).is_file() else None
    found: dict[str, Any] = {}
    if "scene" in done:
        found["first_frame"] = SceneView.load(stage_folder(run, "scene")).first_frame
    execute = stage_folder(run, "execute") if "execute" in done else None
    if execute is not None:
        found["film"] = execute / "film.mp4"
        optimize, perceive = (made_from(run, execute, n) for n in ("optimize", "perceive"))
        chosen = tuple(made_from(run, perceive, n) for n in ("imagine", "select"))
    else:
        optimize = stage_folder(run, "optimize") if "optimize" in done else None
        chosen = None
        if "select" in done:
            select = stage_folder(run, "select")
            chosen = (made_from(run, select, "imagine"), select)
    if optimize is not None:
        found["rollouts"] = Rollouts.load(optimize)
    if chosen is not None and _chose(chosen[1]):
        found["chosen_video"] = chosen_video(*chosen)
    task = Path(record["task"]).name
    return Compared(
        letter=letter, run=path.resolve().name, title=task,
        instruction=" ".join(record.get("instruction", "").split()),
        settings=dict(_settings(record)), **found, **_outcome(result, done),
    )  # fmt: skip


def _chose(select: Path) -> bool:
    return json.loads((select / VERDICTS).read_text())["chosen"] is not None


def _outcome(result: Result | None, done: list[str]) -> dict[str, Any]:
    if result is None:
        return {"outcome": f"unfinished, after {done[-1]}" if done else "nothing finished"}
    loss = "diverged" if result.loss is None else f"{result.loss:.4f}"
    facts = {"loss": loss, "rollouts": str(result.rollouts), "seed": str(result.seed),
             "video": result.video["kind"], "seconds": f"{sum(result.seconds.values()):.0f}"}  # fmt: skip
    if result.cost_usd:
        facts["cost"] = f"{result.cost_usd:.2f} USD"
    if result.robot is not None:
        facts[f"arm {result.robot['arm']}"] = "success" if result.robot["success"] else "no success"
    if result.failed_at is not None:
        facts["put down to"] = result.failed_at
    return {
        "outcome": result.verdict, "success": result.success, "facts": facts, "loss": result.loss,
        "terms": result.terms, "metrics": result.metrics, "seconds": result.seconds,
    }  # fmt: skip


def _settings(record: dict) -> Iterator[tuple[str, str]]:
    """Name -> value of everything that a run is recorded with."""
    yield "task", Path(record["task"]).name
    yield "task digest", str(record.get("task_digest", ""))[:12]
    yield "seed", str(record["seed"])
    yield from _flat(record["config"], "")
    for what in ("versions", "machine"):
        for name, value in record.get(what, {}).items():
            yield f"{what.removesuffix('s')}: {name}", str(value)


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Settings by their flags: `optimize.search.population`; a family's member by its kind."""
    if not isinstance(value, dict):
        yield path, json.dumps(value) if isinstance(value, list) else str(value)
        return
    kind = value.get("kind", value.get("type"))
    if path and kind is not None:
        yield path, str(kind)
    for name, inner in value.items():
        if name not in ("kind", "type"):
            flag = name.replace("_", "-")
            yield from _flat(inner, f"{path}.{flag}" if path else f"--{flag}")
