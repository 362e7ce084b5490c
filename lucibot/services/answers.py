"""Answers that were given, kept under the hash of everything that was sent: asked once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

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
        try:
            kept = json.loads((self.folder / f"{key}.json").read_text())
            content = kept["content"]
            whole = kept["sha256"] == hashlib.sha256(content.encode()).hexdigest()
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return content if whole else None

    def put(self, key: str, content: str, **facts: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        write_json(self.folder / f"{key}.json", {**facts, "sha256": sha256, "content": content})
