"""`lucibot doctor`: what works on this machine, one line each."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata

NEEDED = ("genesis-world", "quadrants", "torch", "jax", "evosax", "mitsuba", "av")
OPTIONAL = {
    "ray": "pip install 'lucibot[cluster]' for --cluster",
    "cma": "pip install 'lucibot[pycma]' for the optimizer pycma",
}


def checks() -> Iterator[tuple[bool, str, str]]:
    """(fine, what, finding); a check that is not fine says what to do."""
    v = sys.version_info
    yield (3, 11) <= v < (3, 13), "python", f"{v.major}.{v.minor} (3.11 and 3.12 are supported)"
    for name in NEEDED:
        found = _version(name)
        yield found is not None, name, found or "absent: pip install -c constraints.txt -e ."
    for name, how in OPTIONAL.items():
        yield True, name, _version(name) or f"absent, optional: {how}"
    yield True, "gpu", _gpu()
    yield True, "cores", str(len(os.sched_getaffinity(0)))
    free_gib = shutil.disk_usage(".").free / 2**30
    yield free_gib > 2, "disk", f"{free_gib:.0f} GiB free here (a run takes some 0.1 GiB)"
    yield _version("mitsuba") is not None, "ray tracer", _ray_tracer()
    from lucibot.task import task_names

    yield bool(task_names()), "tasks", ", ".join(task_names()) or "none found"


def report() -> int:
    """Print every check; exit status 1 if one is not fine."""
    bad = 0
    for fine, what, finding in checks():
        print(f"{'ok ' if fine else 'BAD'} {what:<14} {finding}", flush=True)
        bad += not fine
    return 1 if bad else 0


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none: populations are sharded over the CPU's cores"
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    return f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"


def _ray_tracer() -> str:
    from lucibot.providers.renderer.mitsuba import ADVICE, llvm_trouble

    reason = llvm_trouble()
    if reason is None:
        return "mitsuba llvm_ad_rgb"
    return f"mitsuba scalar_rgb, for llvm_ad_rgb does not work here ({reason}). {ADVICE}"
