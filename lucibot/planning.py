"""`lucibot robot`: can an arm do what was learned, and how?"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lucibot.config import RunConfig
from lucibot.core.errors import RunFailed
from lucibot.core.scene_view import SceneView
from lucibot.core.video import read_video
from lucibot.objective.supervision import Supervision
from lucibot.options import with_settings
from lucibot.record import open_run
from lucibot.robot.arm import Arm, arm_names
from lucibot.robot.collision import CollisionWorld
from lucibot.robot.holds import NoPlan
from lucibot.robot.motion import Motion, plan_motion
from lucibot.robot.plan import ArmPlan
from lucibot.settings import Parser
from lucibot.store.finished import made_from, replay_of, stage_folder
from lucibot.store.run import write_json
from lucibot.task import Task

FOLDER = "robot"
"""In the run directory."""
SHOWN = 4
"""Pictures of one hold."""


def command(argv: list[str]) -> int:
    """`lucibot robot`; exit status 1 where the arm cannot do it.

    Raises:
        UserError: no such run or arm, or a run without a replay.
    """
    p = Parser(
        "lucibot robot", "RUN [--arm NAME]",
        "Plan how an arm takes hold of what a run has moved and follows its trajectory: which grasp, from "
        "where, and the joints' way, without hitting anything. Written into the run's folder robot/; "
        "nothing is simulated: that is `lucibot resume RUN --robot NAME`.",
    )  # fmt: skip
    p.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    p.add_argument("--arm", metavar="NAME",
                   help=f"{' or '.join(arm_names())}, or an arm's folder (default: franka)")  # fmt: skip
    p.add_argument("--base", metavar="X,Y,Z,DEG",
                   help="where it stands [m, world], and how it is turned; sought if not given")  # fmt: skip
    p.add_argument("--seed", metavar="INT", help="of grasps, restarts and ways (default: 0)")
    a, _ = p.parse(argv)
    given = {"robot": a.get("arm", "franka")}
    given |= {f"robot.{n}": a[n] for n in ("base", "seed") if n in a}
    config = with_settings(RunConfig(), given).robot
    # What is wrong with the arm is told before the run is read.
    arm, base = config.load(), config.T_world_base()
    told = plan_run(a["run"], arm, base=base, seed=config.seed, say=print)
    if told["failed"] is not None:
        raise RunFailed(f"it cannot be done ({told['failed']}): {told['why']}")
    return 0


def plan_run(
    run: Path, arm: Arm, *, base: np.ndarray | None = None, seed: int = 0, say=lambda line: None
) -> dict[str, Any]:
    """Plan how an arm does what a finished run has learned, and write what was found below
    `RUN/robot/ARM`: `plan.json`; and of each hold an npz (`lucibot.robot.plan.ArmPlan`) and a picture; and
    `joints.csv`, the joints at every step. What an earlier plan has left there goes first.

    Args:
        base: (4, 4) where the arm stands; sought if not given.

    Returns:
        what `plan.json` says; `failed` is the stage to blame where it cannot be done, and `why` says why.

    Raises:
        UserError: not a run, or one without a replay of this version.
    """
    directory, task, _, _ = open_run(run)
    execute = stage_folder(directory, "execute")
    rollout = replay_of(directory, execute)
    areas = Supervision.load(
        made_from(directory, execute, "perceive") / "supervision.npz"
    ).affordance.areas()
    out = directory.path / FOLDER / arm.name
    out.mkdir(parents=True, exist_ok=True)
    _clear(out, task)
    told = {
        "arm": arm.name,
        "task": task.name,
        "seed": seed,
        "failed": None,
        "why": "",
        "holds": [],
    }
    try:
        plans, motion = plan_motion(task, arm, rollout, areas, T_world_base=base, seed=seed)
    except NoPlan as e:
        told |= {"failed": e.stage, "why": str(e)}
        write_json(out / "plan.json", told)
        return told
    scene = SceneView.load(stage_folder(directory, "scene"))
    for i, plan in enumerate(plans):
        name = f"{i}_{plan.actuator}"
        plan.save(out / f"{name}.npz")
        picture = _picture(execute, scene, task, plan, arm)
        cv2.imwrite(str(out / f"{name}.png"), picture[..., ::-1])
        told["holds"].append(plan.told() | {"slower": float(motion.slower[i])})
        say(f"{plan.actuator}: yes, {motion.slower[i]:.1f} times as slow as in simulation; "
            f"{plan.tried['reaching']} of {plan.tried['grasps']} grasps reach all of it; "
            f"{out / name}.png")  # fmt: skip
        if plan.remark:
            say(f"{plan.actuator}: {plan.remark}")
    _write_csv(arm, motion, out / "joints.csv")
    write_json(out / "plan.json", told)
    return told


def _clear(out: Path, task: Task) -> None:
    """Remove what an earlier plan has left, and nothing else."""
    of_holds = (f"[0-9]*_{o.name}.{kind}" for o in task.actuators for kind in ("npz", "png"))
    for pattern in ("plan.json", "joints.csv", *of_holds):
        for path in out.glob(pattern):
            path.unlink()


def _write_csv(arm: Arm, motion: Motion, path: Path) -> None:
    with open(path, "w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["time_s", "phase", *arm.spec.joints, "opening_m"])
        step = 0
        for phase in motion.phases:
            for q, opening in zip(phase.angles, phase.opening_m, strict=True):
                step += 1
                rows.writerow([f"{step * motion.dt_s:.4f}", phase.kind, *(f"{v:.6f}" for v in q),
                               f"{opening:.4f}"])  # fmt: skip


def _picture(execute: Path, scene: SceneView, task: Task, plan: ArmPlan, arm: Arm) -> np.ndarray:
    from lucibot.robot.picture import arm_over

    film = read_video(execute / "film.mp4")
    at = np.unique(np.linspace(0, len(plan.angles) - 1, SHOWN).round().astype(int))
    pictures = [
        film.frames[min(round(plan.simulated_s[t] * film.fps), len(film) - 1)] for t in at
    ]  # fmt: skip
    h, w = pictures[0].shape[:2]
    camera = task.camera.resized(w, h)
    depth = cv2.resize(scene.background_depth_m, (w, h), interpolation=cv2.INTER_NEAREST)
    obj = task.object(plan.actuator)
    carried = (obj, plan.T_obj_tcp) if obj.is_rigid else None
    world = CollisionWorld(arm, plan.T_world_base, task, carried, opening_m=plan.width_m or 0.004)
    return arm_over(pictures, world, plan.angles[at], camera, depth)
