"""What `run`, `resume`, `sweep` and the Python door take beside the settings themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from lucibot.config import PRESETS, RunConfig
from lucibot.core.errors import UserError, unknown_name
from lucibot.providers.video import VideoConfig
from lucibot.settings import Parser, configured, listed, member_names

MOST_SEED = 2**32 - 1


def add_shorthands(p: Parser) -> None:
    """Shorter names of settings that are used often."""
    p.add_argument("--force-video", dest="select.force-video", metavar="INT|none",
                   help="take this candidate whatever the verifier says")  # fmt: skip
    p.add_argument("--max-usd", dest="services.max-usd", metavar="FLOAT",
                   help="what this run may spend in all [USD]")  # fmt: skip
    p.add_argument("--cluster", dest="optimize.cluster", metavar="ADDRESS",
                   help='search on a Ray cluster: its address, or "auto"')  # fmt: skip


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
    """`config` with the given settings; `video` may be a file, or several with commas between them.

    Raises:
        UserError: no such setting, or a value that it does not take.
    """
    given, video = dict(given), given.get("video")
    models = member_names(VideoConfig)
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
