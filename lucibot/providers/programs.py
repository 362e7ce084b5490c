"""Runs a user's own program in place of a member of a family: files in, a file out."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lucibot.core.errors import RunFailed, UserError
from lucibot.core.stopping import ending_too


def ensure_place_holders(
    flag: str, command: str, names: Sequence[str], told: str, *, more: Sequence[str] = ()
) -> None:
    """
    Args:
        flag: the setting that holds the command.
        names: the place holders that it needs.
        told: what the program is given and what it writes, for the message.
        more: those that it may have as well.

    Raises:
        UserError: the command lacks a place holder, has one that there is not, or cannot be read.
    """
    for name in names:
        if f"{{{name}}}" not in command:
            raise UserError(f"{flag} needs the place holder {{{name}}}; {told}")
    known = (*names, *more)
    listed = ", ".join(f"{{{n}}}" for n in known)
    try:
        _filled(command, dict.fromkeys(known, ""))
    except KeyError as e:
        wrong = f"there is no place holder {{{e.args[0]}}}"
    except (ValueError, LookupError, AttributeError, TypeError) as e:
        wrong = f"it cannot be read ({e})"
    else:
        return
    raise UserError(
        f"{flag}: {wrong}; there are {listed}, and other braces are doubled: {{{{ and }}}}"
    )


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
    run_words(flag, role, _filled(command, at), timeout_s)


def _filled(command: str, at: Mapping[str, object]) -> list[str]:
    """The command's words, its place holders filled in."""
    return [w.format(**{n: str(p) for n, p in at.items()}) for w in shlex.split(command)]


def run_words(
    flag: str, role: str, words: Sequence[str], timeout_s: float, folder: Path | None = None
) -> None:
    """Run a program with its arguments; see `run_program`. Where it is not waited for to its end, whatever it
    has started ends with it.

    Args:
        folder: where it runs; this process's own if not given.
    """
    try:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            cwd=folder, start_new_session=True,
        )  # fmt: skip
    except OSError as e:
        raise UserError(f"{flag}: {words[0]} cannot be started ({e.strerror})") from None
    with process, ending_too(process.pid):
        try:
            _, errors = process.communicate(timeout=timeout_s)
        except BaseException as e:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(e, subprocess.TimeoutExpired):
                raise RunFailed(f"{role} {words[0]} took longer than {timeout_s:g} s") from None
            raise
    if process.returncode != 0:
        said = [line for line in errors.splitlines() if line.strip()]
        raise RunFailed(
            f"{role} {words[0]} ended with status {process.returncode}: "
            f"{said[-1].strip() if said else 'it said nothing'}"
        )


def python_of(checkout: Path, given: str, flag: str) -> str:
    """The Python that runs a user's checkout: the one that is given, else that of an environment in it.

    Args:
        flag: the setting that gives it.

    Raises:
        UserError: there is none.
    """
    if given:
        found = shutil.which(str(Path(given).expanduser()))
        if found is None:
            raise UserError(f"{flag} {given}: no such program; give the Python of its environment")
        # Not resolved: an environment is known by the path of its Python.
        return str(Path(found).absolute())
    for place in (".venv", "venv", "env"):
        python = checkout / place / "bin" / "python"
        if python.exists():
            return str(python)
    raise UserError(f"{flag}: give the Python of the environment that {checkout} runs in")


def checkout_folder(given: str, flag: str, files: Sequence[str], told: str) -> Path:
    """A user's checkout of a repository, with what has to be in it.

    Args:
        told: how to come by it, for the message.

    Raises:
        UserError: it is missing, or incomplete.
    """
    folder = Path(given).expanduser().resolve()
    if not given or not folder.is_dir():
        raise UserError(f"{flag} {given}".rstrip() + f": give the folder of a checkout; {told}")
    for file in files:
        if not (folder / file).exists():
            raise UserError(f"{flag} {given}: {file} is missing in it; {told}")
    return folder
