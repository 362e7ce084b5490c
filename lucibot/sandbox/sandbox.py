"""Code that a language model wrote, run in a process that can do nothing but compute.

Two walls. seccomp (libseccomp, by pyseccomp), without which nothing is run: once the code is read, the
process may use memory and write its one answer, and has no other system call: no file, no socket, no
other process, no signal, no thread, no clock to sleep by. bubblewrap around it, where it is installed:
no network, no processes to see, no files but the interpreter's and numpy's. Limits of time, CPU and
memory hold in any case. What comes back is a fixed number of floats, or one line.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lucibot.core.errors import RunFailed, UserError

INSIDE = Path(__file__).with_name("inside.py")
LONGEST_TEXT = 4096
"""Bytes of an answer that is no floats."""
HELP = "pip install 'lucibot[sandbox]' (and libseccomp, Debian's libseccomp2)"


class CodeFailed(RunFailed):
    """The code does not do what it should; the message says what is wrong with it, in one line."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    seconds: float = 30.0
    """Until a batch of rollouts has to be scored [s], and its share of a processor."""
    memory_mib: int = 1024
    """Beside what it is given and what the interpreter itself takes [MiB]."""


OWN_MIB = 1024
"""Addresses that an interpreter with numpy takes [MiB]."""


def walls() -> tuple[str, ...]:
    """What there is between code and this machine: "seccomp", and "bubblewrap" where that works; nothing
    where code cannot be shut in."""
    if not _runs(()) or not _runs(("seccomp",)):
        return ()
    return ("seccomp", "bubblewrap") if _runs(("seccomp", "bubblewrap")) else ("seccomp",)


def ensure_walls() -> tuple[str, ...]:
    """
    Raises:
        UserError: code cannot be shut in on this machine.
    """
    found = walls()
    if not found:
        why = (
            "this is not Linux"
            if sys.platform != "linux"
            else f"seccomp does not work here: {HELP}"
        )
        raise UserError(
            f"reward code is a stranger's, and it cannot be shut in ({why}); or let it run with all "
            "your rights: --trust-reward-code yes"
        )
    return found


def scored(
    code: str, rollouts: int, arrays: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray],
    *, within: tuple[str, ...], limits: Limits = Limits(),
) -> np.ndarray:  # fmt: skip
    """What the code's `reward(scene)` gives for each rollout, (P,) float64, all finite.

    Args:
        arrays: (P, ...) each, by "position/NAME", "quaternion/NAME", "particles/NAME", "joint/NAME".
        known: of every rollout: "hull/NAME" (n, 3) [m] points of a rigid object in its own frame,
            "start/NAME" (2, 3) [m, world] corners of an object's box as the scene begins.
        within: what `walls` has found; empty: the code is trusted, and limited only.

    Raises:
        CodeFailed: the code fails, or gives no numbers.
        RunFailed: the walls do not stand.
    """
    given = [{n: np.ascontiguousarray(x) for n, x in g.items()} for g in (arrays, known)]
    size = sum(x.nbytes for g in given for x in g.values())
    request = {
        "code": code, "rollouts": rollouts, "seccomp": "seccomp" in within,
        "cpu_s": int(limits.seconds) + 1,
        "memory_bytes": (limits.memory_mib + OWN_MIB) * 2**20 + 2 * size,
        "arrays": _listed(given[0]), "known": _listed(given[1]),
    }  # fmt: skip
    head = json.dumps(request).encode()
    parts = [struct.pack("<q", len(head)), head, *(x.tobytes() for g in given for x in g.values())]
    tag, content = _exchange(
        within, parts, limits.seconds, most=max(8 * rollouts + 1, LONGEST_TEXT)
    )
    if tag == b"V" and len(content) == 8 * rollouts:
        values = np.frombuffer(content, "<f8")
        if np.isfinite(values).all():
            return values
    if tag == b"E":
        raise CodeFailed(f"reward code: {_one_line(content)}")
    if tag == b"N":
        raise RunFailed(f"the sandbox does not stand: {_one_line(content)}")
    raise CodeFailed("reward code: it answered with something that is no numbers")


