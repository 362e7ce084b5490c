"""`result.json`: what a run found, to count with."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lucibot.core.errors import UserError, resume_hint
from lucibot.store.configs import field_texts

RESULT = "result.json"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A run's result; the fields of `result.json`."""

    task: str
    """The task's name."""
    task_digest: str
    """sha256 over the files that the run rests on."""
    instruction: str
    """The task's."""
    seed: int
    """Of the imagination and the search."""
    failed_at: str | None = None
    """What a failure is put down to, by rule: video, perception, search, grasp, kinematics, planning or
    execution; null where all that was asked for succeeds."""
    success: bool
    """Without an arm: whether every success predicate of the task holds at the end of the replay."""
    score: float
    """Mean of the predicates' scores, in [0, 1]; 1 only where all hold."""
    missed: list[dict[str, Any]]
    """The predicates that do not hold: predicate, value, wanted, and the metrics beside its value."""
    metrics: dict[str, float]
    """What the predicates measured [SI units, degrees]."""
    loss: float | None
    """Of the best trajectory, replayed; null where the replay diverged."""
    terms: dict[str, float | None]
    """The loss's terms, unweighted."""
    rollouts: int
    """Simulations that the search made."""
    failed_rollouts: int
    """Those of them that diverged."""
    same_loss_when_replayed: bool
    """Whether the replay has the loss that the search found."""
    seconds: dict[str, float]
    """What each stage took when it was made [s], in whichever run that was."""
    taken_over: dict[str, str]
    """Stage -> the run beside this one that had made it already."""
    own_seconds: float
    """Sum over the stages that this run made itself, in all its commands [s]."""
    taken_over_seconds: float
    """Sum over the others [s]."""
    wall_seconds: float
    """From the start of the last command that worked on the run to its result [s]."""
    cost_usd: float
    """What its paid calls came to, by its ledger; 0 where it made none."""
    video: dict[str, Any]
    """The chosen video: kind (the model), candidate (its number), file (within the stage's folder),
    points (the verifier's), sha256 (of that file, as every later stage reads it), raw_sha256 (of
    the file as it came, before it was fitted to the task's camera)."""
    versions: dict[str, str]
    """Of what the result depends on, when the report was written."""
    robot: dict[str, Any] | None = None
    """What the arm did; null where none was asked for. arm (its name), success (whether every predicate
    holds with the arm in the scene), score, missed and metrics as above, failed and why (where it could not
    be done), tracking (mean_mm, most_mm at the grasp, mean_deg, most_deg that held actuators were off their
    planned trajectory, over so many steps), slower (of each hold, times as long as in the search's
    simulation), simulated_s, holds (the grasp of each and where the arm stands), seconds."""
    machine: dict[str, Any]
    """On which the run was begun."""

    @property
    def verdict(self) -> str:
        """The outcome in one line. What failed is never rounded up to what holds."""
        if self.success:
            return f"success (score {self.score:.2f})"
        missed = "; ".join(in_words(m) for m in self.missed) or "the task has no success predicate"
        return f"no success (score {short_of_one(self.score)}: {missed})"


def read_result(run: Path) -> Result:
    """The result of a run directory.

    Raises:
        UserError: there is none yet, or it is damaged.
    """
    path = run / RESULT
    if not path.is_file():
        raise UserError(f"{run} has no result yet; {resume_hint(run)} goes on")
    try:
        raw = json.loads(path.read_text())
        names = [f.name for f in dataclasses.fields(Result)]
        optional = {f.name for f in dataclasses.fields(Result) if f.default is None}
        return Result(**{n: raw[n] for n in names if n in raw or n not in optional})
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(
            f"{path} is damaged or of another version ({type(e).__name__}: {e}); "
            f"{resume_hint(run)} writes it anew"
        ) from None


def in_words(missed: dict[str, Any]) -> str:
    """A predicate that does not hold, with digits enough to tell its value from the wanted one."""
    value, wanted = missed["value"], missed["wanted"]
    digits = next((d for d in range(3, 16) if f"{value:.{d}g}" != f"{wanted:.{d}g}"), 17)
    beside = ", ".join(f"{name} {v:.3g}" for name, v in missed["metrics"].items())
    return f"{missed['predicate']} {value:.{digits}g}, wanted {wanted:.{digits}g}" + (
        f" ({beside})" if beside else ""
    )


def short_of_one(score: float, *, least: int = 2) -> str:
    """A score below 1 with digits enough, `least` or more, not to read as 1."""
    digits = next((d for d in range(least, 16) if float(f"{score:.{d}f}") < 1), 16)
    return f"{score:.{digits}f}"


def fields_table() -> str:
    """Markdown: the fields of `result.json`, as the README has them."""
    texts = field_texts(Result)
    rows = [
        f"| `{f.name}` | {str(f.type).replace('|', 'or')} | {texts[f.name]} |"
        for f in dataclasses.fields(Result)
    ]
    return "\n".join(["| field | type | what it is |", "| --- | --- | --- |", *rows])
