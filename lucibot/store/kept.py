"""Files of a run that took long to make and outlive the stage that made them.

A file is named after the hash of everything that it rests on, so that a stage which failed afterwards, or
is made anew with other settings for what comes later, makes none of it twice.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lucibot.core.video import sha256_file
from lucibot.store.run import digest

KEPT = "kept"
"""The folder of a run in which they lie."""


class KeptFiles:
    """Args:
    folder: where they lie; made when the first is kept.
    note: told of damaged ones.
    """

    def __init__(self, folder: Path, note: Callable[[str], None]):
        self.folder, self.note = folder, note

    def of(self, name: str, rests_on: Any, write: Callable[[Path], None]) -> Path:
        """The file `name` (with its ending) of what it rests on, json-ready; `write` makes it where it is
        not there, whole."""
        stem, ending = Path(name).stem, Path(name).suffix
        path = self.folder / f"{stem}-{digest(rests_on)}{ending}"
        told = path.with_suffix(f"{ending}.sha256")
        if path.is_file():
            if told.is_file() and told.read_text() == sha256_file(path):
                return path
            self.note(f"{path.name} is damaged; it is made again")
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_stem(f".{path.stem}.part")
        write(part)
        told.write_text(sha256_file(part))
        part.replace(path)
        return path


def linked(path: Path, target: Path) -> None:
    """`target` becomes another name of a file, or a copy where the disk knows no such."""
    target.unlink(missing_ok=True)
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
