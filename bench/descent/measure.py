"""What a start that comes down the slope spares a search. `lucibot bench descent RUN... [--out DIR]`

Of each finished run, a copy in DIR searches again from the same reading of the same video with
`--optimize.start descent`, and is replayed. Prints a line each: the search as it was (its start, its final loss,
rollouts, and how many until it had that loss); and with the descent (where it came down to, its final loss,
rollouts, and how many until it had the other's final loss), gradients counted as the rollouts that could have
been made in their time; and whether the task was done by its success predicates, before and after.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import lucibot
from lucibot.record import open_run
from lucibot.store.finished import made_from, stage_folder
from lucibot.store.run import RunDirectory


def main(argv: list[str]) -> int:
    p = argparse.ArgumentParser(
        prog="lucibot bench descent", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="finished runs")
    p.add_argument("--out", type=Path, default=Path("runs/descent"))
    a = p.parse_args(argv)
    for path in a.runs:
        run, task, _, seed = open_run(path)
        copy = a.out / f"{task.name}_{seed}"
        if not copy.exists():
            a.out.mkdir(parents=True, exist_ok=True)
            shutil.copytree(run.path, copy)
        lucibot.resume(copy, settings={"optimize.start": "descent"})
        print(f"{task.name} seed {seed}: {line(run, RunDirectory.open(copy))}", flush=True)
    return 0


@dataclass(frozen=True)
class Search:
    """A finished search of a run."""

    told: dict
    best: np.ndarray
    """(N,) lowest loss after each rollout of its generations."""

    @classmethod
    def of(cls, run: RunDirectory) -> Search:
        folder = made_from(run, stage_folder(run, "execute"), "optimize")
        with np.load(folder / "history.npz") as z:
            loss = np.where(z["failed"], np.inf, z["loss"]).reshape(-1)
        return cls(json.loads((folder / "search.json").read_text()), np.minimum.accumulate(loss))

    def until(self, loss: float) -> float:
        """Rollouts, those before the search included, until the loss was as low; inf: never."""
        down = self.told.get("descent")
        before = down["equivalents"] if down else 0.0
        if down and down["losses"][-1] <= loss:
            return before
        at = np.flatnonzero(self.best <= loss)
        return before + at[0] + 1 if len(at) else np.inf


def line(before: RunDirectory, after: RunDirectory) -> str:
    plain, down = Search.of(before), Search.of(after)
    mark, descent = plain.told["loss"], down.told["descent"]
    total = descent["equivalents"] + down.told["rollouts"] - descent["rollouts"]
    return (
        f"{plain.told['start_loss']:.3f} -> {mark:.3f} in {plain.told['rollouts']} rollouts "
        f"({plain.until(mark):.0f} until then), {before.result().verdict}; "
        f"with the descent {descent['losses'][-1]:.3f} -> {down.told['loss']:.3f} in {total:.0f} "
        f"({down.until(mark):.0f} until {mark:.3f}), {after.result().verdict}"
    )
