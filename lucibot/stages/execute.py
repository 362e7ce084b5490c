"""The best trajectory in a fresh simulation: is its loss the same, and what does it look like?"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lucibot.baselines.config import ObjectiveConfig
from lucibot.baselines.judge import JUDGE, Given, Judge, with_verdict
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video, write_video
from lucibot.objective.supervision import Supervision
from lucibot.pipeline import Context
from lucibot.store.configs import from_dict
from lucibot.store.run import write_json
from lucibot.task import Task

if TYPE_CHECKING:
    from lucibot.config import ExecuteConfig, RunConfig
    from lucibot.sim.replay import Replay

SAME_LOSS = 1e-5
"""How far the replayed loss may lie from the search's; on one machine and device it is the same."""


def begin(task: Task, config: RunConfig) -> Replay:
    """Let the fresh simulation be built while earlier stages work."""
    from lucibot.sim.sharding import Sharding

    o = config.optimize
    population = o.search.population if task.is_searched else 1
    sharding = Sharding.of(
        task, population, workers=o.workers, device=o.device, environments=o.environments
    )  # fmt: skip
    return _replay(task, config.execute, environments=sharding.n_envs, device=o.device)


def run(ctx: Context) -> None:
    """Writes `film.mp4` in real time, a picture of each keyframe, `rollout.npz` of every step,
    `final_state.npz` and `execute.json`."""
    supervision = Supervision.load(ctx.inputs["perceive"] / "supervision.npz")
    with np.load(ctx.inputs["optimize"] / "trajectory.npz") as z:
        waypoints = z["waypoints"]
    search = json.loads((ctx.inputs["optimize"] / "search.json").read_text())
    searched = search["loss"]
    objective = from_dict(ObjectiveConfig, search["objective"])
    supervision = objective.supervised(supervision)

    sim, K = ctx.task.spec.simulation, len(waypoints)
    steps = K * sim.steps_per_waypoint + sim.settle_steps
    every = max(1, round(1 / (ctx.config.film_fps * sim.dt_s)))
    keyframes = [(k + 1) * sim.steps_per_waypoint for k in range(K)]
    film = range(0, steps + 1, every)
    environments, device = search["environments"], search["device"]

    pictured = sorted({*film, *keyframes, steps})
    arguments = (waypoints, supervision, objective.in_workers(), pictured, every, ctx.progress)
    if ctx.ahead is not None and ctx.ahead.n_envs == _batch(ctx.task, environments):
        found = ctx.ahead.run(*arguments)
    else:
        with _replay(ctx.task, ctx.config, environments=environments, device=device) as replay:
            found = replay.run(*arguments)
    pictures = found.pictures
    if found.undrawn:
        ctx.note(f"{found.undrawn} of {len(pictures)} pictures could not be drawn and repeat the "
                 "one before")  # fmt: skip
    write_video(ctx.folder / "film.mp4", Video(frames=np.stack([pictures[s] for s in film]),
                                               fps=1 / (every * sim.dt_s)))  # fmt: skip
    for k, step in enumerate(keyframes):
        cv2.imwrite(str(ctx.folder / f"keyframe_{k:02d}.png"), pictures[step][..., ::-1])
    cv2.imwrite(str(ctx.folder / "goal.png"), pictures[steps][..., ::-1])
    found.state.save(ctx.folder / "final_state.npz")
    found.rollout.save(ctx.folder / "rollout.npz")

    result = with_verdict(found.evaluation, _judge(ctx, objective, supervision))
    failed = bool(result.failed[0])
    loss = None if failed else float(result.loss[0])
    same = not failed and abs(loss - searched) <= SAME_LOSS * max(1.0, abs(searched))
    if failed:
        ctx.note(f"the replay diverged, the search's loss was {searched:.6f}")
    elif not same:
        ctx.note(f"the replay's loss is {loss:.6f}, the search's was {searched:.6f}")
    write_json(
        ctx.folder / "execute.json",
        {"loss": loss, "searched_loss": searched, "same_loss": same, "failed": failed,
         "terms": {n: None if failed else float(v[0]) for n, v in result.terms.items()}},
    )  # fmt: skip


def _judge(ctx: Context, objective: ObjectiveConfig, supervision: Supervision) -> Judge | None:
    """The search's, with what it knew at the end."""
    if not objective.JUDGED:
        return None
    shutil.copytree(ctx.inputs["optimize"] / JUDGE, ctx.folder / JUDGE, dirs_exist_ok=True)
    return objective.judge(
        Given(
            task=ctx.task, view=SceneView.load(ctx.inputs["scene"]), supervision=supervision,
            services=ctx.services, folder=ctx.folder / JUDGE, inputs=ctx.inputs, seed=ctx.seed,
            progress=ctx.progress, note=ctx.note,
        )
    )  # fmt: skip


def _replay(task: Task, config: ExecuteConfig, *, environments: int, device: str) -> Replay:
    from lucibot.sim.replay import Replay

    width = min(config.film_width, task.camera.width)
    camera = task.camera.resized(width, round(width * task.camera.height / task.camera.width))
    return Replay(task, camera=camera, n_envs=_batch(task, environments), device=device)


def _batch(task: Task, environments: int) -> int:
    """Where rigid bodies collide Genesis gives the same bits only for the same batch size."""
    return environments if task.spec.simulation.rigid_collision else 1
