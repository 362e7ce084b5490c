"""The family `optimize.objective`: what the search minimises. Light to import.

Every member has the same rollouts to spend. Beside LuciBot's own, `VideoObjective`, they are the systems
that the paper compares with (section 4.1, appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.errors import UserError
from lucibot.core.needs import Needs, needs_of
from lucibot.core.schema import Count, Fraction, Positive
from lucibot.objective.config import ObjectiveMember, Scored, VideoObjective
from lucibot.objective.home import BringHome, Moment
from lucibot.objective.weights import LossWeights
from lucibot.providers.embedder import ClipEmbedder
from lucibot.services import ASKS_A_VLM
from lucibot.store.configs import NO_EFFECT

if TYPE_CHECKING:
    import numpy as np

    from lucibot.baselines.judge import Given, Judge
    from lucibot.objective.supervision import Supervision
    from lucibot.services.estimate import Outlook, Planned
    from lucibot.task import Task

REWARDS = Path(__file__).with_name("rewards")
"""Code by LuciBot's authors, a file for each shipped task."""


@dataclass(frozen=True, kw_only=True)
class VlmRmObjective(ObjectiveMember):
    """A vision-language model as a zero-shot reward model (VLM-RMs; paper, section 4.1): how near CLIP has
    the last picture to a text that describes the goal."""

    START: ClassVar[str] = "random"
    READS_TASK: ClassVar[tuple[str, ...]] = ("instruction",)
    JUDGED: ClassVar[bool] = True

    NEEDS = needs_of(ClipEmbedder)

    kind: Literal["vlm-rm"] = "vlm-rm"
    embedder: ClipEmbedder = ClipEmbedder()
    goal: str = ""
    """Text of the goal; the task's instruction if not given."""
    baseline: str = ""
    """Text of the scene where nothing has been done; if not given, one that names what there is."""
    alpha: Fraction = 0.5
    """How far pictures and goal are projected onto the line from baseline to goal; 0: plain similarity."""
    moment: Moment = "goal"
    """The last keyframe, or the end, when all has been let go and rests."""

    def ensure(self) -> None:
        """See `ObjectiveMember`."""
        self.embedder.create()

    def in_workers(self) -> Scored:
        """See `ObjectiveMember`."""
        return BringHome(moment=self.moment, picture=True)

    def judge(self, given: Given) -> Judge:
        """See `ObjectiveMember`."""
        from lucibot.baselines.vlm_rm import VlmRm

        return VlmRm(self, given)


@dataclass(frozen=True, kw_only=True)
class VlmRewards(Config):
    """A language model writes the reward code."""

    NEEDS = ASKS_A_VLM

    kind: Literal["vlm"] = "vlm"
    model: str = "gpt-5"
    """At OpenAI or the server that `services.vlm.base-url` names."""


@dataclass(frozen=True, kw_only=True)
class AuthorsRewards(Config):
    """Reward code that LuciBot's authors wrote in the style of what a language model would write, one file
    for each shipped task. No language model wrote any of it."""

    kind: Literal["authors"] = "authors"

    def path(self, task: Task) -> Path:
        """
        Raises:
            UserError: nobody has written code for this task.
        """
        path = REWARDS / f"{task.name}.py"
        if not path.is_file():
            raise UserError(
                f"nobody has written reward code for task {task.name!r}; let a model write it "
                "(--optimize.objective.writer vlm), or give a file (--optimize.objective.writer.path)"
            )
        return path


@dataclass(frozen=True, kw_only=True)
class FileRewards(Config):
    """Reward code of a file."""

    NEEDS = Needs(settings=("path",))

    kind: Literal["file"] = "file"
    path: Path
    """Python that defines `reward(scene)`."""


