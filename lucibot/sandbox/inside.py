"""The other side of the sandbox: a program that scores rollouts by code that it was sent.

Run by its path, not imported: it knows nothing of the package. It reads one request from its standard input,
lets go of what it can, and answers with one byte and bytes after it: "V" and a float64 for each
rollout, "E" and what is wrong with the code, or "N" and what is wrong with this machine.
"""

import json
import math
import os
import resource
import struct
import sys

LONGEST_ERROR = 300
"""Letters of an error that are told."""
HARMLESS = (
    "brk", "munmap", "mremap", "madvise", "futex", "exit", "exit_group", "rt_sigreturn",
    "clock_gettime", "gettimeofday", "getrandom", "sched_yield",
)  # fmt: skip
"""System calls that are left, beside private memory that cannot be run and the one answer."""
AT_HAND = (
    "collections", "dataclasses", "functools", "itertools", "operator", "random", "statistics", "typing",
    "numpy.fft", "numpy.linalg", "numpy.ma", "numpy.polynomial", "numpy.random",
)  # fmt: skip
"""Modules that code may import beside math and numpy: nothing can be loaded later."""


class Scene:
    """What code is given of one rollout."""

    def __init__(self, np, arrays, known, row):
        self._np, self._arrays, self._known, self._row = np, arrays, known, row

    def _of(self, kind, name):
        found = self._arrays.get(f"{kind}/{name}")
        if found is None:
            names = sorted(n.split("/", 1)[1] for n in self._arrays if n.startswith(f"{kind}/"))
            raise KeyError(
                f"scene has no {kind} of {name!r}; there is: {', '.join(names) or 'none'}"
            )
        return self._np.array(found[self._row])

    def position(self, name):
        """(3,) [m, world] of a rigid object's origin."""
        return self._of("position", name)

    def quaternion(self, name):
        """(4,) (w, x, y, z) of a rigid object, its own frame to the world."""
        return self._of("quaternion", name)

    def particles(self, name):
        """(N, 3) [m, world] of a soft, granular or liquid object."""
        return self._of("particles", name)

    def joint(self, name):
        """Value of an object on a joint [rad or m], 0 as the scene begins."""
        return float(self._of("joint", name))

    def rotation(self, name):
        """(3, 3) of a rigid object, its own frame to the world."""
        w, x, y, z = self.quaternion(name)
        return self._np.array([
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ])  # fmt: skip

    def box(self, name):
        """(2, 3) lowest and highest corner [m, world] of an object as it is."""
        if f"particles/{name}" in self._arrays:
            points = self.particles(name)
        elif f"position/{name}" in self._arrays:
            points = self._known[f"hull/{name}"] @ self.rotation(name).T + self.position(name)
        else:
            return self.start_box(name)
        return self._np.stack([points.min(0), points.max(0)])

    def start_box(self, name):
        """(2, 3) the same as the scene begins; also of what never moves."""
        found = self._known.get(f"start/{name}")
        if found is None:
            raise KeyError(f"scene has no object {name!r}")
        return self._np.array(found)


def main():
    np = _imported()
    request, arrays, known = _read(np)
    for module in AT_HAND:
        __import__(module)
    try:
        _limit(request["memory_bytes"], request["cpu_s"])
        if request["seccomp"]:
            _let_go()
    except Exception as e:
        _answer(b"N", f"{type(e).__name__}: {e}".encode())
    sys.stdin = sys.stdout = sys.stderr = None
    try:
        values = _scored(np, request["code"], request["rollouts"], arrays, known)
        _answer(b"V", struct.pack(f"<{len(values)}d", *values))
    except BaseException as e:
        _answer(b"E", _told(e).encode(errors="replace"))


def _imported():
    """numpy, from the folders that the command line names."""
    sys.path += sys.argv[1:]
    sys.dont_write_bytecode = True
    import numpy as np

    return np


def _read(np):
    stream = sys.stdin.buffer
    (size,) = struct.unpack("<q", stream.read(8))
    request = json.loads(stream.read(size))
    groups = []
    for listed in (request["arrays"], request["known"]):
        group = {}
        for name, dtype, shape in listed:
            count = math.prod(shape) * np.dtype(dtype).itemsize
            group[name] = np.frombuffer(stream.read(count), dtype).reshape(shape)
        groups.append(group)
    os.close(0)
    return request, *groups


def _limit(memory_bytes, cpu_s):
    for name, value in (
        ("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0), ("RLIMIT_CPU", cpu_s), ("RLIMIT_AS", memory_bytes),
    ):  # fmt: skip
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):
            if sys.platform == "linux":
                raise


def _let_go():
    """From here on, only harmless system calls."""
    import ctypes.util
    import errno
    import mmap

    # It would ask another program, which is not here; the loader finds it by its name.
    ctypes.util.find_library = {"c": "libc.so.6", "seccomp": "libseccomp.so.2"}.get
    import pyseccomp as seccomp

    MASKED, NO_EXEC = seccomp.MASKED_EQ, 0
    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in HARMLESS:
        try:
            rules.add_rule(seccomp.ALLOW, name)
        except OSError:
            pass  # A processor that has no such call.
    exec_bit = seccomp.Arg(2, MASKED, mmap.PROT_EXEC, NO_EXEC)
    private = seccomp.Arg(3, MASKED, mmap.MAP_ANONYMOUS | mmap.MAP_PRIVATE,
                          mmap.MAP_ANONYMOUS | mmap.MAP_PRIVATE)  # fmt: skip
    rules.add_rule(seccomp.ALLOW, "mmap", exec_bit, private)
    rules.add_rule(seccomp.ALLOW, "mprotect", exec_bit)
    rules.add_rule(seccomp.ALLOW, "write", seccomp.Arg(0, seccomp.EQ, 1))
    rules.load()


def _scored(np, code, rollouts, arrays, known):
    space = {"__name__": "reward", "np": np, "math": math}
    exec(compile(code, "reward", "exec"), space)
    reward = space.get("reward")
    if not callable(reward):
        raise TypeError("it defines no function reward(scene)")
    values = []
    for row in range(rollouts):
        value = reward(Scene(np, arrays, known, row))
        if value is None:
            raise TypeError("reward(scene) gave nothing, not one number")
        try:
            number = np.asarray(value, float)
        except (TypeError, ValueError):
            raise TypeError(f"reward(scene) gave {type(value).__name__}, not one number") from None
        if number.shape != ():
            raise TypeError(f"reward(scene) gave an array of shape {number.shape}, not one number")
        if not math.isfinite(number):
            raise ValueError(f"reward(scene) gave {float(number)} for rollout {row}")
        values.append(float(number))
    return values


def _told(e):
    line, trace = None, e.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "reward":
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(e, SyntaxError):
        line = e.lineno
    try:
        text = str(e)
    except BaseException:
        text = ""
    where = "" if line is None else f"line {line}: "
    return f"{where}{type(e).__name__}{': ' if text else ''}{text}"[:LONGEST_ERROR]


def _answer(tag, content):
    data = tag + content
    while data:
        data = data[os.write(1, data) :]
    os._exit(0)


main()
