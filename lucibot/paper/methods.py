"""Columns of the tables: LuciBot, its ablations, and the systems that the paper compares with, as settings
of `lucibot run`. All share tasks, seeds, videos and scenes, and what a search may spend."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lucibot.config import RunConfig
from lucibot.core.errors import UserError, unknown_name
from lucibot.objective.weights import TERMS
from lucibot.options import preset, with_settings
from lucibot.services import ensure_vlm

TASKS = {
    "pour_liquid": "liquid", "cut_dough": "dough", "spread_butter": "butter", "scoop_sand": "sand",
    "rubber_band": "rubber", "lift_mochi": "mochi", "hammer_peg": "peg", "stack_cups": "cup",
}  # fmt: skip
"""The tables' eight tasks, in the paper's order and words (section 4.1: articulated ones are left out)."""
PREFERRED_ON = ("stack_cups", "cut_dough")
"""Table 3's."""


@dataclass(frozen=True, kw_only=True)
class Method:
    name: str
    title: str
    """As the tables have it."""
    what: str
    settings: Mapping[str, str]
    """Over the preset `quick`."""
    preset: str = "quick"
    tuned: bool = False
    """Whether its first step size is that of `lucibot paper --tune`."""
    searches: bool = True
    leaves_out: tuple[str, ...] = ()
    """Tasks that it cannot do."""


METHODS = {m.name: m for m in (
    Method(name="vlm-rm", title="VLM-RMs", what="CLIP of the last picture against the goal's text",
           settings={"optimize.objective": "vlm-rm"}),
    Method(name="t2r", title="T2R", what="reward code, written by LuciBot's authors in that style unless a model is "
           "named", settings={"optimize.objective": "t2r"}),
    Method(name="avdc", title="AVDC", what="poses by optical flow and depth, executed as they are",
           settings={"optimize.objective": "avdc"}, searches=False, leaves_out=("rubber_band",)),
    Method(name="vlm-pref", title="VLM-Pref", what="pairwise preferences of a model",
           settings={"optimize.objective": "vlm-pref"}),
    Method(name="estimated", title="Ours, estimated poses", what="no search: the poses that perception read",
           settings={"optimize.search.generations": "0"}, searches=False),
    Method(name="paper", title="The paper's protocol", what="5 generations of 128 from the estimated poses, the "
           "paper's terms, one first step size tuned on seeds from 100 on", settings={}, preset="paper",
           tuned=True),
    Method(name="no_init", title="Ours w/o Init", what="waypoints at random within the scene's bounds",
           settings={"optimize.start": "random"}),
    Method(name="no_contact", title="Ours w/o Contact", what="without the contact term",
           settings={"optimize.objective.weights.contact": "0"}),
    Method(name="no_parts", title="Ours w/o parts", what="without the terms of the target's parts, which look at "
           "the simulator's particles",
           settings={f"optimize.objective.weights.{t.replace('_', '-')}": "0" for t in TERMS
                     if t.startswith("part_")}),
    Method(name="full", title="Ours", what="the preset quick", settings={}),
)}  # fmt: skip
BASELINES = ("vlm-rm", "t2r", "avdc", "vlm-pref", "full")
"""Figure 5's."""
ABLATIONS = ("no_init", "no_contact", "no_parts", "estimated", "paper", "full")
"""Figure 7's."""


def known_methods(names: list[str]) -> list[Method]:
    """
    Raises:
        UserError: there is none of a name.
    """
    for name in names:
        if name not in METHODS:
            raise unknown_name("method", name, METHODS)
    return [METHODS[n] for n in METHODS if n in names]


def config_of(
    method: Method, given: Mapping[str, str], *, rollouts: int | None, step: Step | None
) -> RunConfig:
    """The method's settings.

    Args:
        given: settings that hold for all methods.
        rollouts: what each search spends, whatever it finds; None: as the preset has it.
        step: the tuned first step size.

    Raises:
        UserError: a setting does not exist, or is not tuned yet.
    """
    changes = {**given, **method.settings}
    if method.tuned:
        if step is None:
            raise UserError("its first step size is not tuned yet: `lucibot paper --tune`")
        changes |= step.settings()
    config = with_settings(preset(method.preset), changes)
    if rollouts is not None and method.searches:
        generations = math.ceil(rollouts / config.optimize.search.population)
        config = with_settings(config, {
            "optimize.search.generations": str(generations), "optimize.search.patience": "0",
            "optimize.search.least-gain": "0",
        })  # fmt: skip
    return config


def ensure_runnable(config: RunConfig) -> None:
    """
    Raises:
        UserError: what the method needs is not here: weights, a key, a package.
    """
    objective = config.optimize.objective
    getattr(objective, "ensure", lambda: None)()
    asked = getattr(objective, "asked", tuple)()
    if any(getattr(m, "kind", "") == "vlm" for m in asked):
        ensure_vlm(config.services.vlm)


DEG_PER_M = 300.0
"""Between the first step sizes of rotations and positions: those of the preset `paper`, 6 degrees and
2 cm."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A first step size of the paper's protocol, which gives none."""

    position_m: float

    def settings(self) -> dict[str, str]:
        return {
            "optimize.search.sigma-position-m": f"{self.position_m:g}",
            "optimize.search.sigma-rotation-deg": f"{DEG_PER_M * self.position_m:g}",
        }

    @classmethod
    def load(cls, path: Path) -> Step | None:
        """The tuned one; None where it is not tuned yet.

        Raises:
            UserError: the file is damaged.
        """
        if not path.is_file():
            return None
        try:
            return cls(position_m=float(json.loads(path.read_text())["position_m"]))
        except (ValueError, KeyError, TypeError) as e:
            raise UserError(f"{path} is damaged ({e}); remove it and tune again") from None
