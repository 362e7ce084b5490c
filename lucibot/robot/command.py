"""`lucibot robot`: can an arm do what was learned, and how?"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lucibot.core.errors import RunFailed, UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.video import read_video
from lucibot.objective.supervision import Supervision
from lucibot.pipeline import made_from, open_run, replay_of, stage_folder
from lucibot.robot.arm import Arm, arm_names, load_arm
from lucibot.robot.plan import ArmPlan, Hold, NoPlan, holds_of, plan_hold
from lucibot.settings import Parser
from lucibot.store.run import write_json

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
        "Let an arm take hold of what a run has moved and follow its trajectory: which grasp, from where, "
        "and the joints' way, without hitting anything. Written into the run's folder robot/; the arm's "
        "own physics is not simulated.",
    )  # fmt: skip
    p.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    p.add_argument("--arm", metavar="NAME",
                   help=f"{' or '.join(arm_names())}, or an arm's folder (default: franka)")  # fmt: skip
    p.add_argument("--base", metavar="X,Y,Z,DEG",
                   help="where it stands [m, world], and how it is turned; sought if not given")  # fmt: skip
    p.add_argument("--seed", type=int, metavar="INT", help="of grasps and restarts (default: 0)")
    a, _ = p.parse(argv)
    if a.get("seed", 0) < 0:
        raise UserError(f"--seed {a['seed']}: expected 0 or more")
    arm = load_arm(a.get("arm", "franka"))
    _ = arm.chain  # What is wrong with the arm is told before the run is read.
    base = _base(a["base"]) if "base" in a else None
    told = plan_run(a["run"], arm, base=base, seed=a.get("seed", 0), say=print)
    wrong = [row for row in told["holds"] if "failed" in row]
    if wrong:
        raise RunFailed(
            f"{len(wrong)} of {len(told['holds'])} holds cannot be done by {arm.name}: "
            + "; ".join(row["why"] for row in wrong)
        )
    return 0


def plan_run(
    run: Path, arm: Arm, *, base: np.ndarray | None = None, seed: int = 0, say=lambda line: None
) -> dict[str, Any]:
    """Plan every hold of a finished run, and write what was found below `RUN/robot/ARM`: `plan.json`, of
    each hold an npz (`lucibot.robot.plan.ArmPlan`), a CSV of the joints and a picture.

    Args:
        base: (4, 4) where the arm stands; sought for each hold if not given.

    Returns:
        what `plan.json` says; a hold that cannot be done has `failed`, the stage to blame, and `why`.

    Raises:
        UserError: not a run, or one without a replay of this version.
    """
    directory, task, _, _ = open_run(run)
    execute = stage_folder(directory, "execute")
    rollout = replay_of(directory, execute)
    told = Supervision.load(
        made_from(directory, execute, "perceive") / "supervision.npz"
    ).affordance
    holds = holds_of(task, rollout)
    if not holds:
        raise UserError(f"{run}: nothing is held in it, so there is nothing for an arm to do")
    out = directory.path / FOLDER / arm.name
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, hold in enumerate(holds):
        a = rollout.actuators.index(hold.actuator)
        areas = [told.area(a, h)[0] for h in told.holds(a)]
        row = {"actuator": hold.actuator, "from_s": hold.times_s[0], "to_s": hold.times_s[-1]}
        try:
            plan = plan_hold(
                task, hold, np.concatenate(areas) if areas else np.zeros((0, 3)), arm,
                T_world_base=base, seed=seed,
            )  # fmt: skip
        except NoPlan as e:
            rows.append({**row, "failed": e.stage, "why": str(e)})
            say(f"{hold.actuator}: no ({e.stage}): {e}")
            continue
        name = f"{i}_{hold.actuator}"
        plan.save(out / f"{name}.npz")
        _write_csv(plan, out / f"{name}.csv")
        scene = SceneView.load(stage_folder(directory, "scene"))
        cv2.imwrite(
            str(out / f"{name}.png"), _picture(execute, scene, task, hold, plan, arm)[..., ::-1]
        )
        rows.append({
            **row, "base": plan.T_world_base.tolist(), "grasp": plan.T_obj_tcp.tolist(),
            "width_m": plan.width_m, "quality": plan.quality, "slower": plan.slower,
            "most_off_m": float(plan.off_m.max()), "most_off_deg": float(plan.off_deg.max()),
            "seconds": float(plan.times_s[-1]), "tried": plan.tried,
        })  # fmt: skip
        say(f"{hold.actuator}: yes, in {plan.times_s[-1]:.1f} s ({plan.slower:.1f} times as slow as in "
            f"simulation); {plan.tried['reaching']} of {plan.tried['grasps']} grasps reach all of it; "
            f"{out / name}.png")  # fmt: skip
    told = {"arm": arm.name, "task": task.name, "seed": seed, "holds": rows}
    write_json(out / "plan.json", told)
    return told


def _base(text: str) -> np.ndarray:
    try:
        x, y, z, deg = (float(v) for v in text.split(","))
        if not np.isfinite([x, y, z, deg]).all():
            raise ValueError
    except ValueError:
        raise UserError(f"--base {text}: expected X,Y,Z,DEG, four numbers") from None
    T = np.eye(4)
    s, c = np.sin(np.deg2rad(deg)), np.cos(np.deg2rad(deg))
    T[:2, :2], T[:3, 3] = [[c, -s], [s, c]], (x, y, z)
    return T


def _write_csv(plan: ArmPlan, path: Path) -> None:
    with open(path, "w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["time_s", *plan.joints])
        for t, q in zip(plan.times_s, plan.angles, strict=True):
            rows.writerow([f"{t:.4f}", *(f"{v:.6f}" for v in q)])


def _picture(
    execute: Path, scene: SceneView, task, hold: Hold, plan: ArmPlan, arm: Arm
) -> np.ndarray:
    from lucibot.robot.collision import CollisionWorld
    from lucibot.robot.picture import arm_over

    film = read_video(execute / "film.mp4")
    at = np.unique(np.linspace(0, len(hold.steps) - 1, SHOWN).round().astype(int))
    pictures = [
        film.frames[min(round(hold.times_s[t] * film.fps), len(film) - 1)] for t in at
    ]  # fmt: skip
    h, w = pictures[0].shape[:2]
    camera = task.camera.resized(w, h)
    depth = cv2.resize(scene.background_depth_m, (w, h), interpolation=cv2.INTER_NEAREST)
    obj = task.object(hold.actuator)
    carried = (obj, plan.T_obj_tcp) if obj.is_rigid else None
    world = CollisionWorld(arm, plan.T_world_base, task, carried, opening_m=plan.width_m or 0.004)
    return arm_over(pictures, world, plan.angles[at + 1], camera, depth)
