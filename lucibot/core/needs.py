"""What a member of a family needs beside LuciBot itself: stated once, on its config.

    @dataclass(frozen=True, kw_only=True)
    class MineVideo(Config):
        NEEDS = Needs(packages=("mine",), extra="mine", keys=("MINE_KEY",))

`lucibot doctor` walks every family and says what of it is here and what mends what is not; a member
that is created asks `ensure_packages`, so that both say the same.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from lucibot.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Needs:
    """For a member's default settings; without an annotation, `NEEDS` is no setting itself."""

    packages: tuple[str, ...] = ()
    """Distributions, as pip names them."""
    extra: str = ""
    """The extra of LuciBot that installs them; empty where the user installs them."""
    keys: tuple[str, ...] = ()
    """Environment variables that hold keys."""
    weights: tuple[str, ...] = ()
    """Checkpoints by their names at the Hugging Face hub."""
    gpu_gib: float = 0.0
    """Memory of a GPU with which it is of use [GiB]; 0 where none is needed."""
    settings: tuple[str, ...] = ()
    """Its settings that must be given, by their fields: a command, a folder."""
    licence: str = ""
    """Under what it may be used, where that is less than anything: said when a run chooses it."""
    note: str = ""
    """What else is to be known: a sentence."""

    @property
    def install(self) -> str:
        """The command that installs its packages."""
        return f"pip install 'lucibot[{self.extra}]'" if self.extra else (
            f"pip install {' '.join(self.packages)}"
        )  # fmt: skip

    def missing_packages(self) -> list[str]:
        return [p for p in self.packages if version(p) is None]


NOTHING = Needs()


def needs_of(member: type) -> Needs:
    """What a config of this class needs."""
    return getattr(member, "NEEDS", NOTHING)


def needy(config: Any) -> bool:
    """Whether a config, or one that it holds, needs anything."""
    return needs_of(type(config)) != NOTHING or any(
        needy(value) for f in dataclasses.fields(config)
        if dataclasses.is_dataclass(value := getattr(config, f.name))
    )  # fmt: skip


def ensure_packages(member: type, flag: str) -> None:
    """
    Args:
        member: a config's class.
        flag: how it is chosen, for the message: "--video runway".

    Raises:
        UserError: a package that it needs is not installed.
    """
    needs = needs_of(member)
    missing = needs.missing_packages()
    if missing:
        raise UserError(f"{flag} needs the package {' and '.join(missing)}: {needs.install}")


def version(distribution: str) -> str | None:
    """Of a distribution that is installed; None where it is not."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
