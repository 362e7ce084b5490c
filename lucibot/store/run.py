"""The run directory: where a run's artefacts lie, and which of them can be trusted.

    runs/<task>/<time>_<id>/
      run.json                     task, config, seed, versions, machine
      20_imagine/<fingerprint>/    artefacts, log.jsonl, manifest.json (written last)
      result.json, report.html

A stage's fingerprint is the hash of its name, version, config, seed and the digests of what it
reads. A folder whose manifest is there and whose files match it is skipped; a changed config makes
a sibling folder, so nothing that was paid for is overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import shutil
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lucibot.core.errors import UserError
from lucibot.core.video import sha256_file

MANIFEST = "manifest.json"
LOG = "log.jsonl"


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
            return json.loads(self.manifest_path.read_text())
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, UnicodeDecodeError):
            return {"files": {MANIFEST: "unreadable"}}

    def damaged(self) -> list[str]:
        """Files that are missing or differ from the manifest; empty for a trustworthy folder."""
        manifest = self.manifest()
        if manifest is None:
            return []
        return [
            name for name, sha in manifest["files"].items()
            if not (self.path / name).is_file() or sha256_file(self.path / name) != sha
        ]  # fmt: skip

    def finished(self) -> bool:
        return self.manifest() is not None

    def digest(self) -> str:
        """What a stage downstream hashes: the contents of every artefact."""
        return digest(self.manifest()["files"])

    def clear(self, keep: tuple[str, ...] = ()) -> None:
        """Remove everything but files that match the `keep` patterns (checkpoints, logs)."""
        (self.path / MANIFEST).unlink(missing_ok=True)
        kept = {p for pattern in (*keep, LOG) for p in self.path.glob(pattern)}
        for p in self.path.iterdir():
            if p not in kept:
                shutil.rmtree(p) if p.is_dir() else p.unlink()

    def finish(self, *, inputs: dict[str, str], seconds: float, notes: list[str]) -> None:
        """Write the manifest: from now on the folder is trusted."""
        files = {
            p.relative_to(self.path).as_posix(): sha256_file(p)
            for p in sorted(self.path.rglob("*"))
            if p.is_file() and p.name not in (MANIFEST, LOG) and not _for_measurement(p, self.path)
        }
        write_json(
            self.path / MANIFEST,
            {"fingerprint": self.fingerprint, "inputs": inputs, "seconds": round(seconds, 3),
             "notes": notes, "files": files},
        )  # fmt: skip

    def copy(self, other: StageFolder) -> None:
        """Fill this folder with another's artefacts, the manifest last."""
        for p in sorted(other.path.iterdir(), key=lambda p: p.name == MANIFEST):
            if p.is_dir():
                shutil.copytree(p, self.path / p.name, dirs_exist_ok=True)
            else:
                shutil.copy2(p, self.path / p.name)

    def event(self, message: str, **fields: Any) -> None:
        """Append one line to the stage's log."""
        line = {"time": round(time.time(), 3), "message": message, **fields}
        with open(self.log, "a") as f:
            f.write(json.dumps(line) + "\n")


def _for_measurement(p: Path, root: Path) -> bool:
    """What a storyboard planted is kept for measurement: no stage may rest on it."""
    return p.relative_to(root).parts[0] == "planted"


class RunDirectory:
    """One run on disk."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, out: Path, task: str, record: dict) -> RunDirectory:
        """Make `out/<task>/<time>_<id>/` with its `run.json`."""
        path = out / task / f"{time.strftime('%Y%m%d-%H%M%S')}_{secrets.token_hex(2)}"
        path.mkdir(parents=True)
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
        try:
            return json.loads((self.path / "run.json").read_text())
        except json.JSONDecodeError as e:
            raise UserError(f"{self.path / 'run.json'} is damaged ({e}); start a new run") from None

    def stage(self, number: int, name: str, fingerprint: str) -> StageFolder:
        path = self.path / f"{number:02d}_{name}" / fingerprint
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
                folder.copy(other)
                return True
        return False


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
