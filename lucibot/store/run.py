"""The run directory: where a run's artefacts lie, and which of them can be trusted.

    runs/<task>/<time>_<id>/
      run.json                     task, config, seed, versions, machine
      run.lock                     held by the process that works on the run
      20_imagine/<fingerprint>/    artefacts, log.jsonl, manifest.json (written last)
      result.json, report.html     of the last command

A stage's fingerprint is the hash of its name, version, the settings that are not the defaults, its
seed, the parts of the task that it reads and the digests of the stages that it reads. A folder
whose manifest is there and whose files match it is skipped; a changed config makes a sibling
folder, so nothing that was paid for is overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lucibot.core.errors import UserError
from lucibot.core.video import sha256_file
from lucibot.store.lock import locked
from lucibot.store.result import RESULT, Result, read_result

MANIFEST = "manifest.json"
LOG = "log.jsonl"
LOCK = "run.lock"
REPORT = "report.html"
RESULTS = (RESULT, REPORT)
"""What lies at the top of a run directory, of the last command that worked on it."""


def write_json(path: Path, value: Any) -> None:
    """Write beside and rename, so that a reader never sees half a file."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(path)


def digest(value: Any) -> str:
    """Short sha256 of json-ready data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class StageFolder:
    """The artefacts of one stage under one fingerprint."""

    path: Path
    fingerprint: str

    @property
    def log(self) -> Path:
        return self.path / LOG

    @property
    def manifest_path(self) -> Path:
        return self.path / MANIFEST

    def manifest(self) -> dict | None:
        try:
            manifest = json.loads(self.manifest_path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            manifest = None
        whole = isinstance(manifest, dict) and all(
            isinstance(manifest.get(n), kind) for n, kind in _MANIFEST.items()
        )
        return manifest if whole else {"files": {MANIFEST: "unreadable"}}

    def damaged(self) -> list[str]:
        """Files that are missing or differ from the manifest; empty for a trustworthy folder."""
        manifest = self.manifest()
        if manifest is None:
            return []
        return [n for n, sha in manifest["files"].items() if _sha256_if_there(self.path / n) != sha]

    def finished(self) -> bool:
        return self.manifest() is not None

    def digest(self) -> str:
        """What a stage downstream hashes: the contents of every artefact."""
        return digest(self.manifest()["files"])

    def last_used(self) -> float:
        """When it was made or kept last [s since 1970]: by its log, since copies of a run have other
        times of files."""
        try:
            return float(json.loads(self.log.read_text().splitlines()[-1])["time"])
        except (OSError, ValueError, LookupError, TypeError):
            return self.manifest_path.stat().st_mtime

    def clear(self, keep: tuple[str, ...] = ()) -> None:
        """Remove everything but files that match the `keep` patterns (checkpoints, logs)."""
        (self.path / MANIFEST).unlink(missing_ok=True)
        kept = {p for pattern in (*keep, LOG) for p in self.path.glob(pattern)}
        for p in self.path.iterdir():
            if p not in kept:
                shutil.rmtree(p) if p.is_dir() else p.unlink()

    def finish(
        self, *, config: Any, inputs: dict[str, str], seconds: float, notes: list[str]
    ) -> None:
        """Write the manifest: from now on the folder is trusted."""
        files = {
            p.relative_to(self.path).as_posix(): sha256_file(p)
            for p in sorted(self.path.rglob("*"))
            if p.is_file() and p.name not in (MANIFEST, LOG) and not _for_measurement(p, self.path)
        }
        write_json(
            self.path / MANIFEST,
            {"fingerprint": self.fingerprint, "config": config, "inputs": inputs,
             "seconds": round(seconds, 3), "notes": notes, "files": files},
        )  # fmt: skip

    def copy(self, other: StageFolder, *, source: str) -> bool:
        """Fill this folder with another's artefacts, the manifest last; `source` is noted in it.

        False if they have changed meanwhile: whoever works on the other run may clear the folder.
        """
        manifest = other.manifest()
        if manifest is None:
            return False
        try:
            for p in other.path.iterdir():
                if p.is_dir():
                    shutil.copytree(p, self.path / p.name, dirs_exist_ok=True)
                elif p.name != MANIFEST:
                    shutil.copy2(p, self.path / p.name)
        except (FileNotFoundError, shutil.Error):
            return False
        write_json(self.manifest_path, {**manifest, "taken_over_from": source})
        return not self.damaged()

    def event(self, message: str, **fields: Any) -> None:
        """Append one line to the stage's log."""
        line = {"time": round(time.time(), 3), "message": message, **fields}
        with open(self.log, "a") as f:
            f.write(json.dumps(line) + "\n")


