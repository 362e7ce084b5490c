"""What a video model is told: words beside the first frame (paper, section 3.2)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

PROMPT = "prompt.json"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    text: str
    """What the video shows."""
    negative: str
    """What it must not show, for models that take such a text apart."""

    @classmethod
    def load(cls, folder: Path) -> Prompt:
        """From the folder of the stage `prompt`."""
        told = json.loads((folder / PROMPT).read_text())
        return cls(text=told["text"], negative=told["negative"])
