"""`lucibot collect`: many demonstrations from one solution."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lucibot.baselines.config import ObjectiveConfig
from lucibot.collect.correct import common, corrected, displaced_supervision, displacements
from lucibot.collect.vary import Varied, groups, together, vary, vary_materials
from lucibot.config import ExecuteConfig, RunConfig
from lucibot.core.errors import RunFailed, UserError
from lucibot.core.folders import make_folder
from lucibot.core.stopping import goes_on
from lucibot.core.video import Video, write_video
from lucibot.evaluate.state import judge_state
from lucibot.objective.supervision import Supervision
from lucibot.optimize.clearance import Clearance
from lucibot.optimize.config import SearchConfig
from lucibot.optimize.parametrization import Parametrization
from lucibot.optimize.search import AllDiverged, search
from lucibot.options import read_seed
from lucibot.record import task_of
from lucibot.settings import Parser
from lucibot.sim.episodes import Rolled, Studio
from lucibot.sim.grip import grasps
from lucibot.store.collection import EPISODE, EPISODES, RECORD, TRIED, read_record
from lucibot.store.configs import from_dict
from lucibot.store.finished import made_from, stage_folder
from lucibot.store.lock import locked
from lucibot.store.run import RunDirectory, digest, versions, write_json
from lucibot.task import Task

ENVIRONMENTS = 8
"""Episodes that share a simulation, where they can."""
ROLLOUTS = 48
"""Of the search for an episode whose replay fails."""
POPULATION = 16


@dataclass(frozen=True, kw_only=True)
class Solved:
    """What a run has found."""

    run: RunDirectory
    task: Task
    supervision: Supervision
    objective: ObjectiveConfig
    waypoints: np.ndarray
    """(K, A, 6)"""
    search: SearchConfig
    execute: ExecuteConfig
    made_from: str
    """Digest of the folder that the trajectory lies in."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be collected; another collection than one that was asked otherwise."""

    seed: int
    environments: int
    rollouts: int


def command(argv: list[str]) -> int:
    """`lucibot collect`; exit status 1 where no episode succeeded.

    Raises:
        UserError: no run that has succeeded, a number out of bounds, another collection's folder.
    """
    p = Parser(
        "lucibot collect", "RUN --episodes N [--out DIR]",
        "Many demonstrations from one solution: replay a solved run's trajectory with objects, camera, light "
        "and materials varied within the task's [collect], and keep what succeeds. Stopped, the same command "
        "goes on where it was; `lucibot export DIR` makes datasets of it.",
    )  # fmt: skip
    p.add_argument("run", type=Path, metavar="RUN", help="the run directory")
    p.add_argument("--episodes", type=int, metavar="N", help="how many are tried")
    p.add_argument("--out", type=Path, metavar="DIR",
                   help="the collection (default: collections/TASK_RUN)")  # fmt: skip
    p.add_argument("--seed", metavar="INT", help="of what is varied (default: 0)")
    p.add_argument("--rollouts", type=int, metavar="N",
                   help=f"of the search where a replay fails, at most, {POPULATION} at a time; 0: none "
                        f"(default: {ROLLOUTS})")  # fmt: skip
    p.add_argument("--environments", type=int, metavar="N",
                   help=f"episodes that share a simulation and its materials (default: {ENVIRONMENTS})")  # fmt: skip
    p.add_argument(
        "--task", metavar="FOLDER", help="where its task folder is, if it has been moved"
    )
    a, _ = p.parse(argv)
    if "episodes" not in a:
        raise UserError("--episodes N is missing: how many are to be tried")
    asked = Asked(
        seed=read_seed(a.get("seed", 0)), environments=a.get("environments", ENVIRONMENTS),
        rollouts=a.get("rollouts", ROLLOUTS),
    )  # fmt: skip
    bounds = {"episodes": (a["episodes"], 1, 1_000_000), "rollouts": (asked.rollouts, 0, 100_000),
              "environments": (asked.environments, 1, 4096)}  # fmt: skip
    for name, (value, least, most) in bounds.items():
        if not least <= value <= most:
            raise UserError(f"--{name} {value}: expected {least} to {most}")
    if 0 < asked.rollouts < POPULATION:
        raise UserError(
            f"--rollouts {asked.rollouts}: expected {POPULATION} or more, as many as are rolled out at a time, "
            "or 0 for no search"
        )
    solved = read_solved(a["run"], a.get("task"))
    out = a.get("out", Path("collections") / f"{solved.task.name}_{a['run'].resolve().name}")
    with goes_on("the same command goes on where it was"):
        told = collect(solved, asked, a["episodes"], out)
    print(f"{told['kept']} of {told['tried']} episodes succeeded ({100 * told['share']:.0f}%), "
          f"{told['searched']} of them after a search; {told['episodes_per_hour']:.0f} an hour")  # fmt: skip
    if not told["kept"]:
        raise RunFailed(f"no episode succeeded; {out / TRIED} says of each what it missed")
    print(
        f"collection: {out}; `lucibot export {out} --format lerobot --out DIR` makes a dataset of it"
    )
    return 0