_MANIFEST = {"files": dict, "inputs": dict, "seconds": int | float, "notes": list}
"""What a manifest has at least, and of which type."""


def _sha256_if_there(path: Path) -> str | None:
    try:
        return sha256_file(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _for_measurement(p: Path, root: Path) -> bool:
    """What a storyboard planted is kept for measurement: no stage may rest on it."""
    return p.relative_to(root).parts[0] == "planted"


class RunDirectory:
    """One run on disk."""

    def __init__(self, path: Path):
        self.path = path
        self._held = 0

    @classmethod
    def create(cls, out: Path, task: str, record: dict) -> RunDirectory:
        """Make `out/<task>/<time>_<id>/` with its `run.json`.

        Raises:
            UserError: `out` is a file or lies below one.
        """
        path = out / task / f"{time.strftime('%Y%m%d-%H%M%S')}_{secrets.token_hex(2)}"
        try:
            path.mkdir(parents=True)
        except (FileExistsError, NotADirectoryError):
            at = next((p for p in (path, *path.parents) if p.is_file()), out)
            raise UserError(f"{at} is a file, so no run directory can be made below it; "
                            "choose another --out") from None  # fmt: skip
        write_json(path / "run.json", {**record, "versions": versions(), "machine": machine()})
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open an existing run.

        Raises:
            UserError: the folder is no run directory.
        """
        if not (path / "run.json").is_file():
            raise UserError(f"{path} is no run directory: it holds no run.json")
        return cls(path)

    @property
    def record(self) -> dict:
        """What `run.json` says: task, config, seed, versions, machine.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path / "run.json"
        try:
            record = json.loads(path.read_text())
        except ValueError as e:
            raise UserError(f"{path} is damaged ({e}); start a new run") from None
        for name, kind in _RECORD.items():
            if not isinstance(record, dict) or not isinstance(record.get(name), kind):
                raise UserError(f"{path} is damaged (it has no {name!r}); start a new run")
        return record

    def result(self) -> Result:
        """What came out.

        Raises:
            UserError: nothing yet, or `result.json` is damaged.
        """
        return read_result(self.path)

    def rewrite(self, record: dict) -> None:
        write_json(self.path / "run.json", record)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let no other process work on this run meanwhile; may be nested.

        Raises:
            InUse: another one does; the message says which.
        """
        if self._held:
            self._held += 1
            try:
                yield
            finally:
                self._held -= 1
            return
        with locked(self.path / LOCK, str(self.path)):
            self._held = 1
            try:
                yield
            finally:
                self._held = 0

    def stage(self, number: int, name: str, fingerprint: str, *, make: bool = True) -> StageFolder:
        path = self.path / f"{number:02d}_{name}" / fingerprint
        if make:
            path.mkdir(parents=True, exist_ok=True)
        return StageFolder(path, fingerprint)

    def take_over(self, folder: StageFolder) -> bool:
        """Fill a stage's folder from another run beside this one that has the same stage under the
        same fingerprint, whole and made with the same versions. Says whether there was one."""
        stage = folder.path.parent.name
        for path in sorted(self.path.parent.glob(f"*/{stage}/{folder.fingerprint}")):
            other, run = StageFolder(path, folder.fingerprint), RunDirectory(path.parents[1])
            if path == folder.path or not other.finished() or other.damaged():
                continue
            try:
                same = run.record.get("versions") == self.record.get("versions")
            except (OSError, UserError):
                continue
            if same:
                folder.clear()
                if folder.copy(other, source=run.path.name):
                    return True
        return False


_RECORD = {"task": str, "config": dict, "seed": int}
"""What `run.json` has at least, and of which type."""


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    names = ("lucibot", "genesis-world", "quadrants", "torch", "jax", "evosax", "numpy", "mitsuba")
    found = {"python": platform.python_version()}
    for n in names:
        try:
            found[n] = metadata.version(n)
        except metadata.PackageNotFoundError:
            found[n] = "absent"
    return found


def machine() -> dict[str, Any]:
    """The machine, in words and numbers; no host name and no user name."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "processor": _processor(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # Not Linux; the generic name has to do.
    return platform.processor()
