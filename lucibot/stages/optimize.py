"""The search for a trajectory that does what the video shows (paper, section 3.4)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lucibot.baselines.judge import JUDGE, Given, judged
from lucibot.core.scene_view import SceneView
from lucibot.objective.supervision import Supervision
from lucibot.optimize.clearance import Clearance
from lucibot.optimize.config import (
    DescentStart,
    OwnOptimizer,
    RandomStart,
    SearchConfig,
    VideoStart,
)
from lucibot.optimize.descent import Descended, ToWaypoints, descend
from lucibot.optimize.parametrization import Parametrization
from lucibot.optimize.search import SearchResult, evaluate_once, search
from lucibot.optimize.start import random_start
from lucibot.pipeline import Context
from lucibot.sim.grip import grasps
from lucibot.sim.regime import warnings
from lucibot.store.configs import to_dict
from lucibot.store.run import write_json
from lucibot.task import Task

if TYPE_CHECKING:
    from lucibot.config import OptimizeConfig, RunConfig
    from lucibot.sim.workers import ShardedEvaluator

STARTS = {"video": VideoStart(), "random": RandomStart()}


def begin(task: Task, config: RunConfig) -> ShardedEvaluator:
    """Let the simulation be built while the video is imagined and read.

    Raises:
        UserError: what the objective needs or an optimizer of one's own is not there, which is better
            said now.
    """
    config.optimize.objective.ensure()
    if isinstance(config.optimize.search.optimizer, OwnOptimizer):
        config.optimize.search.optimizer.find()
    return _workers(task, config.optimize)


def run(ctx: Context) -> None:
    """Writes `trajectory.npz`, `history.npz`, `search.json`, and a checkpoint each generation."""
    if ctx.ahead is not None:
        _run(ctx, ctx.ahead)
        return
    with _workers(ctx.task, ctx.config) as evaluator:
        _run(ctx, evaluator)


def _workers(task: Task, config: OptimizeConfig) -> ShardedEvaluator:
    from lucibot.sim.cluster import RayFarm
    from lucibot.sim.sharding import Sharding
    from lucibot.sim.workers import ShardedEvaluator

    population = config.search.population if task.is_searched else 1
    farm = RayFarm(config.cluster, device=config.device) if config.cluster else None
    sharding = Sharding.of(
        task, population, workers=config.workers or (farm.cores if farm else 0), device=config.device,
        environments=config.environments, one_process=farm is None,
    )  # fmt: skip
    return ShardedEvaluator(task, sharding, device=config.device, farm=farm)


def _run(ctx: Context, evaluator: ShardedEvaluator) -> None:
    for warning in warnings(ctx.task):
        ctx.note(warning)
    given = _given(ctx)
    config, supervision = ctx.config, given.supervision
    estimate = np.asarray(supervision.waypoints, np.float32)
    judge = config.objective.judge(given)
    followed = config.objective.followed(given)
    evaluator.supervise(supervision, config.objective.in_workers(), ctx.progress)
    evaluate = judged(evaluator.evaluate, judge)
    weights = (
        dict.fromkeys(config.objective.in_workers().term_weights(), 0.0) | dict(judge.weights)
        if judge is not None
        else config.objective.in_workers().term_weights()
    )

    def save(found: SearchResult, start: np.ndarray, descended: Descended | None = None) -> None:
        _save(
            ctx, found, estimate, start, supervision, evaluator.sharding.n_envs, weights, descended
        )

    if not ctx.task.is_searched or followed is not None:
        alone = estimate if followed is None else followed
        save(evaluate_once(evaluate, alone), alone)
        return
    if not supervision.held.any():
        why = _why_unheld(ctx.inputs["perceive"], supervision)
        ctx.note(f"no actuator is held at any keyframe, so nothing is searched: {why}")
        save(evaluate_once(evaluate, estimate), estimate)
        return
    clear = Clearance.of(ctx.task, grasps(ctx.task, supervision))

    def repair(waypoints: np.ndarray) -> np.ndarray:
        return clear.repaired(waypoints, supervision.held)

    start_config = config.start or STARTS[config.objective.START]
    search_config = config.search
    descended = None
    if isinstance(start_config, RandomStart):
        start = repair(
            random_start(ctx.task, estimate, supervision.held, start_config, seed=ctx.seed)
        )
        search_config = dataclasses.replace(
            search_config, sigma_position_m=start_config.sigma_position_m, sigma_depth_m=None,
            sigma_rotation_deg=start_config.sigma_rotation_deg,
        )  # fmt: skip
    else:
        start = repair(estimate)
    parametrization = _parametrization(start, supervision, search_config)
    if isinstance(start_config, DescentStart):
        to_waypoints = ToWaypoints(parametrization, clear, supervision.held)
        descended = _descended(ctx, supervision, start_config, to_waypoints)
        start = to_waypoints(descended.sample[None])[0]
        parametrization = dataclasses.replace(parametrization, start=start)
    if search_config.generations == 0:
        save(evaluate_once(evaluate, start), start, descended)
        return
    found = search(
        evaluate, parametrization, search_config, seed=ctx.seed,
        checkpoints=ctx.folder / "checkpoints", repair=repair,
        reached=config.objective.reached, progress=ctx.progress,
    )  # fmt: skip
    save(found, start, descended)


def _why_unheld(perceive: Path, supervision: Supervision) -> str:
    reasons = json.loads((perceive / "answers.json").read_text())["reasons"]
    return " ".join(reasons[f"held {name}"] for name in supervision.actuators)


def _parametrization(
    start: np.ndarray, supervision: Supervision, config: SearchConfig
) -> Parametrization:
    return Parametrization(
        start=start, free=supervision.held,
        sigma_position_m=config.sigma_position_m,
        sigma_rotation_rad=np.deg2rad(config.sigma_rotation_deg),
        sigma_depth_m=config.sigma_depth_m,
        camera_position_m=supervision.camera.T_world_cam[:3, 3],
        correlation=config.correlation,
    )  # fmt: skip


def _descended(
    ctx: Context, supervision: Supervision, config: DescentStart, to_waypoints: ToWaypoints
) -> Descended:
    """From where the poses were read, down the slope; what was found before is kept."""
    from lucibot.sim.descent import SlopeProcess

    path = ctx.folder / "checkpoints" / "descent.npz"
    if (found := Descended.load(path)) is not None:
        return found
    objective = ctx.config.objective
    with SlopeProcess(
        ctx.task, config.tries, supervision, objective.in_workers(), objective.weights, to_waypoints
    ) as slopes:
        found = descend(slopes, to_waypoints.parametrization.dimension, config, ctx.progress)
    path.parent.mkdir(exist_ok=True)
    found.save(path)
    return found


def _given(ctx: Context) -> Given:
    """What the objective may look at."""
    folder = ctx.folder / JUDGE
    if ctx.config.objective.JUDGED:
        folder.mkdir(exist_ok=True)
    supervision = Supervision.load(ctx.inputs["perceive"] / "supervision.npz")
    return Given(
        task=ctx.task, view=SceneView.load(ctx.inputs["scene"]),
        supervision=ctx.config.objective.supervised(supervision),
        services=ctx.services, folder=folder, inputs=ctx.inputs, seed=ctx.seed,
        progress=ctx.progress, note=ctx.note,
    )  # fmt: skip


def _save(
    ctx: Context, found: SearchResult, estimate, start, supervision, environments: int,
    weights: dict[str, float], descended: Descended | None,
) -> None:  # fmt: skip
    np.savez_compressed(
        ctx.folder / "trajectory.npz", waypoints=found.waypoints, start=start, estimate=estimate,
        held=supervision.held, keyframes=supervision.keyframes,
    )  # fmt: skip
    objective = ctx.config.objective
    include_start = ctx.config.search.include_start
    start_loss = float(found.history[0]["loss"][-1])
    names = [n for n in found.history[0] if n != "waypoints"]
    np.savez_compressed(
        ctx.folder / "history.npz",
        waypoints=np.stack([h["waypoints"] for h in found.history]),
        **{n: np.stack([h[n] for h in found.history]) for n in names},
    )
    write_json(
        ctx.folder / "search.json",
        {"loss": found.loss, "terms": found.terms, "rollouts": found.rollouts + (descended.rollouts if descended else 0),
         "generations": len(found.history), "environments": environments, "device": ctx.config.device,
         "objective": to_dict(objective), "weights": weights,
         "seconds": {n: round(s, 3) for n, s in found.seconds.items()},
         "failed": int(sum(h["failed"].sum() for h in found.history)),
         "start_loss": start_loss if include_start and np.isfinite(start_loss) else None,
         "descent": None if descended is None else _told(descended)},
    )  # fmt: skip


def _told(descended: Descended) -> dict:
    return {
        "losses": [round(float(x), 6) for x in descended.losses], "rollouts": descended.rollouts,
        "slopes": descended.slopes, "equivalents": round(descended.equivalents, 1),
    }  # fmt: skip
