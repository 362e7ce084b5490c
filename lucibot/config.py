"""The config of a run: one frozen dataclass a stage, and the presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from lucibot.baselines.config import ObjectiveConfig
from lucibot.core.config import Config
from lucibot.core.schema import Count, Index, Positive
from lucibot.objective.config import VideoObjective
from lucibot.objective.weights import PAPER_WEIGHTS
from lucibot.optimize.config import Evosax, SearchConfig, StartConfig
from lucibot.perception.config import (
    AffordanceConfig,
    EventConfig,
    KeyframeConfig,
    PoseConfig,
    SuperviseConfig,
)
from lucibot.providers.answerer import AnswererConfig, PixelAnswerer
from lucibot.providers.depth import DepthConfig, FillDepth
from lucibot.providers.hand import HandConfig
from lucibot.providers.prompt import PromptConfig, TemplatePrompt
from lucibot.providers.renderer import RendererConfig
from lucibot.providers.tracker import EmbeddedTracker, TrackerConfig
from lucibot.providers.verifier import PixelVerifier, VerifierConfig
from lucibot.providers.video import StoryboardVideo, VideoConfig
from lucibot.robot.config import RobotConfig
from lucibot.services import ServicesConfig
from lucibot.store.configs import NO_EFFECT
from lucibot.vision.intake import IntakeConfig


@dataclass(frozen=True, kw_only=True)
class SceneConfig(Config):
    renderer: RendererConfig | None = None
    """What draws the photoreal first frame; if not given, the task's photo is taken where it has one,
    else mitsuba draws."""


@dataclass(frozen=True, kw_only=True)
class SelectConfig(Config):
    verifier: VerifierConfig = field(default_factory=PixelVerifier)
    """What judges the candidate videos."""
    force_video: int | None = None
    """Take this candidate whatever its score."""
    budget: int = field(default=0, metadata=NO_EFFECT)
    """While none of the video model's candidates is usable, imagine goes on, one after another, up to
    so many in all (rejection sampling, paper 3.2); 0: those that there are have to do."""


@dataclass(frozen=True, kw_only=True)
class ImagineConfig(Config):
    """What the stage `imagine` reads."""

    video: VideoConfig
    intake: IntakeConfig = IntakeConfig()
    judge: VerifierConfig | None = None
    """Says whether to go on; None where it does not, so that another judge changes nothing."""
    budget: int = 0


@dataclass(frozen=True, kw_only=True)
class PerceiveConfig(Config):
    """Who sees what, and how finely."""

    tracker: TrackerConfig = field(default_factory=EmbeddedTracker)
    poses: PoseConfig = field(default_factory=PoseConfig)
    depth: DepthConfig = field(default_factory=FillDepth)
    hand: HandConfig | None = None
    """What finds hands; if not given, settled when the run begins: "mediapipe" where it is installed,
    else "outline"."""
    affordance: AffordanceConfig = field(default_factory=AffordanceConfig)
    events: EventConfig = field(default_factory=EventConfig)
    answerer: AnswererConfig = field(default_factory=PixelAnswerer)
    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)
    supervise: SuperviseConfig = field(default_factory=SuperviseConfig)
    seed: int = 0
    """Seed of samples drawn while fitting poses, and of the affordance's points."""


@dataclass(frozen=True, kw_only=True)
class OptimizeConfig(Config):
    search: SearchConfig = SearchConfig()
    objective: ObjectiveConfig = VideoObjective()
    """What rollouts are judged by: LuciBot's own, "video", or one of the systems that the paper compares
    with."""
    start: StartConfig | None = None
    """Where the search starts; if not given, as the objective has it: those that see no video start at
    random."""
    workers: Annotated[Index, Field(le=1024)] = field(default=0, metadata=NO_EFFECT)
    """One-thread worker processes on a CPU; 0 takes one a core."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the environments live: "cpu", or "cuda" for one process with the whole population."""
    cluster: str | None = field(default=None, metadata=NO_EFFECT)
    """Ray cluster that holds the workers: its address, or "auto"; this machine's processes if not
    given."""
    environments: Count | None = None
    """Environments that a worker rolls out together; if not given, settled when the run begins:
    enough for one round of the population."""


@dataclass(frozen=True, kw_only=True)
class ExecuteConfig(Config):
    film_fps: Annotated[Positive, Field(ge=1, le=240)] = 20.0
    """About so many pictures a second in the film of the replay, which is in real time: as many as
    make a picture every few steps. Particles are kept as often."""
    film_width: Annotated[Count, Field(ge=64, le=4096)] = 640
    """Width of the film [pixels], at most the task camera's."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(Config):
    scene: SceneConfig = SceneConfig()
    prompt: PromptConfig = field(default_factory=TemplatePrompt)
    """What writes down what the video model is told."""
    video: VideoConfig = field(default_factory=StoryboardVideo)
    """What imagines the task being done; the path of a video file stands for "file"."""
    intake: IntakeConfig = IntakeConfig()
    """What a video may be like, as it comes."""
    select: SelectConfig = SelectConfig()
    perceive: PerceiveConfig = field(default_factory=PerceiveConfig)
    optimize: OptimizeConfig = OptimizeConfig()
    execute: ExecuteConfig = ExecuteConfig()
    robot: RobotConfig | None = None
    """Let an arm do what was learned, in the task's own simulation: the name or the folder of an arm."""
    services: ServicesConfig = ServicesConfig()
    """Who is asked over the network, and what that may cost."""

    @property
    def imagine(self) -> ImagineConfig:
        if self.select.budget <= self.video.candidates:
            return ImagineConfig(video=self.video, intake=self.intake)
        return ImagineConfig(
            video=self.video, intake=self.intake, judge=self.select.verifier,
            budget=self.select.budget,
        )  # fmt: skip


PRESETS: dict[str, RunConfig] = {
    "quick": RunConfig(),
    "paper": RunConfig(
        optimize=OptimizeConfig(
            search=SearchConfig(
                population=128, generations=5, patience=0, correlation=0.0, include_start=False,
                sigma_position_m=0.02, sigma_depth_m=None, sigma_rotation_deg=6.0, optimizer=Evosax(),
            ),
            objective=VideoObjective(weights=PAPER_WEIGHTS),
        )
    ),
}  # fmt: skip
"""`quick`: for two CPU cores, with everything that was found to help. `paper`: its protocol, its
terms and nothing else, started from the estimated poses."""
