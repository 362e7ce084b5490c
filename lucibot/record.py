"""A run's record: what it was begun with, and what it is told since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lucibot.config import RunConfig
from lucibot.core.errors import UserError, resume_hint
from lucibot.core.video import sha256_of
from lucibot.objective.weights import FULL_WEIGHTS, TERMS
from lucibot.preflight import ensure_arm, ensure_models, ensure_possible
from lucibot.services import ensure_vlm
from lucibot.store.configs import files, from_dict, to_dict
from lucibot.store.run import RunDirectory
from lucibot.task import Task, find_task, load_task, task_names


def start_run(task: Task, config: RunConfig, *, seed: int, out: Path) -> RunDirectory:
    """Make the run directory of a new run.

    Raises:
        UserError: the task is not sound; the device is not there; a model that is to be asked or to look
            at the video lacks what it needs; `out` is a file or lies below one.
    """
    ensure_possible(task, config)
    ensure_models(config)
    chosen = (
        config.prompt,
        config.select.verifier,
        config.perceive.answerer,
        *config.optimize.objective.asked(),
    )
    if any(getattr(m, "kind", "") == "vlm" for m in chosen):
        ensure_vlm(config.services.vlm)
    record = {
        "task": str(task.folder), "task_digest": task.digest, "instruction": task.instruction,
        "seed": seed, "config": to_dict(config), "files": _contents(config, {}),
    }  # fmt: skip
    return RunDirectory.create(Path(out), task.name, record)


def open_run(
    path: Path, *, task: str | Path | None = None
) -> tuple[RunDirectory, Task, RunConfig, int]:
    """Open a run to resume it, wherever its directory has been moved.

    Args:
        task: where its task folder is now, if it has been moved too.

    Raises:
        UserError: no run directory, a damaged or another version's record, or its task folder is
            gone.
    """
    run = RunDirectory.open(Path(path))
    record = run.record
    try:
        config = from_dict(RunConfig, record["config"])
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise UserError(
            f"{run.path / 'run.json'}: its config is damaged ({e}); start a new run"
        ) from None
    if not isinstance(config, RunConfig):
        raise UserError(f"{run.path / 'run.json'}: its config is damaged; start a new run")
    return run, load_task(_task_folder(run, task)), config, record["seed"]


def task_of(run: RunDirectory, given: str | Path | None = None) -> Task:
    """The task of a run, as it is now; its settings may be another version's.

    Args:
        given: where its task folder is, if it has been moved.

    Raises:
        UserError: its task folder is gone, or does not follow the schema.
    """
    return load_task(_task_folder(run, given))


def _task_folder(run: RunDirectory, given: str | Path | None) -> Path:
    """Where the task of a run is: where it was, or in this package, if it ships the very same."""
    if given is not None:
        return find_task(given)
    recorded = Path(run.record["task"])
    if (recorded / "task.toml").is_file():
        return recorded
    if recorded.name in task_names():
        shipped = load_task(recorded.name)
        if shipped.digest == run.record.get("task_digest"):
            return shipped.folder
    raise UserError(
        f"{run.path}: its task folder {recorded} is gone; say where it is now: "
        f"{resume_hint(run.path, '--task FOLDER')}"
    )


@contextmanager
def reconfigure(
    run: RunDirectory, task: Task, config: RunConfig, seed: int, *,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[None]:  # fmt: skip
    """Record what is to be done now: stages that a change touches get sibling folders.

    Settings that turn out to be the user's mistake are not kept: they would stop every later
    `resume`, too.

    Raises:
        UserError: the task is not sound, or the device is not there.
    """
    ensure_possible(task, config)
    ensure_arm(config)
    before = run.record
    if newer := _newer_terms(before["config"], config):
        say(f"loss terms that are newer than this run have no say in it, as before: {', '.join(newer)}; "
            f"--optimize.objective.weights.{newer[0].replace('_', '-')} WEIGHT gives one a say")  # fmt: skip
    after = {
        **before, "task": str(task.folder), "task_digest": task.digest, "seed": seed,
        "instruction": task.instruction, "config": to_dict(config),
        "files": _contents(config, before.get("files", {})),
    }  # fmt: skip
    if after != before:
        run.rewrite(after)
    try:
        yield
    except UserError as e:
        if (after["config"], seed) == (before["config"], before["seed"]):
            raise
        run.rewrite(before)
        raise UserError(f"{e} (the run keeps the settings that it had)") from e


def _newer_terms(then: dict, config: RunConfig) -> list[str]:
    """Loss terms that a recorded config does not know, that a new run looks at by default and this does not."""
    kept = then.get("optimize", {}).get("objective", {}).get("weights")
    now = getattr(config.optimize.objective, "weights", None)
    if kept is None or now is None:
        return []
    return [
        t for t in TERMS
        if t not in kept and getattr(FULL_WEIGHTS, t) > 0 and getattr(now, t) == 0
    ]  # fmt: skip


def _contents(config: RunConfig, known: dict[str, str]) -> dict[str, str]:
    """File -> digest, of all files that a config names; one that is gone keeps the one it had."""
    named = {str(p): p for p in files(config)}
    found = {n: sha256_of(p) if p.exists() else known.get(n) for n, p in named.items()}
    return {n: sha for n, sha in found.items() if sha is not None}
