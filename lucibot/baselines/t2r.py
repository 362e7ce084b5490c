"""Text to reward (T2R): code that was written from a description of the scene scores its state.

The paper prompts a language model with the simulator's interface and lets it write a reward function of
the final state (section 4.1, appendix A, whose words are not in its text: those here are LuciBot's). The
code is a stranger's, so it runs in `lucibot.sandbox`. What fails is sent back once; where it had scored
rollouts before, the search begins anew with what comes back.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, Field

from lucibot.baselines.config import FileRewards, T2RObjective, VlmRewards
from lucibot.baselines.judge import Given
from lucibot.core.geometry import pose_np
from lucibot.objective.evaluation import Evaluation, OtherScale
from lucibot.providers.asking import Text, told, words
from lucibot.sandbox import CodeFailed, Limits, ensure_walls, scored, walls
from lucibot.task import Task

KEPT = "reward.py"
"""The code that was last run; missing until then."""


class Written(BaseModel):
    plan: Text = Field(
        description="What tells that the task is done, and how the code measures it."
    )
    code: Text = Field(description="The Python code, without a fence around it.")


class TextToReward:
    """The `Judge` behind `lucibot.baselines.config.T2RObjective`."""

    def __init__(self, config: T2RObjective, given: Given):
        """
        Raises:
            UserError: nobody has written code for this task, or it cannot be shut in.
        """
        self.weights = {"negative_reward": 1.0}
        self._config, self._given = config, given
        self._within = walls() if config.trust_reward_code else ensure_walls()
        if not self._within:
            given.note("reward code runs with all rights: it could not be shut in, and is trusted")
        self._limits = Limits(seconds=config.seconds, memory_mib=config.memory_mib)
        self._known = known(given.task)
        self._repaired = False
        self._kept = given.folder / KEPT
        self.code = self._kept.read_text() if self._kept.is_file() else self._written()

    def terms(self, rollouts: Evaluation) -> dict[str, np.ndarray]:
        """See `Judge`.

        Raises:
            CodeFailed: the code fails, also when it has been repaired.
            OtherScale: the code has been repaired after it had scored other rollouts.
        """
        arrays = with_joints(self._given.task, rollouts.shown)
        try:
            values = self._score(arrays, len(rollouts.loss))
        except CodeFailed as e:
            if self._repaired or not isinstance(self._config.writer, VlmRewards):
                self._kept.write_text(self.code)
                raise CodeFailed(f"{e} ({self._kept})") from None
            self._given.note(f"{e}; it is sent back once")
            self._repaired = True
            self.code = self._asked(f"{self._question()}\n\nThis was your code:\n\n{self.code}\n\nRun "
                                    f"on a scene it ended with: {e}. Mend it.")  # fmt: skip
            if self._kept.is_file():
                # Who is stopped before the search has begun anew finds the old code's scores with it.
                self._kept.unlink()
                raise OtherScale(
                    "the reward code was mended after it had scored rollouts"
                ) from None
            values = self._score(arrays, len(rollouts.loss))
        self._kept.write_text(self.code)
        return {"negative_reward": -values.astype(np.float32)}

    def _score(self, arrays: dict[str, np.ndarray], rollouts: int) -> np.ndarray:
        return scored(
            self.code, rollouts, arrays, self._known, within=self._within, limits=self._limits
        )  # fmt: skip

    def _written(self) -> str:
        writer, task = self._config.writer, self._given.task
        if isinstance(writer, FileRewards):
            return writer.path.read_text()
        if isinstance(writer, VlmRewards):
            return self._asked(self._question())
        return writer.path(task).read_text()

    def _question(self) -> str:
        return f"{told(self._given.task)}\n\nThe scene:\n{described(self._given.task)}"

    def _asked(self, question: str) -> str:
        answer = self._given.services.vlm.ask(
            Written, model=self._config.writer.model, call_site="reward",
            instructions=words(__file__, "t2r.txt"), question=question,
        )  # fmt: skip
        return unfenced(answer.code)


def unfenced(code: str) -> str:
    """Code without the fence that models put around it all the same."""
    lines = code.strip().splitlines()
    if lines and lines[0].startswith("```"):
        lines = lines[1:-1] if lines[-1].startswith("```") else lines[1:]
    return "\n".join(lines) + "\n"


def known(task: Task) -> dict[str, np.ndarray]:
    """What is known before a rollout, as `lucibot.sandbox.scored` takes it."""
    found = {}
    for thing in (*task.objects, *task.spec.background):
        mesh, T = task.mesh(thing), thing.T_world_object
        corners = np.asarray(mesh.vertices) @ T[:3, :3].T + T[:3, 3]
        found[f"start/{thing.name}"] = np.stack([corners.min(0), corners.max(0)])
        found[f"hull/{thing.name}"] = np.asarray(mesh.convex_hull.vertices)
    return found


def with_joints(task: Task, shown: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """States that were brought home, with the values of objects on joints."""
    from scipy.spatial.transform import Rotation

    arrays = dict(shown)
    for obj in task.objects:
        if (joint := obj.articulation) is not None:
            turn = Rotation.from_quat(shown[f"quaternion/{obj.name}"], scalar_first=True)
            poses = np.concatenate([shown[f"position/{obj.name}"], turn.as_rotvec()], -1)
            arrays[f"joint/{obj.name}"] = np.asarray(joint.values(poses), float)
    return arrays


def described(task: Task) -> str:
    """Every object with its kind and its box as the scene begins, a line each."""
    boxes, lines = known(task), []
    for thing in (*task.objects, *task.spec.background):
        low, high = boxes[f"start/{thing.name}"]
        lines.append(f"- {thing.name}: {_kind(thing)}; box from {_point(low)} to {_point(high)}"
                     f"{_frame(thing)}")  # fmt: skip
    return "\n".join(lines)


def _kind(thing) -> str:
    if not hasattr(thing, "material"):
        return "never moves (start_box alone)"
    if thing.joint is not None:
        return f"rigid, on a {thing.joint.kind} joint"
    return "rigid" if thing.is_rigid else f"particles ({thing.material.kind})"


def _frame(thing) -> str:
    if not getattr(thing, "is_rigid", False):
        return ""
    turn = np.rad2deg(pose_np(thing.T_world_object)[3:])
    return f"; origin at {_point(thing.T_world_object[:3, 3])}, turned by {_point(turn)} degrees"


def _point(values) -> str:
    return "(" + ", ".join(f"{v:.3f}" for v in values) + ")"
