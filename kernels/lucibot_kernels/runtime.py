"""The Quadrants runtime that the kernels run on.

Genesis owns the runtime where Genesis runs; elsewhere the kernels start one with the same compiler
settings, so that both give the same bits. Quadrants is imported at the first use of a kernel and
not before, because its import takes seconds.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import sys
from types import ModuleType

import torch


@contextlib.contextmanager
def quick_imports():
    """Makes imports of modules that are full of kernels two to three times faster.

    Quadrants asks for the module of a stack frame at each kernel that it sees, and `inspect`
    answers by going through all loaded modules, though a frame knows its module.
    """
    original = inspect.getmodule

    def getmodule(thing, _filename=None):
        if inspect.isframe(thing):
            return sys.modules.get(thing.f_globals.get("__name__", ""))
        return original(thing, _filename)

    inspect.getmodule = getmodule
    try:
        yield
    finally:
        inspect.getmodule = original


def _quadrants() -> ModuleType:
    if "quadrants" in sys.modules:
        return sys.modules["quadrants"]
    # Quadrants prints its version when it is imported, and a library must leave stdout alone; but
    # it takes a redirected stdout for a notebook's and then empties a print buffer at each launch,
    # unless this variable says otherwise.
    before = os.environ.get("QD_ENABLE_PYBUF")
    os.environ["QD_ENABLE_PYBUF"] = "0"
    try:
        with contextlib.redirect_stdout(io.StringIO()), quick_imports():
            return importlib.import_module("quadrants")
    finally:
        if before is None:
            del os.environ["QD_ENABLE_PYBUF"]
        else:
            os.environ["QD_ENABLE_PYBUF"] = before


def active_device() -> str | None:
    """ "cpu" or "cuda" (any GPU backend) when a runtime is up, else None."""
    qd = _quadrants()
    runtime = qd.lang.impl.get_runtime()
    # The public `prog` property raises when nothing is initialised; the attribute tells quietly.
    if runtime._prog is None:
        return None
    return "cpu" if runtime._prog.config().arch in (qd.x64, qd.arm64) else "cuda"


def ensure_initialized(device: str = "cpu") -> str:
    """Start the Quadrants runtime on `device` ("cpu" or "cuda") unless one is already up.

    A runtime that exists (started by Genesis, or by an earlier call) is never replaced: that would
    invalidate every field that lives in it. Returns the device of the runtime that is up. The
    number of CPU threads is 1, or `QD_NUM_THREADS`, as in Genesis.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device: expected 'cpu' or 'cuda', got {device!r}")
    up = active_device()
    if up is not None:
        return up
    qd = _quadrants()
    with contextlib.redirect_stdout(io.StringIO()):
        # The settings of genesis.init, because fast_math and the like decide the last bit.
        qd.init(
            arch=getattr(qd, device),
            enable_fallback=False,
            force_scalarize_matrix=True,
            advanced_optimization=True,
            cfg_optimization=False,
            fast_math=True,
            default_ip=qd.i32,
            default_fp=qd.f32,
            log_level=qd.WARN,
            cpu_max_num_threads=int(os.environ.get("QD_NUM_THREADS", "1")),
        )
    return device


def few_threads(device: torch.device) -> bool:
    """Whether an environment is one thread's work, as on a CPU; on a GPU many share it."""
    return device.type == "cpu"


def cpu_threads() -> int:
    """How many CPU threads the runtime that is up uses."""
    return _quadrants().lang.impl.get_runtime()._prog.config().cpu_max_num_threads


def kernels(name: str, device: torch.device) -> ModuleType:
    """The kernel module `lucibot_kernels.<name>`, with a runtime up that can use `device`."""
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: expected tensors on cpu or cuda, got {device}")
    up = ensure_initialized(device.type)
    if up != device.type:
        raise ValueError(
            f"device: expected tensors on {up}, where the kernel runtime runs, got {device}"
        )
    with quick_imports():
        return importlib.import_module(f"lucibot_kernels.{name}")
