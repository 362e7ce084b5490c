"""The batched evaluator: waypoints in, losses out (paper, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lucibot.core.errors import UserError
from lucibot.objective.affordance import AffordanceTerms
from lucibot.objective.evaluation import Evaluation
from lucibot.objective.losses import Losses, Observation, Parts
from lucibot.objective.supervision import Supervision
from lucibot.objective.weights import LossWeights
from lucibot.sim.contact import Contacts
from lucibot.sim.grip import grasps, regrasps
from lucibot.sim.moment import Moment
from lucibot.sim.observer import SceneObserver
from lucibot.sim.rollout import run_rollout
from lucibot.sim.scene import SimScene
from lucibot.sim.state import FinalState, StateRecorder
from lucibot.task import Task


class Evaluator:
    """One built scene with its observer and losses; any number of rollouts, `n_envs` at a time."""

    def __init__(self, scene: SimScene, supervision: Supervision, weights: LossWeights):
        task = scene.task
        check_supervision(task, supervision)
        self.scene = scene
        self._supervision, self._weights = supervision, weights
        labels = {o.name: task.label(o.name) for o in task.objects}
        self._losses = Losses(labels, supervision, str(self.scene.device))
        self._observer = SceneObserver(self.scene, supervision.camera, supervision.expected_around)
        self.scene.reset()
        rest = {n: self.scene.particles(n)[:, 0].clone() for n in self.scene.grips}
        self._affordance = AffordanceTerms(task, supervision, rest, str(self.scene.device))
        self._contacts = Contacts(self.scene, supervision.contact_pairs)

    @property
    def n_envs(self) -> int:
        """Environments rolled out together."""
        return self.scene.n_envs

    def evaluate(self, waypoints: np.ndarray) -> Evaluation:
        """Roll out (P, K, A, 6) float32 waypoints; P may be any number."""
        return self._run(waypoints, keep_states=False)[0]

    def evaluate_with_states(
        self, waypoints: np.ndarray, on_step: Callable[[int], None] | None = None
    ) -> tuple[Evaluation, list[FinalState]]:
        """The same, with P final states for measurement. The search must not call this.

        Args:
            on_step: called after every simulation step with the number of steps done.
        """
        return self._run(waypoints, keep_states=True, on_step=on_step)

    def _run(self, waypoints: np.ndarray, *, keep_states: bool, on_step=None):
        wanted = self._supervision.waypoints.shape
        waypoints = np.asarray(waypoints, np.float32)
        if waypoints.ndim != 4 or waypoints.shape[1:] != wanted or not len(waypoints):
            raise ValueError(f"waypoints: expected (P, {wanted}), P > 0, got {waypoints.shape}")
        B, parts, states = self.scene.n_envs, [], []
        for first in range(0, len(waypoints), B):
            chunk = waypoints[first : first + B]
            # The batch is always full: what fills it is rolled out too and then forgotten.
            full = np.concatenate([chunk, np.repeat(chunk[-1:], B - len(chunk), axis=0)])
            result, final = self._roll(full, keep_states, on_step)
            parts.append({n: v[: len(chunk)] for n, v in result.items()})
            states += final[: len(chunk)]
        joined = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
        failed, loss = joined.pop("failed"), joined.pop("loss")
        return Evaluation(loss=loss, terms=joined, failed=failed), states

    def _roll(
        self, waypoints: np.ndarray, keep_states: bool, on_step
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
            moments.append(self.scene.moment())
            if recorder:
                recorder.look()

        run_rollout(
            self.scene, torch.from_numpy(waypoints), self._supervision.held,
            grasps=grasps(self.scene.task, self._supervision),
            regrasps=regrasps(self.scene.task, self._supervision), on_keyframe=keep, on_step=on_step,
        )  # fmt: skip
        end = self.scene.moment()
        failed = self.scene.diverged(end) | torch.from_numpy(unsound).to(self.scene.device)
        keyframes = Moment.joined(moments)
        seen = self._at_keyframes(keyframes)
        for at_keyframe in seen:
            failed |= at_keyframe.pop("failed")
        terms = {n: mean_of_known([t[n] for t in seen]) for n in seen[0]}
        # The last keyframe is the goal frame: what was held is still held there.
        terms |= self._losses.at_goal(*self._seen(moments[-1]))
        terms |= self._losses.settled(*self._seen(end))
        terms |= self._affordance.terms(keyframes)
        for value in terms.values():
            failed = failed | ~torch.isfinite(value)
        loss = torch.where(failed, torch.inf, self._weights.total(terms))
        terms = {n: torch.where(failed, torch.nan, v) for n, v in terms.items()}
        result = {n: v.float().cpu().numpy() for n, v in terms.items()}
        result |= {"loss": loss.float().cpu().numpy(), "failed": failed.cpu().numpy()}
        if recorder:
            recorder.look()
        return result, recorder.states() if recorder else []

    def _at_keyframes(self, moments: Moment) -> list[dict[str, Tensor]]:
        """At each keyframe its terms, and whether an environment has "failed", (B,) each."""
        B = self.scene.n_envs
        overlap = self._observer.overlap(self._losses.wanted, moments)
        contact = self._contacts.touching(moments)
        contact = contact.view(len(overlap), B, contact.shape[1])
        failed = self.scene.diverged(moments).view(-1, B)
        return [
            {"failed": failed[k], **self._losses.at_keyframe(k, overlap[k], contact[k])}
            for k in range(len(overlap))
        ]

    def _seen(self, moment: Moment) -> tuple[Observation, Parts]:
        """What there is to see at one moment: everything, and the targets part by part."""
        label, depth = self._observer.observe(moment)
        return Observation(label=label, depth=depth), self._observer.observe_parts(moment)


def mean_of_known(values: list[Tensor]) -> Tensor:
    """Mean (P,) over a list of (P,), leaving NaN out; 0 where nothing is known.

    Added one by one, because a reduction over an axis may order its sum by the batch's size, and
    then a population would not give the same bits however it is sharded.
    """
    total, known = torch.zeros_like(values[0]), torch.zeros_like(values[0])
    for v in values:
        total = total + v.nan_to_num(0.0)
        known = known + (~v.isnan()).to(v.dtype)
    return total / known.clamp(min=1)


def check_supervision(task: Task, supervision: Supervision) -> None:
    """Raises a `UserError` if the supervision speaks of other objects than the task has."""
    actuators = tuple(o.name for o in task.actuators)
    if tuple(supervision.actuators) != actuators:
        raise UserError(
            f"the supervision is of actuators {', '.join(supervision.actuators)}, but task "
            f"{task.name!r} has {', '.join(actuators)}: perceive the video again"
        )
