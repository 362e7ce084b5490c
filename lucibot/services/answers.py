"""Answers that were given, kept under the hash of everything that was sent: asked once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lucibot.core.errors import UserError
from lucibot.store.run import write_json


class Answers:
    """One JSON file an answer below `folder`; what was sent is hashed and not kept."""

    def __init__(self, folder: Path):
        self.folder = folder

    def key(self, sent: Any) -> str:
        """sha256 of json-ready data."""
        return hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> str | None:
        """The answer's text; None where there is none, or where its file is not whole."""
        kept = _whole(self.folder / f"{key}.json")
        return None if kept is None else kept["content"]

    def put(self, key: str, content: str, **facts: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        write_json(self.folder / f"{key}.json", {**facts, "sha256": sha256, "content": content})


class Recording:
    """The answers of an earlier run, by what was asked, whichever server it was.

    Args:
        folder: a run directory, or its folder `services/answers`.

    Raises:
        UserError: there are no answers in it.
    """

    def __init__(self, folder: Path):
        within = folder / "services" / "answers"
        self.folder = within if within.is_dir() else folder
        kept = [_whole(path) for path in sorted(self.folder.glob("*.json"))]
        self._content = {k["question"]: k["content"] for k in kept if k and "question" in k}
        if not self._content:
            raise UserError(
                f"--services.vlm.replay {folder}: no recorded answers there; give the directory of a "
                "run that asked a model"
            )

    def answer(self, question: str, what: str) -> str:
        """
        Raises:
            UserError: that was not asked.
        """
        if question not in self._content:
            raise UserError(
                f"{what}: this question is not among the answers in {self.folder}: its words, pictures "
                "or model are others; ask a server (--services.vlm.replay none)"
            )
        return self._content[question]


def _whole(path: Path) -> dict[str, Any] | None:
    try:
        kept = json.loads(path.read_text())
        whole = kept["sha256"] == hashlib.sha256(kept["content"].encode()).hexdigest()
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return kept if whole else None
