"""A new task folder: small, complete, and full of comments."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from lucibot.core.errors import UserError

TEMPLATE = Path(__file__).with_name("template")


def new_task(name: str, folder: Path) -> Path:
    """Write `folder/name`, in which a hand pushes one box with another; returns its path.

    Raises:
        UserError: the name cannot be a folder's, or the folder exists.
    """
    import cv2
    import trimesh

    from lucibot.authoring.textures import octaves

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"{name!r} cannot name a task: use small letters, digits and underscores")
    made = Path(folder) / name
    if made.exists():
        raise UserError(f"{made} exists already; choose another name")
    (made / "assets").mkdir(parents=True)
    title = name.replace("_", " ").capitalize()
    for source in sorted(TEMPLATE.iterdir()):
        (made / source.name).write_text(source.read_text().replace("TITLE", title))
    for piece, extents in {"pusher": (0.03, 0.10, 0.08), "block": (0.06, 0.06, 0.06)}.items():
        box = trimesh.creation.box(extents=extents)
        box.apply_translation([0, 0, extents[2] / 2])
        box.export(made / "assets" / f"{piece}.obj", digits=6)
    grey = 0.45 + 0.4 * (octaves((512, 512), (24, 24), np.random.default_rng(0), 4, 0.9) - 0.5)
    cv2.imwrite(str(made / "assets" / "table.jpg"), (255 * np.clip(grey, 0, 1)).astype(np.uint8))
    return made
