"""`lucibot doctor`: what works on this machine, one line each."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata


def checks() -> Iterator[tuple[bool, str, str]]:
    """(fine, what, finding); a check that is not fine says what to do."""
    v = sys.version_info
    yield (3, 11) <= v < (3, 13), "python", f"{v.major}.{v.minor} (3.11 and 3.12 are supported)"
    for name in ("genesis-world", "quadrants", "torch", "jax", "evosax", "mitsuba", "av"):
        try:
            yield True, name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield False, name, "absent: pip install -c constraints.txt -e ."
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        yield True, "gpu", f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
    else:
        yield True, "gpu", "none: populations are sharded over the CPU's cores"
    yield True, "cores", str(len(os.sched_getaffinity(0)))
    free_gib = shutil.disk_usage(".").free / 2**30
    yield free_gib > 2, "disk", f"{free_gib:.0f} GiB free here (a run takes some 0.1 GiB)"
    from lucibot.providers.renderer.mitsuba import probe_variant

    yield True, "ray tracer", f"mitsuba {probe_variant()}"
    from lucibot.task import task_names

    yield bool(task_names()), "tasks", ", ".join(task_names())


def report() -> int:
    """Print every check; exit status 1 if one is not fine."""
    bad = 0
    for fine, what, finding in checks():
        print(f"{'ok ' if fine else 'BAD'} {what:<14} {finding}")
        bad += not fine
    return 1 if bad else 0
