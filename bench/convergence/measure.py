"""What else comes out when only the numerics change? `lucibot bench convergence RUN|TASK... [--finer]`

Rolls out what a finished run has found, or, for a task with particles, its actuators' way down onto the
target and back, as it is and with:

  displaced  the same scene, all waypoints 0.1 mm higher: what any difference has to be compared with
  halved     substeps of half the length
  stiffer    a liquid of four times the stiffness, substeps of half the length
  finer      particles and grid cells smaller by a quarter, substeps likewise (with --finer)

First how many cells sound crosses in a substep, and how far the fastest particle does; then for each
variant how far the median particle and the 90% quantile end from where they ended, where there are as
many of them [mm]; how far the middle of all does [mm]; into how many parts they have fallen; and what
the success predicates say.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lucibot.benchmark.workload import waypoints
from lucibot.core.errors import UserError
from lucibot.objective.success import judge
from lucibot.objective.supervision import Supervision
from lucibot.record import open_run
from lucibot.sim.grip import grasps
from lucibot.sim.parts import particle_parts
from lucibot.sim.regime import sound_cells
from lucibot.sim.rollout import run_rollout
from lucibot.sim.scene import SimScene
from lucibot.sim.state import FinalState, StateRecorder
from lucibot.store.finished import made_from, stage_folder
from lucibot.task import Task, load_task

DISPLACED_M = 1e-4
FINER = 0.75
STIFFER = 4.0


def main(argv: list[str]) -> int:
    p = argparse.ArgumentParser(
        prog="lucibot bench convergence", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("what", nargs="+", metavar="RUN|TASK",
                   help="run directories, or names of tasks")  # fmt: skip
    p.add_argument("--finer", action="store_true", help="also with finer particles and grid")
    p.add_argument("--substeps", type=int, help="in place of the task's")
    a = p.parse_args(argv)
    for what in a.what:
        task, rollout = recorded(Path(what)) if Path(what).is_dir() else made_up(what)
        if all(o.is_rigid for o in task.objects):
            raise UserError(f"{what}: task {task.name!r} has no particles")
        if a.substeps:
            task = changed(task, substeps=a.substeps)
        cells = ", ".join(f"{n} {c:.2f}" for n, c in sound_cells(task).items())
        print(
            f"{what}, {task.spec.simulation.substeps} substeps: in one sound crosses cells: {cells}"
        )
        measure_run(task, rollout, finer=a.finer)
    return 0


@dataclass(frozen=True)
class Rollout:
    """What is rolled out."""

    waypoints: np.ndarray
    """(K, A, 6)."""
    held: np.ndarray
    """(K, A) bool."""
    grasps: dict[str, np.ndarray]
    """As for `run_rollout`."""


def recorded(path: Path) -> tuple[Task, Rollout]:
    """What a run has found."""
    run, task, *_ = open_run(path)
    optimize = stage_folder(run, "optimize")
    supervision = Supervision.load(made_from(run, optimize, "perceive") / "supervision.npz")
    with np.load(optimize / "trajectory.npz") as z:
        waypoints = z["waypoints"]
    return task, Rollout(waypoints, supervision.held, grasps(task, supervision))


def made_up(name: str) -> tuple[Task, Rollout]:
    """What measurements roll out where there is no video."""
    task = load_task(name)
    found = waypoints(task)
    return task, Rollout(found, np.ones(found.shape[:2], bool), {})


@dataclass(frozen=True)
class Ending:
    """What a rollout ends with."""

    state: FinalState
    parts: dict[str, int]
    fastest_m_s: float
    """Any particle's largest speed along an axis after any step."""


