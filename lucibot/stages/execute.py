"""The best trajectory in a fresh simulation: is its loss the same, and what does it look like?"""

from __future__ import annotations

import json

import cv2
import numpy as np

from lucibot.core.video import Video, write_video
from lucibot.objective.supervision import Supervision
from lucibot.objective.weights import LossWeights
from lucibot.pipeline import Context
from lucibot.store.run import write_json

SAME_LOSS = 1e-5
"""How far the replayed loss may lie from the search's; on one machine and device it is the same."""


def run(ctx: Context) -> None:
    """Writes `film.mp4`, a picture of each keyframe, `final_state.npz` and `execute.json`."""
    from lucibot.sim.evaluator import Evaluator
    from lucibot.sim.scene import SimScene

    supervision = Supervision.load(ctx.inputs["perceive"] / "supervision.npz")
    with np.load(ctx.inputs["optimize"] / "trajectory.npz") as z:
        waypoints = z["waypoints"]
    search = json.loads((ctx.inputs["optimize"] / "search.json").read_text())
    searched, weights = search["loss"], LossWeights(**search["weights"])

    sim = ctx.task.spec.simulation
    camera = ctx.task.camera
    width = min(ctx.config.film_width, camera.width)
    camera = camera.resized(width, round(width * camera.height / camera.width))
    steps = len(waypoints) * sim.steps_per_waypoint + sim.settle_steps
    every = max(1, round(steps / ctx.config.film_frames))
    frames: list[np.ndarray] = []

    def film(step: int) -> None:
        at_keyframe = step % sim.steps_per_waypoint == 0 and step // sim.steps_per_waypoint <= len(
            waypoints
        )
        if not (step % every == 0 or at_keyframe or step == steps):
            return
        ctx.progress("filming the replay", step / steps)
        rgb = scene.film_frame()
        if step % every == 0 or step == steps:
            frames.append(rgb)
        if at_keyframe:
            name = f"keyframe_{step // sim.steps_per_waypoint - 1:02d}.png"
            cv2.imwrite(str(ctx.folder / name), rgb[..., ::-1])

    # Where rigid bodies collide Genesis gives the same bits only for the same batch size.
    n_envs = search["environments"] if sim.rigid_collision else 1
    scene = SimScene(ctx.task, n_envs=n_envs, camera=camera, progress=ctx.progress)
    evaluator = Evaluator(scene, supervision, weights)
    first = scene.film_frame()
    result, states = evaluator.evaluate_with_states(waypoints[None], on_step=film)
    write_video(ctx.folder / "film.mp4", Video(frames=np.stack([first, *frames]),
                                               fps=ctx.config.film_fps))  # fmt: skip
    cv2.imwrite(str(ctx.folder / "goal.png"), frames[-1][..., ::-1])
    states[0].save(ctx.folder / "final_state.npz")
    loss = float(result.loss[0])
    same = abs(loss - searched) <= SAME_LOSS * max(1.0, abs(searched))
    if not same:
        ctx.note(f"the replay's loss is {loss:.6f}, the search's was {searched:.6f}")
    write_json(
        ctx.folder / "execute.json",
        {"loss": loss, "searched_loss": searched, "same_loss": same,
         "failed": bool(result.failed[0]),
         "terms": {n: float(v[0]) for n, v in result.terms.items()}},
    )  # fmt: skip
