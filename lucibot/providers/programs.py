"""Runs a user's own program in place of a member of a family: files in, a file out."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence

from lucibot.core.errors import RunFailed, UserError


def ensure_place_holders(flag: str, command: str, names: Sequence[str], told: str) -> None:
    """
    Args:
        flag: the setting that holds the command.
        told: what the program is given and what it writes, for the message.

    Raises:
        UserError: the command lacks a place holder.
    """
    for name in names:
        if f"{{{name}}}" not in command:
            raise UserError(f"{flag} needs the place holder {{{name}}}; {told}")


def run_program(
    flag: str, role: str, command: str, at: Mapping[str, object], timeout_s: float
) -> None:
    """Run `command` with its place holders filled in from `at`.

    Args:
        role: what the program is, for messages: "the segmenter".

    Raises:
        UserError: it cannot be started.
        RunFailed: it failed or took too long.
    """
    words = [w.format(**{n: str(p) for n, p in at.items()}) for w in shlex.split(command)]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=timeout_s
        )
    except OSError as e:
        raise UserError(f"{flag}: {words[0]} cannot be started ({e.strerror})") from None
    except subprocess.TimeoutExpired:
        raise RunFailed(f"{role} {words[0]} took longer than {timeout_s:g} s") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise RunFailed(
            f"{role} {words[0]} ended with status {done.returncode}: "
            f"{said[-1].strip() if said else 'it said nothing'}"
        )
