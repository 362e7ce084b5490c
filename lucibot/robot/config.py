"""What an arm is asked to do with what a run has learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.errors import UserError
from lucibot.core.needs import Needs
from lucibot.core.schema import Count, Index, Positive
from lucibot.robot.arm import Arm, load_arm


@dataclass(frozen=True, kw_only=True)
class RobotConfig(Config):
    """An arm takes hold of what the run has moved and follows the trajectory, simulated."""

    NEEDS = Needs(packages=("ompl", "toppra"), extra="robot")

    arm: str = "franka"
    """An arm that comes with LuciBot; `--robot NAME` is the same."""
    folder: Path | None = None
    """An arm's folder, in place of `arm`; `--robot FOLDER` is the same."""
    base: tuple[float, ...] | None = None
    """X,Y,Z,DEG: where it stands [m, world] and how it is turned; sought if not given."""
    seed: Annotated[Index, Field(le=2**31 - 2)] = 0
    """Of grasps, restarts and ways."""
    feedback: bool = True
    """Correct what the actuator is measured to be off."""
    film_fps: Annotated[Positive, Field(ge=1, le=240)] = 20.0
    """About so many pictures a second in the film, which is in real time."""
    film_width: Annotated[Count, Field(ge=64, le=4096)] = field(default=480)
    """Width of the film [pixels], at most the task camera's."""

    def load(self) -> Arm:
        """
        Raises:
            UserError: there is no such arm, or its folder lacks something.
        """
        arm = load_arm(self.arm if self.folder is None else self.folder)
        _ = arm.chain  # What is wrong with its model is told now.
        return arm

    def T_world_base(self) -> np.ndarray | None:
        """(4, 4), or None where a place is to be sought.

        Raises:
            UserError: `base` is not four numbers.
        """
        if self.base is None:
            return None
        if len(self.base) != 4:
            words = ",".join(f"{v:g}" for v in self.base)
            raise UserError(f"--robot.base {words}: expected X,Y,Z,DEG, four numbers")
        x, y, z, deg = self.base
        T = np.eye(4)
        s, c = np.sin(np.deg2rad(deg)), np.cos(np.deg2rad(deg))
        T[:2, :2], T[:3, 3] = [[c, -s], [s, c]], (x, y, z)
        return T
