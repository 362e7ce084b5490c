"""Folders that a user names to be written to."""

from __future__ import annotations

from pathlib import Path

from lucibot.core.errors import UserError


def make_folder(folder: Path, option: str = "--out") -> Path:
    """Make `folder`, with those above it, if it is not there.

    Args:
        option: which names it.

    Raises:
        UserError: a file is in the way, or it may not be made there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        in_the_way = next((p for p in (folder, *folder.parents) if p.is_file()), None)
        why = f"{e.strerror}" if in_the_way is None else f"{in_the_way} is a file"
        raise UserError(f"{option} {folder}: cannot be made ({why}); choose another") from None
    return folder
