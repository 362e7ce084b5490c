"""The first step size of the paper's protocol, which the paper does not give: one for all tasks, chosen on
seeds from 100 on by the protocol's own loss. No success is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lucibot import sweep
from lucibot.core.errors import RunFailed, UserError
from lucibot.paper.methods import METHODS, Step, config_of
from lucibot.store.run import write_json

STEPS_M = (0.004, 0.01, 0.02, 0.04)
FIRST_SEED = 100


def tune(
    tasks: Sequence[str], seeds: Sequence[int], given: dict[str, str], out: Path, tuned: Path,
    rollouts: int | None,
) -> Step:  # fmt: skip
    """Run the protocol with every step size, and keep the best in `tuned`.

    Args:
        tasks: shipped tasks' names or task folders.

    Raises:
        UserError: a seed below 100. RunFailed: a run failed, so the sizes cannot be compared.
    """
    low = [s for s in seeds if s < FIRST_SEED]
    if low:
        raise UserError(
            f"--tune uses seeds from {FIRST_SEED} on, not {low[0]}: tables use the others"
        )
    steps = [Step(position_m=s) for s in STEPS_M]
    points = [
        sweep.Point(
            task=t, seed=s, method=name(step),
            config=config_of(METHODS["paper"], given, rollouts=rollouts, step=step),
        )
        for t in tasks for s in seeds for step in steps
    ]  # fmt: skip
    rows = sweep.sweep(
        points, out=out, results=out / "tuning.json", say=lambda x: print(x, flush=True)
    )
    best, ranks = chosen(rows, [p.key for p in points], steps)
    names = list(dict.fromkeys(p.key[0] for p in points))
    tuned.parent.mkdir(parents=True, exist_ok=True)
    write_json(tuned, {"position_m": best.position_m, "mean_rank": ranks, "tasks": names,
                       "seeds": list(seeds)})  # fmt: skip
    return best


def name(step: Step) -> str:
    return f"paper {step.position_m:g} m"


def chosen(
    rows: Sequence[sweep.Row], keys: Sequence[tuple], steps: Sequence[Step]
) -> tuple[Step, dict[str, float]]:
    """The step size whose loss has the lowest mean rank over tasks and seeds, and the ranks.

    Raises:
        RunFailed: a run is missing.
    """
    from scipy.stats import rankdata

    losses = {sweep.key(r): r.get("loss") for r in rows if "error" not in r}
    missing = [k for k in keys if k not in losses]
    if missing:
        task, seed, method = missing[0]
        raise RunFailed(
            f"{len(missing)} runs of the tuning failed, the first {task} seed {seed} {method!r}; the same "
            "command tries them again"
        )
    pairs = dict.fromkeys((task, seed) for task, seed, _ in keys)
    # What diverged is worse than all that did not.
    table = np.array([
        [np.inf if losses[t, s, name(x)] is None else losses[t, s, name(x)] for x in steps]
        for t, s in pairs
    ])  # fmt: skip
    ranks = np.mean([rankdata(row) for row in table], axis=0)
    best = int(np.argmin(ranks))
    return steps[best], {name(s): round(float(r), 3) for s, r in zip(steps, ranks, strict=True)}
