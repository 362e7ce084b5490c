"""What was said of the candidate videos, and which of them was chosen."""

from __future__ import annotations

import json
from pathlib import Path

VERDICTS = "verdicts.json"
"""Of all candidates, in a stage's folder."""
KEPT = "verdicts"
"""The folder of a run in which each is kept as it is made."""


def chosen_video(imagine: Path, select: Path) -> Path:
    """The file of the chosen candidate, from the folders of both stages."""
    verdicts = json.loads((select / VERDICTS).read_text())
    return imagine / verdicts["candidates"][verdicts["chosen"]]["file"]