def read_solved(path: Path, task: str | None = None) -> Solved:
    """What a run has found.

    Raises:
        UserError: no run directory, it is not finished or did not succeed, or its task has changed.
    """
    run = RunDirectory.open(path)
    result, record = run.result(), run.record
    if not result.success:
        raise UserError(
            f"{path} did not succeed ({result.verdict}): there is nothing to demonstrate"
        )
    found = task_of(run, task)
    if found.digest != record.get("task_digest"):
        raise UserError(
            f"{path}: its task {found.folder} has changed since; `lucibot resume {path}` first, or --task "
            "FOLDER says where it is as it was"
        )
    execute = stage_folder(run, "execute")
    optimize = made_from(run, execute, "optimize")
    perceive = made_from(run, execute, "perceive")
    told = read_record(optimize / "search.json")
    config = from_dict(RunConfig, record["config"])
    objective = from_dict(ObjectiveConfig, told["objective"])
    with np.load(optimize / "trajectory.npz") as z:
        waypoints = z["waypoints"]
    return Solved(
        run=run, task=found, objective=objective, waypoints=waypoints,
        supervision=objective.supervised(Supervision.load(perceive / "supervision.npz")),
        search=config.optimize.search, execute=config.execute, made_from=optimize.name,
    )  # fmt: skip


def collect(solved: Solved, asked: Asked, episodes: int, out: Path) -> dict[str, Any]:
    """Try episodes 0 to `episodes` - 1, but for those that have been; returns what the collection's record
    says of them all.

    Raises:
        UserError: `out` holds something else.
    """
    identity = _identity(solved, asked)
    _ensure_own(out, identity)
    for name in (TRIED, EPISODES):
        make_folder(out / name)
    with locked(out / "collection.lock", str(out)):
        _summarise(out, identity)
        moved = groups(solved.task)
        size = asked.environments if together(solved.task, moved) else 1
        for first in range(0, episodes, size):
            numbers = [
                i for i in range(first, min(first + size, episodes)) if not _tried(out, i).is_file()
            ]
            if numbers:
                _Batch(solved, asked, moved, first, size, out).make(numbers)
                _summarise(out, identity)
        return _summarise(out, identity)


