"""What is settled and looked at before a run's first stage, so that nothing is made or bought for a run that
cannot end."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lucibot.checks import ensure_sound
from lucibot.config import OptimizeConfig, RunConfig
from lucibot.core.errors import UserError
from lucibot.core.needs import ensure_packages, needy
from lucibot.objective.config import VideoObjective
from lucibot.optimize.config import DescentStart
from lucibot.providers.hand import default_hand
from lucibot.providers.tracker import settled_tracker
from lucibot.providers.verifier import PixelVerifier, VlmVerifier
from lucibot.providers.video import StoryboardVideo
from lucibot.providers.video.service import ServiceModel
from lucibot.services import Services
from lucibot.sim.sharding import settled_batch
from lucibot.task import Task


def settled_run(task: Task, config: RunConfig) -> RunConfig:
    """`config` with what is left to the run settled, where another choice would give another result: a
    run keeps what it began with. The batch size of the search follows from the population, what
    finds hands and who runs SAM 2 from what is installed."""
    o, p, s = config.optimize, config.perceive, config.select
    s = dataclasses.replace(s, verifier=_settled_judge(s.verifier))
    return dataclasses.replace(
        config, select=s,
        optimize=dataclasses.replace(o, environments=o.environments or _settled_batch(task, o)),
        perceive=dataclasses.replace(
            p, hand=p.hand or default_hand(), tracker=settled_tracker(p.tracker)
        ),
    )  # fmt: skip


def unsettled_run(task: Task, config: RunConfig) -> RunConfig:
    """A run's `config` before settings of it are changed: a batch size that follows from its population and
    device is left to be settled again, since with others another one would follow."""
    o = config.optimize
    if o.environments != _settled_batch(task, o):
        return config
    return dataclasses.replace(config, optimize=dataclasses.replace(o, environments=None))


def _settled_batch(task: Task, config: OptimizeConfig) -> int | None:
    population = config.search.population if task.is_searched else 1
    return settled_batch(task, population, device=config.device)


def _settled_judge(judge: Any) -> Any:
    if isinstance(judge, VlmVerifier):
        return dataclasses.replace(judge, beside=_settled_judge(judge.beside))
    if isinstance(judge, PixelVerifier) and judge.hand is None:
        return dataclasses.replace(judge, hand=default_hand())
    return judge


def ensure_possible(task: Task, config: RunConfig) -> None:
    """What would stop a stage later on stops the run before the first.

    Raises:
        UserError: the task is not sound, the objective is not for it, or this machine lacks the device.
    """
    config.optimize.objective.ensure_suits(task)
    if config.optimize.device != "cpu" and config.optimize.cluster is None:
        from lucibot.sim.engine import ensure_device

        try:
            ensure_device(config.optimize.device)
        except UserError as e:
            raise UserError(f"--optimize.{e}") from None
    if isinstance(config.optimize.start, DescentStart):
        _ensure_slopes(task, config.optimize)
    ensure_sound(task, storyboard=isinstance(config.video, StoryboardVideo))


def _ensure_slopes(task: Task, config: OptimizeConfig) -> None:
    """
    Raises:
        UserError: what is to be minimised has no slope that could be told.
    """
    from lucibot.sim.gradient import refused

    why = refused(task)
    if why is None and all(o.is_rigid for o in task.targets):
        why = "the smooth loss is that of a target of particles"
    if why is None and not isinstance(config.objective, VideoObjective):
        why = "gradients are those of the objective video"
    if why is None and (config.device != "cpu" or config.cluster):
        why = "gradients are those of the kernels for this machine's CPU"
    if why is not None:
        raise UserError(f"--optimize.start descent: {why}; --optimize.start video goes without")


def ensure_models(config: RunConfig) -> None:
    """What models lack is told before anything is made or bought for them.

    Raises:
        UserError: a package, a key, a checkpoint, a folder, a GPU or memory.
    """
    p = config.perceive
    config.optimize.objective.ensure()
    if needy(config.video):
        model = config.video.create(Services(Path("services"), config.services))
        if isinstance(model, ServiceModel):
            model.ensure_keys()
    if needy(p.tracker):
        p.tracker.create(p.hand)
    for member in (p.depth, p.hand):
        if member is not None and needy(member):
            member.create()
    ensure_arm(config)


def ensure_arm(config: RunConfig) -> None:
    """
    Raises:
        UserError: there is no such arm, its folder lacks something, or a package is missing.
    """
    if config.robot is not None:
        ensure_packages(type(config.robot), "--robot")
        config.robot.load()
        config.robot.T_world_base()
