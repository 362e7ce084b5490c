"""An arm does what was learned, in the task's own simulation (paper, section 3.4)."""

from __future__ import annotations

import time

import numpy as np

from lucibot.core.errors import RunFailed
from lucibot.core.video import Video, write_video
from lucibot.objective.supervision import Supervision
from lucibot.pipeline import Context
from lucibot.robot.arm import Arm
from lucibot.robot.holds import NoPlan
from lucibot.robot.motion import Motion, plan_motion
from lucibot.robot.simulation import perform, tracking
from lucibot.sim.grip import grasps
from lucibot.store.rollout import Rollout
from lucibot.store.run import write_json

ROBOT = "robot.json"


def run(ctx: Context) -> None:
    """Writes `robot.json`; of each hold its plan, `plan_N.npz`; and where there is a way for the arm
    `rollout.npz` of every step, `final_state.npz` and `film.mp4`."""
    config, task = ctx.config, ctx.task
    arm = config.load()
    rollout = Rollout.load(ctx.inputs["execute"] / "rollout.npz")
    supervision = Supervision.load(ctx.inputs["perceive"] / "supervision.npz")
    told: dict = {"arm": arm.name, "failed": None, "why": "", "holds": [], "tracking": None}
    seconds = told["seconds"] = {}
    begin = time.perf_counter()
    try:
        plans, motion = plan_motion(
            task, arm, rollout, supervision.affordance.areas(), T_world_base=config.T_world_base(),
            seed=config.seed, progress=ctx.progress,
        )  # fmt: skip
    except NoPlan as e:
        told |= {"failed": e.stage, "why": str(e)}
        ctx.note(f"{arm.spec.title}: {e}")
        write_json(ctx.folder / ROBOT, told)
        return
    seconds["plan"] = round(time.perf_counter() - begin, 3)
    told |= {"holds": [plan.told() for plan in plans], "slower": motion.slower.tolist()}
    for i, plan in enumerate(plans):
        plan.save(ctx.folder / f"plan_{i}.npz")
        if plan.remark:
            ctx.note(f"{plan.actuator}: {plan.remark}")
    begin = time.perf_counter()
    try:
        _perform(ctx, arm, motion, supervision, told)
    except RunFailed as e:
        told |= {"failed": "execution", "why": str(e)}
        ctx.note(f"{arm.spec.title}: {e}")
    seconds["simulation"] = round(time.perf_counter() - begin, 3)
    write_json(ctx.folder / ROBOT, told)


def _perform(ctx: Context, arm: Arm, motion: Motion, supervision: Supervision, told: dict) -> None:
    config, task = ctx.config, ctx.task
    width = min(config.film_width, task.camera.width)
    camera = task.camera.resized(width, round(width * task.camera.height / task.camera.width))
    every = max(1, round(1 / (config.film_fps * motion.dt_s)))
    done = perform(task, arm, motion, grasps(task, supervision), camera, every,
                   feedback=config.feedback, progress=ctx.progress)  # fmt: skip
    if done.diverged:
        told |= {"failed": "execution", "why": "the simulation with the arm diverged"}
        ctx.note(told["why"])
    told["tracking"] = tracking(done, motion)
    told["simulated_s"] = float(done.rollout.times_s[-1])
    done.rollout.save(ctx.folder / "rollout.npz")
    done.state.save(ctx.folder / "final_state.npz")
    film = Video(frames=np.stack(done.pictures), fps=1 / (every * motion.dt_s))
    write_video(ctx.folder / "film.mp4", film)