@dataclass(frozen=True, kw_only=True)
class T2RObjective(ObjectiveMember):
    """Text to reward (T2R; paper, section 4.1 and appendix A): code that is written from a description of
    the scene scores its state. It is run in a sandbox."""

    START: ClassVar[str] = "random"
    READS_TASK: ClassVar[tuple[str, ...]] = ("instruction",)
    JUDGED: ClassVar[bool] = True

    NEEDS = Needs(
        packages=("pyseccomp",), extra="sandbox",
        note="and libseccomp, on Linux; elsewhere --trust-reward-code",
    )  # fmt: skip

    kind: Literal["t2r"] = "t2r"
    writer: VlmRewards | AuthorsRewards | FileRewards = AuthorsRewards()
    """Who writes the code."""
    moment: Moment = "goal"
    """The last keyframe, or the end, when all has been let go and rests."""
    seconds: Positive = field(default=60.0, metadata=NO_EFFECT)
    """In which a batch of rollouts has to be scored [s]."""
    memory_mib: Annotated[Count, Field(ge=64)] = field(default=1024, metadata=NO_EFFECT)
    """What the code may take beside what it is given [MiB]."""
    trust_reward_code: bool = field(default=False, metadata=NO_EFFECT)
    """Run the code with all rights of yours where it cannot be shut in (also --trust-reward-code)."""

    def ensure(self) -> None:
        """See `ObjectiveMember`."""
        from lucibot.sandbox import ensure_walls

        if isinstance(self.writer, FileRewards) and not self.writer.path.is_file():
            raise UserError(f"--optimize.objective.writer.path {self.writer.path}: no such file")
        if not self.trust_reward_code:
            ensure_walls()

    def ensure_suits(self, task: Task) -> None:
        """See `ObjectiveMember`."""
        if isinstance(self.writer, AuthorsRewards):
            self.writer.path(task)

    def asked(self) -> tuple[Config, ...]:
        """See `ObjectiveMember`."""
        return (self.writer,)

    def in_workers(self) -> Scored:
        """See `ObjectiveMember`."""
        return BringHome(moment=self.moment, state=True)

    def judge(self, given: Given) -> Judge:
        """See `ObjectiveMember`."""
        from lucibot.baselines.t2r import TextToReward

        return TextToReward(self, given)

    def planned(self, outlook: Outlook) -> list[Planned]:
        """See `lucibot.services.estimate`."""
        if not isinstance(self.writer, VlmRewards):
            return []
        return [
            outlook.vlm("optimize", "reward code", self.writer.model, calls=2, letters=8000)
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AvdcObjective(ObjectiveMember):
    """Actions from a video by dense correspondence (AVDC; paper, section 4.1): the poses that optical flow
    and depth give, frame to frame, are executed as they are. Nothing is searched."""

    READS: ClassVar[tuple[str, ...]] = ("imagine", "select")

    kind: Literal["avdc"] = "avdc"
    inlier_m: Positive = 0.01
    """A point agrees with a motion if it comes as near as this to where flow and depth have it [m]."""
    trials: Count = 256
    """Motions of three points that are tried for each frame."""

    def ensure_suits(self, task: Task) -> None:
        """See `ObjectiveMember`."""
        for o in task.actuators:
            if not o.is_rigid:
                raise UserError(
                    f"--optimize.objective avdc follows rigid actuators, and {o.name!r} of task "
                    f"{task.name!r} is not (the paper leaves it out, too)"
                )

    def in_workers(self) -> Scored:
        """How like the video it came out, for the record."""
        return VideoObjective()

    def followed(self, given: Given) -> np.ndarray:
        """See `ObjectiveMember`.

        Raises:
            UserError: the task has nothing rigid to follow.
        """
        from lucibot.baselines.avdc import poses_by_flow

        return poses_by_flow(self, given)


@dataclass(frozen=True, kw_only=True)
class NoisyPreference(Config):
    """Prefers the rollout that is more like the video, and says the opposite in a set share of its answers:
    a model of an inconsistent judge, which asks nobody."""

    kind: Literal["noisy"] = "noisy"
    error_rate: Fraction = 0.1
    """Share of wrong answers."""


@dataclass(frozen=True, kw_only=True)
class VlmPreference(Config):
    """A vision-language model says which of two last pictures is nearer to the goal."""

    NEEDS = ASKS_A_VLM

    kind: Literal["vlm"] = "vlm"
    model: str = "gpt-5"
    """At OpenAI or the server that `services.vlm.base-url` names."""


@dataclass(frozen=True, kw_only=True)
class VlmPrefObjective(ObjectiveMember):
    """Pairwise preferences (VLM-Pref, after RL-VLM-F; paper, section 4.1): the first batch is sorted by
    quicksort and scored evenly from 0 to 50, every later rollout finds its place by binary search."""

    START: ClassVar[str] = "random"
    READS_TASK: ClassVar[tuple[str, ...]] = ("instruction",)
    JUDGED: ClassVar[bool] = True

    kind: Literal["vlm-pref"] = "vlm-pref"
    preference: VlmPreference | NoisyPreference = VlmPreference()
    """Who is asked which of two rollouts is better."""
    moment: Moment = "goal"
    """The last keyframe, or the end, when all has been let go and rests."""

    def asked(self) -> tuple[Config, ...]:
        """See `ObjectiveMember`."""
        return (self.preference,)

    def in_workers(self) -> Scored:
        """See `ObjectiveMember`."""
        beside = VideoObjective() if isinstance(self.preference, NoisyPreference) else None
        return BringHome(moment=self.moment, picture=True, beside=beside)

    def planned(self, outlook: Outlook) -> list[Planned]:
        """See `lucibot.services.estimate`."""
        if not isinstance(self.preference, VlmPreference):
            return []
        first = outlook.population * (outlook.population - 1) // 2
        later = outlook.population * max(outlook.generations - 1, 0)
        calls = first + later * (later + outlook.population).bit_length()
        model = self.preference.model
        return [outlook.vlm("optimize", "preferences", model, calls=calls, pictures=2)]

    def judge(self, given: Given) -> Judge:
        """See `ObjectiveMember`."""
        from lucibot.baselines.vlm_pref import VlmPref

        return VlmPref(self, given)


GOAL_WEIGHTS = LossWeights(
    actuator_iou=0.0, actuator_chamfer=0.0, contact=0.0, part_count=1.0, part_iou=1.0,
    part_chamfer=10.0, part_distance=10.0, around=1.0,
)  # fmt: skip
"""Of LuciBot's terms those that speak of the target in the goal frame."""


@dataclass(frozen=True, kw_only=True)
class GoalImageObjective(ObjectiveMember):
    """Be like one picture of the goal (paper, appendix B): LuciBot's terms of the target in the goal frame,
    and nothing of the way to it. The frame is that of the video, which `--video edit` makes of a
    picture that an image-editing model has drawn."""

    START: ClassVar[str] = "random"

    kind: Literal["goal-image"] = "goal-image"

    def supervised(self, supervision: Supervision) -> Supervision:
        """A picture shows no hand: where none is seen, every actuator is taken to be held all the way."""
        if supervision.held.any():
            return supervision
        import numpy as np

        return replace(supervision, held=np.ones_like(supervision.held))

    def in_workers(self) -> Scored:
        """See `ObjectiveMember`."""
        return VideoObjective(weights=GOAL_WEIGHTS)


ObjectiveConfig = (
    VideoObjective | VlmRmObjective | T2RObjective | AvdcObjective | VlmPrefObjective | GoalImageObjective
)  # fmt: skip
