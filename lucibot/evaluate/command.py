"""`lucibot evaluate`: judge what runs left, and say how far the judges agree."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lucibot.core.errors import UserError
from lucibot.core.folders import make_folder
from lucibot.core.stopping import goes_on
from lucibot.evaluate.agreement import Correlation, correlation
from lucibot.evaluate.config import EvaluateConfig
from lucibot.evaluate.judges import ASKING, JUDGES, Judged, Verdicts, create
from lucibot.evaluate.outcomes import Outcome, moved_tasks, read_every
from lucibot.services import Services, ensure_vlm
from lucibot.settings import Parser, configured, listed
from lucibot.store.lock import InUse, locked
from lucibot.store.run import write_json

OUT = Path("runs/evaluate")


def command(argv: list[str]) -> int:
    """`lucibot evaluate`; exit status 1 if a judge did not answer of some run.

    Raises:
        UserError: no such run or judge, a run that is not finished, or a judge that lacks what it
            needs.
    """
    p = Parser(
        "lucibot evaluate", "RUN... --judge JUDGE,... [--SETTING VALUE ...]",
        "Judge the last frames of finished runs, by one or several judges with commas between them, and "
        "say how each goes with the simulator's state.",
        epilog="judges: " + "; ".join(f"{n}, {what}" for n, what in JUDGES.items()),
    )  # fmt: skip
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    p.add_argument("--judge", metavar="|".join(JUDGES), help="default: state")
    p.add_argument(
        "--task", metavar="FOLDER,...", help="where task folders are, if they have been moved"
    )
    p.add_argument("--out", type=Path, metavar="DIR",
                   help=f"answers, what they cost, and evaluation.json (default: {OUT})")  # fmt: skip
    p.add_argument("--every-replay", action="store_true",
                   help="of runs that were resumed with other settings, the earlier replays as well")  # fmt: skip
    p.add_argument("--json", action="store_true", help="print all of it as JSON")
    p.add_argument("--max-usd", dest="services.max-usd", metavar="FLOAT",
                   help="what all calls may come to [USD]")  # fmt: skip
    p.add_settings(EvaluateConfig, EvaluateConfig())
    a, given = p.parse(argv)
    config = configured(EvaluateConfig(), given)
    names = list(dict.fromkeys(listed(a.get("judge", "state"))))
    outcomes = read_outcomes(
        a["runs"], listed(a.get("task", "")), every=a.get("every_replay", False)
    )
    with goes_on("what was answered is kept; the same command goes on"):
        found = evaluate(outcomes, names, config, a.get("out", OUT))
    if a.get("json"):
        print(json.dumps(_plain(found), indent=1))
    else:
        print(as_text(outcomes, found))
    return 1 if any(run["judges"][n]["error"] for run in found["runs"] for n in names) else 0


def read_outcomes(
    runs: Sequence[Path], tasks: Sequence[str], *, every: bool = False
) -> list[Outcome]:
    """
    Raises:
        UserError: a run is given twice, or see `read_outcome`.
    """
    moved = moved_tasks(list(tasks))
    outcomes = [o for r in runs for o in read_every(r, tasks=moved)[0 if every else -1 :]]
    for i, o in enumerate(outcomes):
        if o.replay.resolve() in [other.replay.resolve() for other in outcomes[:i]]:
            raise UserError(f"{o.name} is given twice")
    return outcomes


def evaluate(
    outcomes: Sequence[Outcome], names: Sequence[str], config: EvaluateConfig, out: Path
) -> dict[str, Any]:
    """What each judge says, and how it goes with the state. Written to `out / "evaluation.json"` after
    every judge; answers of models are kept below `out`, each asked for once: another process that judges
    there is waited for.

    Raises:
        UserError, RunFailed: a judge cannot go on (a refused key, a cap that is reached).
    """
    lock = make_folder(out) / "evaluate.lock"
    try:
        with locked(lock, str(out)):
            pass
    except InUse as e:
        print(e, file=sys.stderr, flush=True)
    with locked(lock, str(out), wait=True):
        return _evaluate(outcomes, names, config, out)


def _evaluate(
    outcomes: Sequence[Outcome], names: Sequence[str], config: EvaluateConfig, out: Path
) -> dict[str, Any]:
    services = Services(out / "services", config.services)
    if any(n in ASKING for n in names):
        ensure_vlm(config.services.vlm)
    judges = {n: create(n, config, services) for n in dict.fromkeys(("state", *names))}
    done: list[Verdicts] = []
    found: dict[str, Any] = {}
    for name, judge in judges.items():
        if name in ASKING:
            print(f"{name}: asking {config.model}", file=sys.stderr, flush=True)
        done.append(judge.judge(outcomes))
        found = _record(outcomes, done, names)
        write_json(out / "evaluation.json", _plain(found))
    found["cost_usd"] = services.ledger.spent_usd()
    write_json(out / "evaluation.json", _plain(found))
    return found


def _record(
    outcomes: Sequence[Outcome], done: Sequence[Verdicts], names: Sequence[str]
) -> dict[str, Any]:
    state = done[0]
    runs = [
        {"run": o.name, "task": o.task.name, "seed": o.seed, "method": o.method,
         "judges": {v.judge: asdict(v.each[i]) for v in done}}
        for i, o in enumerate(outcomes)
    ]  # fmt: skip
    agreement = {
        v.judge: {
            **asdict(agrees(state.each, v.each)), **decides(state.each, v.each),
            "by_task": {
                t: asdict(agrees([state.each[i] for i in mine], [v.each[i] for i in mine]))
                for t, mine in _by_task(outcomes).items()
            },
        }
        for v in done[1:]
    }  # fmt: skip
    facts = {v.judge: v.facts for v in done if v.facts}
    return {"runs": runs, "agreement_with_state": agreement, "judges": facts}


def _by_task(outcomes: Sequence[Outcome]) -> dict[str, list[int]]:
    by: dict[str, list[int]] = {}
    for i, o in enumerate(outcomes):
        by.setdefault(o.task.name, []).append(i)
    return by


def agrees(state: Sequence[Judged], other: Sequence[Judged]) -> Correlation:
    return correlation([j.score for j in state], [j.score for j in other])


def decides(state: Sequence[Judged], other: Sequence[Judged]) -> dict[str, float | None]:
    """What a judge gives to what the state calls done and not done, and how often it decides alike."""

    def mean(values: list[float]) -> float | None:
        known = [v for v in values if math.isfinite(v)]
        return sum(known) / len(known) if known else None

    both = list(zip(state, other, strict=True))
    decided = [float(s.success == o.success) for s, o in both
               if s.success is not None and o.success is not None]  # fmt: skip
    return {
        "mean_where_done": mean([o.score for s, o in both if s.success is True]),
        "mean_where_not": mean([o.score for s, o in both if s.success is False]),
        "decides_alike": mean(decided),
    }


def as_text(outcomes: Sequence[Outcome], found: dict[str, Any]) -> str:
    """The scores in columns, and a line for each judge beside the state."""
    judges = list(found["runs"][0]["judges"])
    lines = [("task", "seed", *judges, "run")]
    for o, run in zip(outcomes, found["runs"], strict=True):
        lines.append((o.task.name, str(o.seed), *(_cell(run["judges"][j]) for j in judges), o.name))
    widths = [max(len(line[c]) for line in lines) for c in range(len(lines[0]))]
    text = ["  ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)).rstrip()
            for line in lines]  # fmt: skip
    for name, a in found["agreement_with_state"].items():
        c = Correlation(**{k: a[k] for k in ("count", "spearman", "spearman_interval", "kendall")})
        low, high = c.spearman_interval
        said = (
            f"not defined ({c.why_none})" if c.why_none
            else f"Spearman {c.spearman:.2f} ({low:.2f} to {high:.2f}), Kendall {c.kendall:.2f}"
        )  # fmt: skip
        means = [f"{what} {a[k]:.2f}" for k, what in
                 (("mean_where_done", "where done"), ("mean_where_not", "where not"))
                 if a[k] is not None]  # fmt: skip
        alike = "" if a["decides_alike"] is None else f"; decides alike in {a['decides_alike']:.0%}"
        text.append(
            f"{name} with state, {c.count} runs: {said}; mean {', '.join(means) or 'none'}{alike}"
        )
    for name, facts in found["judges"].items():
        text += [f"{name}: {line}" for line in _facts(facts)]
    for run in found["runs"]:
        text += [f"{run['run']}: {n}: {j['error']}" for n, j in run["judges"].items() if j["error"]]
    return "\n".join(text)


def _facts(facts: dict[str, Any]) -> list[str]:
    if "position_bias" not in facts:
        return [f"{facts['model']}, by {facts['by'] or 'nothing'}"]
    bias = facts["position_bias"]
    shown = [bias[k] for k in ("mean_place_shown_first", "mean_place_shown_last")]
    if None in shown or facts["tied_pairs"] is None:
        return [
            f"{facts['model']}, {facts['questions']} questions, {facts['unanswered']} unanswered"
        ]
    return [
        f"{facts['model']}, {facts['questions']} questions, {facts['unanswered']} unanswered, "
        f"{facts['tied_pairs']:.0%} of pairs tied; place (0 best, 1 worst) of what is shown first "
        f"{shown[0]:.2f}, last {shown[1]:.2f}; Spearman of place and order {bias['spearman']:.2f}"
    ]


def _cell(judged: dict[str, Any]) -> str:
    if not math.isfinite(judged["score"]):
        return "-"
    done = {True: " done", False: " not", None: ""}[judged["success"]]
    return f"{judged['score']:.3f}{done}"


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