class _Batch:
    """Episodes that share one simulation: their number does not depend on how many are asked for, so that
    each is the same whichever are there already."""

    def __init__(
        self, solved: Solved, asked: Asked, moved: list[tuple[str, ...]], first: int, size: int,
        out: Path,
    ):  # fmt: skip
        self.solved, self.asked, self.first, self.out = solved, asked, first, out
        self._began = time.monotonic()
        rng = np.random.default_rng([asked.seed, 0, first // size])
        self._task, self._materials = vary_materials(solved.task, rng)
        self._varied = [
            vary(self._task, moved, np.random.default_rng([asked.seed, 1, i]))
            for i in range(first, first + size)
        ]
        self._C = [
            displacements(solved.task, solved.supervision, v.displaced, moved) for v in self._varied
        ]
        self._waypoints = np.stack([
            corrected(solved.task, solved.waypoints, C, v.displaced)
            for C, v in zip(self._C, self._varied, strict=True)
        ])  # fmt: skip
        sim = solved.task.spec.simulation
        self._every = max(1, round(1 / (solved.execute.film_fps * sim.dt_s)))
        self._last = len(solved.waypoints) * sim.steps_per_waypoint + sim.settle_steps

    def make(self, numbers: list[int]) -> None:
        """Try the episodes of these numbers."""
        task = self._task if len(self._varied) > 1 else self._varied[0].task
        with Studio(task, camera=self._camera(task), n_envs=len(self._varied)) as studio:
            rolled = studio.roll(
                [v.task for v in self._varied], self._waypoints, self._supervision(0), self._every
            )
            for i in numbers:
                self._one(studio, i, rolled[i - self.first], len(numbers))

    def _one(self, studio: Studio, i: int, rolled: Rolled, shared_by: int) -> None:
        v, waypoints, rollouts = self._varied[i - self.first], self._waypoints[i - self.first], 1
        judged = judge_state(v.task, rolled.state)
        replayed = {"diverged": rolled.failed, "missed": judged.told.get("missed", [])}
        if rolled.failed or not judged.success:
            found = self._search(studio, i)
            if found is not None:
                waypoints, rollouts = found
                rolled = studio.roll(
                    [v.task] * studio.n_envs, np.repeat(waypoints[None], studio.n_envs, 0),
                    self._supervision(i - self.first), self._every,
                )[0]  # fmt: skip
                judged = judge_state(v.task, rolled.state)
        success = bool(judged.success) and not rolled.failed
        record = {
            "episode": i, "task": v.task.name, "instruction": v.task.instruction,
            "seed": self.asked.seed, "success": success, "searched": rollouts > 1,
            "score": 0.0 if rolled.failed else judged.score, "diverged": rolled.failed,
            "missed": judged.told.get("missed", []), "rollouts": rollouts,
            "replayed": replayed,
            "varied": {**v.told, "materials": self._materials},
        }  # fmt: skip
        if success:
            self._keep(studio, i, v, waypoints, rolled, record)
        now = time.monotonic()
        seconds, self._began = now - self._began, now
        write_json(_tried(self.out, i), record | {"seconds": round(seconds, 3)})
        how = "after a search" if rollouts > 1 else "replayed"
        missed = "it diverged" if rolled.failed else ", ".join(record["missed"])
        print(f"episode {i}: {f'success, {how}' if success else f'no success ({missed})'}",
              file=sys.stderr, flush=True)  # fmt: skip

    def _supervision(self, b: int, C: np.ndarray | None = None) -> Supervision:
        C = np.eye(4) if C is None else C
        return displaced_supervision(
            self.solved.task, self.solved.supervision, C, self._varied[b].displaced
        )

    def _search(self, studio: Studio, i: int) -> tuple[np.ndarray, int] | None:
        """Waypoints with a lower loss of the run's own objective, displaced as the waypoints are, and how
        many rollouts it took; None where there is none to search, or the objective cannot follow."""
        s, b = self.solved, i - self.first
        C = common(self._C[b], s.supervision.held)
        generations = self.asked.rollouts // POPULATION
        if C is None or not generations or s.objective.JUDGED or not s.task.is_searched:
            return None
        v, supervision = self._varied[b], self._supervision(b, C)
        clear = Clearance.of(v.task, grasps(v.task, supervision))
        parametrization = Parametrization(
            start=clear.repaired(self._waypoints[b], supervision.held), free=supervision.held,
            sigma_position_m=s.search.sigma_position_m, sigma_depth_m=s.search.sigma_depth_m,
            sigma_rotation_rad=np.deg2rad(s.search.sigma_rotation_deg),
            camera_position_m=supervision.camera.T_world_cam[:3, 3],
            correlation=s.search.correlation,
        )  # fmt: skip
        config = SearchConfig(population=POPULATION, generations=generations, restarts=0)
        objective = s.objective.in_workers()
        with tempfile.TemporaryDirectory(prefix="lucibot_collect_") as scratch:
            try:
                found = search(
                    lambda w: studio.evaluate(v.task, supervision, objective, w), parametrization,
                    config, seed=self.asked.seed + i, checkpoints=Path(scratch),
                    repair=lambda w: clear.repaired(w, supervision.held),
                    reached=s.objective.reached,
                )  # fmt: skip
            except AllDiverged:
                return None
        return found.waypoints, found.rollouts

    def _camera(self, task: Task):
        width = min(self.solved.execute.film_width, task.camera.width)
        return task.camera.resized(width, round(width * task.camera.height / task.camera.width))

    def _keep(
        self, studio: Studio, i: int, v: Varied, waypoints: np.ndarray, rolled: Rolled, record: dict
    ) -> None:  # fmt: skip
        steps = range(0, self._last + 1, self._every)
        camera = self._camera(v.task)
        frames = studio.film(rolled.rollout, steps, camera, v.task.spec.light)
        folder = self.out / EPISODES / f"{i:04d}"
        part = folder.with_name(f".{folder.name}.part")
        for there in (part, folder):
            shutil.rmtree(there, ignore_errors=True)
        part.mkdir()
        fps = 1 / (self._every * v.task.spec.simulation.dt_s)
        write_video(part / "film.mp4", Video(frames=frames, fps=fps))
        rolled.rollout.save(part / "rollout.npz")
        rolled.state.save(part / "final_state.npz")
        np.savez_compressed(
            part / "trajectory.npz", waypoints=waypoints, held=self.solved.supervision.held
        )
        write_json(part / EPISODE, record | {"camera": camera.to_dict()})
        part.rename(folder)


def _tried(out: Path, i: int) -> Path:
    return out / TRIED / f"{i:04d}.json"


def _identity(solved: Solved, asked: Asked) -> dict[str, Any]:
    """What makes a collection another one."""
    return {
        "run": solved.run.path.resolve().name, "task": solved.task.name,
        "task_digest": solved.task.digest, "trajectory": digest(solved.waypoints.tolist()),
        "collect": solved.task.spec.collect.model_dump(mode="json"), **dataclasses.asdict(asked),
    }  # fmt: skip


def _ensure_own(out: Path, identity: dict[str, Any]) -> None:
    """
    Raises:
        UserError: the folder holds another collection, or something else.
    """
    if not (out / RECORD).is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out {out} holds something else; choose another")
        return
    there = read_record(out / RECORD).get("identity", {})
    other = next((n for n, v in identity.items() if there.get(n) != v), None)
    if other is not None:
        raise UserError(
            f"--out {out} holds another collection (its {other} is {there.get(other)!r}, not "
            f"{identity[other]!r}); choose another"
        )


def _summarise(out: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Write the collection's record, and return it."""
    tried = [read_record(p) for p in sorted((out / TRIED).glob("[0-9]*.json"))]
    kept = [t for t in tried if t["success"]]
    seconds = sum(t["seconds"] for t in tried)
    told = {
        "identity": identity, "tried": len(tried), "kept": len(kept),
        "searched": sum(t["searched"] for t in kept),
        "share": len(kept) / len(tried) if tried else 0.0, "seconds": round(seconds, 3),
        "episodes_per_hour": round(3600 * len(kept) / seconds, 2) if seconds else 0.0,
        "versions": versions(),
    }  # fmt: skip
    write_json(out / RECORD, told)
    return told
