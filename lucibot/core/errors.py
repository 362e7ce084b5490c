"""The two kinds of failure that LuciBot reports, each with one clear line and no traceback."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path


class LuciBotError(Exception):
    """Base of every error that is reported as one line. `exit_status` is the process's."""

    exit_status = 1


class UserError(LuciBotError):
    """The input is wrong (a missing file, a typo, a broken video); the message says what to do."""

    exit_status = 2


class RunFailed(LuciBotError):
    """The run itself failed (all videos rejected, every rollout diverged, a dead worker)."""

    exit_status = 1


class NoUsableVideo(RunFailed):
    """No video came, or all were rejected: another seed imagines others."""


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """A `UserError` that names the nearest choice and lists the others."""
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(choices) if choices else "none"
    return UserError(f"unknown {kind} {name!r}.{hint} Choices: {listed}")


def resume_hint(run: str | Path, more: str = "") -> str:
    """The command that goes on with a run, to be pasted, for messages."""
    return f"`lucibot resume {shlex.quote(str(run))}{more and ' '}{more}`"
