"""A real photo as a task: camera, shapes and places fitted to it (paper, section 4.3)."""

from pathlib import Path

MASKS = "twin/masks"
"""Where a twin's folder keeps what was segmented, a PNG a thing."""


def is_twin(folder: Path) -> bool:
    """Whether a task folder was made from a photo."""
    return (folder / MASKS).is_dir()
