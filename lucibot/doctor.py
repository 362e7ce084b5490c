"""`lucibot doctor`: what works on this machine, and the command that mends what does not."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lucibot.config import RunConfig
from lucibot.core.needs import needs_of, version
from lucibot.store.configs import classes

OPTIONAL = {"ray": ("cluster", "a search on a Ray cluster (--cluster)")}
"""Distribution -> the extra that installs it, and what it is for; what members of families need, they
say themselves (`lucibot.core.needs`)."""
LEAST_DISK_GIB = 2.0
LEAST_MEMORY_GIB = 4.0


@dataclass(frozen=True, kw_only=True)
class Check:
    what: str
    found: str
    fine: bool = True
    """Runs go without it, if not as fast."""
    there: bool = True
    """What is optional may not be there."""
    mend: str = ""
    """A command a line, or what to do; also where it is fine, and there is something to gain."""


def checks() -> Iterator[Check]:
    v = sys.version_info
    yield Check(
        what="python", found=f"{v.major}.{v.minor} at {sys.executable}", fine=(3, 11) <= v < (3, 13),
        mend="" if (3, 11) <= v < (3, 13) else "install Python 3.11 or 3.12 and make the environment "
        "with it: rm -rf .venv && make test PYTHON=python3.12",
    )  # fmt: skip
    yield from needed()
    for name, (extra, purpose) in OPTIONAL.items():
        found = version(name)
        yield Check(what=name, found=found or f"absent: needed for {purpose} alone",
                    there=found is not None, mend="" if found else f"pip install 'lucibot[{extra}]'")  # fmt: skip
    yield _gpu()
    yield Check(what="cores", found=str(len(os.sched_getaffinity(0))))
    yield _memory()
    yield _disk(Path.cwd())
    yield _caches()
    yield _ray_tracer()
    yield _tasks()
    yield from members()


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
        there = version(r.name)
        fine = there is not None and r.specifier.contains(there, prereleases=True)
        wanted = f"{r.name}{r.specifier}"
        found = there or "absent"
        yield Check(what=r.name, found=found if fine else f"{found}, needed: {wanted}", fine=fine,
                    mend="" if fine else f"pip install '{wanted}'")  # fmt: skip


def members() -> Iterator[Check]:
    """Every member of every family: what of its needs is not here, and what mends that. What needs
    nothing is one line a family."""
    families: dict[str, list[type]] = {}
    for path, member in _members(RunConfig):
        families.setdefault(path, []).append(member)
    told: set[type] = set()
    for path, found in families.items():
        if len(found) == 1 or told.issuperset(found):
            continue  # Nothing to choose, or the same choice as before in another place.
        told.update(found)
        troubles = {m.kind: _lacks(m, path) for m in found}
        ready = [_named(m, path) for m in found if not troubles[m.kind]]
        if ready:
            yield Check(what=f"--{path}", found=f"{', '.join(ready)}: ready")
        for m in found:
            if lacks := troubles[m.kind]:
                what = "; ".join(what for what, _ in lacks)
                note = "; ".join(filter(None, (needs_of(m).note, needs_of(m).licence)))
                yield Check(
                    what=f"--{path} {m.kind}", found=f"lacks {what}{f' ({note})' if note else ''}",
                    mend="\n".join(dict.fromkeys(mend for _, mend in lacks)), there=False,
                )  # fmt: skip


def _members(kind: type, path: str = "") -> Iterator[tuple[str, type]]:
    """Members with the flag that chooses them, in the order of the fields. A member is a config with
    a `kind`."""
    hints = typing.get_type_hints(kind)
    for f in dataclasses.fields(kind):
        here = f"{path}.{f.name}" if path else f.name
        for cls in classes(hints[f.name]):
            if hasattr(cls, "kind"):
                yield here.replace("_", "-"), cls
            yield from _members(cls, here)


def _named(member: type, path: str) -> str:
    """A member with the settings that must be given."""
    flags = [f"--{path}.{s.replace('_', '-')}" for s in needs_of(member).settings]
    return f"{member.kind} (with {' and '.join(flags)})" if flags else member.kind


def _lacks(member: type, path: str) -> list[tuple[str, str]]:
    """What a member needs and what is not here, each with what mends it."""
    needs, found = needs_of(member), []
    if missing := needs.missing_packages():
        found.append((f"the package {' and '.join(missing)}", needs.install))
    found += [(f"the key {k}", f"export {k}=...") for k in needs.keys if not os.environ.get(k)]
    found += [
        (f"weights {w} on this machine", f"hf download {w}")
        for w in needs.weights if not _in_cache(w)
    ]  # fmt: skip
    if needs.gpu_gib and (free := _gpu_gib()) < needs.gpu_gib:
        there = f"the one here has {free:.0f}" if free else "there is none here"
        found.append((f"a GPU with {needs.gpu_gib:g} GiB ({there})",
                      "use a machine with one, or settings that need less: `lucibot run --help`"))  # fmt: skip
    return found


def _in_cache(weights: str) -> bool:
    """Whether a checkpoint of the hub lies in its cache."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    return any(hub.glob(f"models--{weights.replace('/', '--')}/snapshots/*/*"))


def _gpu_gib() -> float:
    """Memory of this machine's GPU [GiB]; 0 where there is none."""
    try:
        import torch
    except ImportError:
        return 0.0
    if not torch.cuda.is_available():
        return 0.0
    return torch.cuda.get_device_properties(0).total_memory / 2**30


def report() -> int:
    """Print every check: "ok", "no" where what is optional is not there, "BAD"; exit status 1 if one is
    bad."""
    bad = 0
    for c in checks():
        mark = ("ok " if c.there else "no ") if c.fine else "BAD"
        print(f"{mark} {c.what:<14} {c.found}", flush=True)
        for line in c.mend.splitlines():
            print(f"{'':<18} -> {line}", flush=True)
        bad += not c.fine
    return 1 if bad else 0


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
    if version("mitsuba") is None:
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
