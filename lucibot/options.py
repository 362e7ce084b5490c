"""What `run`, `resume`, `sweep` and the Python door take beside the settings themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from lucibot.config import PRESETS, RunConfig
from lucibot.core.errors import UserError, unknown_name
from lucibot.providers.answerer import VlmAnswerer
from lucibot.providers.prompt import VlmPrompt
from lucibot.providers.verifier import VlmVerifier
from lucibot.providers.video import VideoConfig
from lucibot.robot.arm import arm_names
from lucibot.settings import NONE, Parser, configured, listed, member_names, settings

MOST_SEED = 2**32 - 1


def add_shorthands(p: Parser, *, spender: str = "this run") -> None:
    """Shorter names of settings that are used often.

    Args:
        spender: what the cap holds for.
    """
    p.add_argument("--force-video", dest="select.force-video", metavar="INT|none",
                   help="take this candidate whatever the verifier says")  # fmt: skip
    p.add_argument("--max-usd", dest="services.max-usd", metavar="FLOAT",
                   help=f"what {spender} may spend in all [USD]")  # fmt: skip
    p.add_argument("--cluster", dest="optimize.cluster", metavar="ADDRESS",
                   help='search on a Ray cluster: its address, or "auto"')  # fmt: skip

    p.add_argument("--trust-reward-code", dest="optimize.objective.trust-reward-code", metavar="yes|no",
                   help="run reward code (--optimize.objective t2r) with all your rights where it cannot "
                   "be shut in")  # fmt: skip
    p.add_shorthand("vlm", "MODEL|none",
                    "let this vision-language model write the prompt, judge the videos and answer what "
                    "happens in the chosen one (--prompt, --select.verifier, --perceive.answerer vlm); "
                    "none: nothing of it; --services.vlm.base-url says where it is")  # fmt: skip


VLM_FAMILIES = {"prompt": ("template", VlmPrompt), "select.verifier": ("pixels", VlmVerifier),
                "perceive.answerer": ("pixels", VlmAnswerer)}  # fmt: skip
"""Where a vision-language model may be asked: the member that asks none, and the one that does."""


def _with_vlm(given: dict[str, str]) -> dict[str, str]:
    """What `--vlm` stands for; what is given beside it comes first."""
    model = given.pop("vlm", None)
    if model is None:
        return given
    if not model.strip():
        raise UserError("--vlm needs the name of a model at its server, or none")
    for path, (without, member) in VLM_FAMILIES.items():
        own = {s.path for s in settings(member, None, path)}
        below = {p for p in given if p.startswith(f"{path}.")}
        if model == NONE:
            given.setdefault(path, without)
        elif given.get(path, "vlm") == "vlm" and below <= own:
            given = {path: "vlm", f"{path}.model": model} | given
    return given


def _with_arm(given: dict[str, str]) -> dict[str, str]:
    """What `--robot` stands for: an arm's name, or its folder."""
    arm = given.get("robot")
    if arm is None or arm in (NONE, "on"):
        return given
    if arm not in arm_names() and Path(arm).expanduser().is_dir():
        return given | {"robot": "on", "robot.folder": arm}
    return given | {"robot": "on", "robot.arm": arm, "robot.folder": NONE}


def preset(name: str) -> RunConfig:
    """
    Raises:
        UserError: there is no such preset.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]


def with_preset(config: RunConfig, name: str) -> RunConfig:
    """`config` with another preset's values of what presets differ in."""
    wanted = preset(name)
    differing = [
        f.name for f in dataclasses.fields(RunConfig)
        if any(getattr(p, f.name) != getattr(wanted, f.name) for p in PRESETS.values())
    ]  # fmt: skip
    return dataclasses.replace(config, **{n: getattr(wanted, n) for n in differing})


def with_settings(config: RunConfig, given: Mapping[str, str]) -> RunConfig:
    """`config` with the given settings; `video` may be a file, or several with commas between them,
    `vlm` a model for all that may ask one, and `robot` an arm or its folder.

    Raises:
        UserError: no such setting, or a value that it does not take.
    """
    given, video = _with_vlm(dict(given)), given.get("video")
    given, models = _with_arm(given), member_names(VideoConfig)
    if video is not None and video not in models:
        for path in listed(video):
            if Path(path).is_dir():
                raise UserError(f"--video {path}: that is a folder; give video files")
            if not Path(path).is_file():
                raise UserError(
                    f"--video {path}: no such file, and not the name of a video model "
                    f"({', '.join(models)})"
                )
        given |= {"video": "file", "video.paths": video}
    for path in listed(given.get("video.paths", "")):
        if not Path(path).expanduser().is_file():
            raise UserError(f"--video.paths {path}: no such file")
    folder = given.get("video.folder")
    if folder is not None and not Path(folder).expanduser().is_dir():
        raise UserError(f"--video.folder {folder}: no such folder; give RUN/20_imagine/candidates")
    return configured(config, given)


def read_seed(text: str | int) -> int:
    """
    Raises:
        UserError: it is none.
    """
    try:
        seed = int(text)
    except ValueError:
        seed = -1
    if not 0 <= seed <= MOST_SEED:
        raise UserError(f"--seed {text}: expected a whole number from 0 to {MOST_SEED}")
    return seed
