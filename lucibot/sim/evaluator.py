"""The batched evaluator: waypoints in, losses out (paper, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lucibot.core.errors import UserError
from lucibot.objective.config import Scored
from lucibot.objective.evaluation import Evaluation
from lucibot.objective.objective import Seen
from lucibot.objective.supervision import Supervision
from lucibot.sim.contact import Contacts
from lucibot.sim.grip import grasps, regrasps
from lucibot.sim.moment import Moment
from lucibot.sim.observer import SceneObserver
from lucibot.sim.rollout import Aim, run_rollout
from lucibot.sim.scene import SimScene
from lucibot.sim.state import FinalState, StateRecorder
from lucibot.task import Task

SHOWN = "shown/"
"""Before the names of what is brought home, beside those of terms."""


class Evaluator:
    """One built scene and an objective that is shown what it asks for; any number of rollouts, `n_envs`
    at a time."""

    def __init__(self, scene: SimScene, supervision: Supervision, objective: Scored):
        check_supervision(scene.task, supervision)
        self.scene, self._supervision, self._timer = scene, supervision, scene.timer
        scene.reset()
        rest = {n: scene.particles(n)[:, 0].clone() for n in scene.grips}
        self._objective = objective.create(scene.task, supervision, rest, str(scene.device))
        looks = self._objective.looks
        self._observer = SceneObserver(scene, supervision.camera, looks.around_pairs)
        self._contacts = Contacts(scene, looks.contact_pairs)

    @property
    def n_envs(self) -> int:
        """Environments rolled out together."""
        return self.scene.n_envs

    def evaluate(self, waypoints: np.ndarray) -> Evaluation:
        """Roll out (P, K, A, 6) float32 waypoints; P may be any number."""
        return self._run(waypoints, keep_states=False)[0]

    def evaluate_with_states(
        self,
        waypoints: np.ndarray,
        on_step: Callable[[int], None] | None = None,
        on_aim: Callable[[dict[str, Aim]], None] | None = None,
    ) -> tuple[Evaluation, list[FinalState]]:
        """The same, with P final states for measurement. The search must not call this.

        Args:
            on_step: called after every simulation step with the number of steps done.
            on_aim: called before it with where it is to bring what is held.
        """
        return self._run(waypoints, keep_states=True, on_step=on_step, on_aim=on_aim)

    def _run(self, waypoints: np.ndarray, *, keep_states: bool, **calls):
        wanted = self._supervision.waypoints.shape
        waypoints = np.asarray(waypoints, np.float32)
        if waypoints.ndim != 4 or waypoints.shape[1:] != wanted or not len(waypoints):
            raise ValueError(f"waypoints: expected (P, {wanted}), P > 0, got {waypoints.shape}")
        B, parts, states, before = self.scene.n_envs, [], [], dict(self._timer.seconds)
        for first in range(0, len(waypoints), B):
            chunk = waypoints[first : first + B]
            # The batch is always full: what fills it is rolled out too and then forgotten.
            full = np.concatenate([chunk, np.repeat(chunk[-1:], B - len(chunk), axis=0)])
            with self._timer.part("Python"):
                result, final = self._roll(full, keep_states, **calls)
            parts.append({n: v[: len(chunk)] for n, v in result.items()})
            states += final[: len(chunk)]
        joined = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
        failed, loss = joined.pop("failed"), joined.pop("loss")
        shown = {n: joined.pop(n) for n in list(joined) if n.startswith(SHOWN)}
        seconds = {n: s - before[n] for n, s in self._timer.seconds.items() if n != "ask and tell"}
        # A GPU would have to be waited for after every call to tell whose time it was.
        told = self.scene.device.type == "cpu" or self._timer.synchronize is not None
        return Evaluation(
            loss=loss, terms=joined, failed=failed, seconds=seconds if told else {},
            shown={n.removeprefix(SHOWN): v for n, v in shown.items()},
        ), states  # fmt: skip

    def _roll(
        self, waypoints: np.ndarray, keep_states: bool, **calls
    ) -> tuple[dict, list[FinalState]]:
        """One batch; returns terms, loss and failed, (B,) each."""
        # What is not a number is no trajectory: in its place the estimate is rolled out, and fails.
        unsound = ~np.isfinite(waypoints).all((1, 2, 3))
        waypoints = np.where(
            unsound[:, None, None, None], self._supervision.waypoints, waypoints
        ).astype(np.float32)
        recorder = StateRecorder(self.scene) if keep_states else None
        if recorder:
            self.scene.reset()
            recorder.start()
        moments: list[Moment] = []

        def keep(k: int) -> None:
            with self._timer.part("losses"):
                moments.append(self.scene.moment())
            if recorder:
                recorder.look()

        run_rollout(
            self.scene, torch.from_numpy(waypoints), self._supervision.held,
            grasps=grasps(self.scene.task, self._supervision),
            regrasps=regrasps(self.scene.task, self._supervision), on_keyframe=keep, **calls,
        )  # fmt: skip
        with self._timer.part("losses"):
            keyframes, end = Moment.joined(moments), self.scene.moment()
            failed = self.scene.diverged(end) | torch.from_numpy(unsound).to(self.scene.device)
            for at_keyframe in self.scene.diverged(keyframes).view(-1, len(failed)):
                failed |= at_keyframe
            seen = self._seen(keyframes, moments[-1], end)
            terms = self._objective.score(seen)
            for value in terms.values():
                failed = failed | ~torch.isfinite(value)
            loss = sum(
                (w * terms[n] for n, w in self._objective.weights.items()),
                torch.zeros(len(failed), device=failed.device),
            )
            loss = torch.where(failed, torch.inf, loss)
            terms = {n: torch.where(failed, torch.nan, v) for n, v in terms.items()}
        result = {n: v.float().cpu().numpy() for n, v in terms.items()}
        shown = self._objective.shown(seen)
        result |= {f"{SHOWN}{n}": v.cpu().numpy().copy() for n, v in shown.items()}
        result |= {"loss": loss.float().cpu().numpy(), "failed": failed.cpu().numpy()}
        if recorder:
            recorder.look()
        return result, recorder.states() if recorder else []

    def _seen(self, keyframes: Moment, goal: Moment, end: Moment) -> Seen:
        """What the objective asks for."""
        looks = self._objective.looks
        contact = self._contacts.touching(keyframes)
        with self._timer.part("observe"):
            overlap = (
                None if looks.masks is None else self._observer.overlap(looks.masks, keyframes)
            )
            pictures = {
                name: self._observer.picture(moment, name, parts=looks.parts)
                for name, moment in (("goal", goal), ("settled", end))
                if getattr(looks, name)
            }
        return Seen(
            overlap=overlap, contact=contact.unflatten(0, (-1, len(goal.error))),
            state=keyframes if looks.state else None,
            settled_state=end if looks.settled_state else None, **pictures,
        )  # fmt: skip


def check_supervision(task: Task, supervision: Supervision) -> None:
    """Raises a `UserError` if the supervision speaks of other objects than the task has."""
    actuators = tuple(o.name for o in task.actuators)
    if tuple(supervision.actuators) != actuators:
        raise UserError(
            f"the supervision is of actuators {', '.join(supervision.actuators)}, but task "
            f"{task.name!r} has {', '.join(actuators)}: perceive the video again"
        )