def _listed(group: Mapping[str, np.ndarray]) -> list:
    return [[n, x.dtype.str, list(x.shape)] for n, x in group.items()]


def _one_line(content: bytes) -> str:
    text = content.decode(errors="replace")
    shown = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(shown.split())[:400] or "it failed without a word"


def _exchange(
    within: tuple[str, ...], parts: list[bytes], seconds: float, most: int
) -> tuple[bytes, bytes]:
    """The answer's first byte and the rest; no process of it is left."""
    process = subprocess.Popen(
        _command(within), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        cwd="/", env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + seconds
        try:
            for part in parts:
                process.stdin.write(part)
            process.stdin.close()
        except BrokenPipeError:
            pass  # It ended; why is said below.
        answer = _answer(process, until, most)
    finally:
        _end(process)
    if answer:
        return answer[:1], answer[1:]
    code = process.returncode
    # bubblewrap tells of a signal as a shell does.
    number = -code if code < 0 else code - 128
    if number == signal.SIGXCPU:
        raise CodeFailed(f"reward code: it used more than {seconds:g} s of a processor")
    what = signal.Signals(number).name if number in iter(signal.Signals) else f"status {code}"
    raise CodeFailed(f"reward code: its process ended without an answer ({what})")


def _answer(process: subprocess.Popen, until: float, most: int) -> bytes:
    """
    Raises:
        CodeFailed: it takes too long, or says too much.
    """
    found, begin = b"", time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = until - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise CodeFailed(
                    f"reward code: no answer within {time.monotonic() - begin:.0f} s; it was ended"
                )
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=left)
                return found
            found += data
            if len(found) > most:
                raise CodeFailed("reward code: it answered with something that is no numbers")


def _end(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):  # Of what it ended without having read.
        process.stdin.close()


def _command(within: tuple[str, ...]) -> list[str]:
    python = os.path.realpath(sys.executable)
    options = ["-I", "-S", "-B"]
    folders = _packages("seccomp" in within)
    if "bubblewrap" not in within:
        return [python, *options, str(INSIDE), *sorted({str(p.parent) for p in folders})]
    shown: list[str] = []
    for place in ("/usr", "/lib", "/lib64", "/lib32"):
        if os.path.islink(place):
            shown += ["--symlink", os.readlink(place), place]
        elif os.path.isdir(place):
            shown += ["--ro-bind", place, place]
    prefix = os.path.realpath(sys.base_prefix)
    if not prefix.startswith("/usr"):
        shown += ["--ro-bind", prefix, prefix]
    for p in folders:
        shown += ["--ro-bind", str(p), f"/packages/{p.name}"]
    return [
        shutil.which("bwrap") or "bwrap", "--unshare-all", "--die-with-parent", "--new-session",
        "--cap-drop", "ALL", *shown, "--ro-bind", str(INSIDE), "/inside.py", "--remount-ro", "/",
        "--chdir", "/", python, *options, "/inside.py", "/packages",
    ]  # fmt: skip


def _packages(seccomp: bool) -> list[Path]:
    """numpy, with the libraries beside it, and pyseccomp."""
    numpy = Path(np.__file__).resolve().parent
    found = [numpy, numpy.with_name("numpy.libs")]
    spec = importlib.util.find_spec("pyseccomp") if seccomp else None
    if spec is not None:
        found.append(Path(spec.origin).resolve())
    return [p for p in found if p.exists()]


@functools.cache
def _runs(within: tuple[str, ...]) -> bool:
    """Whether a process starts within these walls and answers."""
    if "bubblewrap" in within and shutil.which("bwrap") is None:
        return False
    if "seccomp" in within and (
        sys.platform != "linux" or importlib.util.find_spec("pyseccomp") is None
    ):
        return False
    try:
        return scored("def reward(scene): return 7", 1, {}, {}, within=within).tolist() == [7.0]
    except (RunFailed, OSError):
        return False