def measure_run(task: Task, rollout: Rollout, *, finer: bool) -> None:
    """Prints a line for each variant and object of particles."""
    higher = rollout.waypoints + np.float32([0, 0, DISPLACED_M, 0, 0, 0])
    base, displaced = roll(task, rollout, np.stack([rollout.waypoints, higher]))
    sim = task.spec.simulation
    report("as it is", task, base, base)
    report("displaced", task, base, displaced)
    variants = {"halved": changed(task, substeps=2 * sim.substeps)}
    if any(o.is_liquid for o in task.objects):
        variants["stiffer"] = stiffer(changed(task, substeps=2 * sim.substeps))
    if finer:
        variants["finer"] = refined(changed(task, substeps=int(np.ceil(sim.substeps / FINER))))
    for name, variant in variants.items():
        (found,) = roll(variant, rollout, rollout.waypoints[None])
        report(name, variant, base, found)


def roll(task: Task, rollout: Rollout, waypoints: np.ndarray) -> list[Ending]:
    """Roll out (P, K, A, 6) waypoints at once, held and grasped as in a rollout."""
    scene = SimScene(task, n_envs=len(waypoints))
    recorder = StateRecorder(scene)
    recorder.start()
    fastest = np.zeros(len(waypoints))

    def look(_: int) -> None:
        for o in scene.particle_objects:
            speed = scene.particle_velocity(o.name).abs().amax((0, 2)).cpu().numpy()
            np.maximum(fastest, speed, out=fastest)

    run_rollout(
        scene, torch.from_numpy(waypoints), rollout.held, grasps=rollout.grasps,
        on_keyframe=lambda k: recorder.look(), on_step=look,
    )  # fmt: skip
    recorder.look()
    names = [o.name for o in scene.particle_objects]
    counts = {n: particle_parts(scene.particles(n), scene.link_m(n))[1].tolist() for n in names}
    return [
        Ending(state, {n: counts[n][b] for n in names}, float(fastest[b]))
        for b, state in enumerate(recorder.states())
    ]


def report(name: str, task: Task, base: Ending, found: Ending) -> None:
    judged = judge(task, found.state)
    measured = ", ".join(f"{n} {v:.3g}" for n, v in judged.metrics.items())
    for label, particles in found.state.particles.items():
        before, after = base.state.particles[label].final, particles.final
        away = "            "
        if len(before) == len(after):
            moved = 1e3 * np.linalg.norm(after - before, axis=1)
            away = f"{np.median(moved):5.1f} {np.quantile(moved, 0.9):5.1f} "
        middle = 1e3 * np.linalg.norm(after.mean(0) - before.mean(0))
        print(f"  {name:<10} {label:<12} {len(after):5d} particles {away} middle {middle:5.1f}  "
              f"parts {found.parts[label]}  fastest {found.fastest_m_s:4.1f} m/s", flush=True)  # fmt: skip
    print(f"  {'':<10} success {judged.success:d} score {judged.score:.3f}: {measured}", flush=True)


def changed(task: Task, **simulation) -> Task:
    """The task with other values in `[simulation]`."""
    sim = task.spec.simulation.model_copy(update=simulation)
    return Task(task.folder, task.spec.model_copy(update={"simulation": sim}), task.instruction)


def _with_materials(task: Task, change) -> Task:
    objects = [
        o if o.is_rigid else o.model_copy(update={"material": change(o.material)})
        for o in task.objects
    ]
    return Task(
        task.folder, task.spec.model_copy(update={"objects": objects}), task.instruction
    )  # fmt: skip


def stiffer(task: Task) -> Task:
    """The task with a stiffer liquid."""
    return _with_materials(task, lambda m: m if m.kind != "liquid" else m.model_copy(
        update={"stiffness_pa": STIFFER * m.stiffness_pa}))  # fmt: skip


def refined(task: Task) -> Task:
    """The task with smaller particles and cells."""
    mpm = task.spec.simulation.mpm
    if mpm is not None:
        mpm = mpm.model_copy(update={"grid_density": mpm.grid_density / FINER})
    return changed(_with_materials(task, lambda m: m.model_copy(
        update={"particle_size_m": FINER * m.particle_size_m})), mpm=mpm)  # fmt: skip
