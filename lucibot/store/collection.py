"""A collection of episodes on disk.

    DIR/collection.json      what it is of, and what came of it so far
    DIR/tried/0003.json      each episode that was tried: what differed, and whether it succeeded
    DIR/episodes/0003/       each that succeeded: episode.json, film.mp4, rollout.npz, final_state.npz,
                             trajectory.npz

Each file and each folder appears whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lucibot.core.errors import UserError

RECORD = "collection.json"
EPISODE = "episode.json"
TRIED, EPISODES = "tried", "episodes"


def episodes_of(folder: Path) -> list[Path] | None:
    """The folders of a collection's episodes; None for a folder that is none.

    Raises:
        UserError: it has no episode.
    """
    if not (folder / RECORD).is_file():
        return None
    found = sorted(p.parent for p in (folder / EPISODES).glob(f"[0-9]*/{EPISODE}"))
    if not found:
        raise UserError(f"{folder}: no episode of it has succeeded yet")
    return found


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: it is damaged.
    """
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise UserError(f"{path} is damaged ({' '.join(str(e).split())[:80]})") from None
    if not isinstance(told, dict):
        raise UserError(f"{path} is damaged (it holds no object)")
    return told
