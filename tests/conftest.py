"""Shared fixtures. Heavy work is one-threaded here, so that equal inputs give equal bits."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared_video():
    """Path of a generated video that is handed over beside the checkout, by file name."""

    def find(name: str) -> Path:
        path = SHARED / "videos" / name
        if not path.is_file():
            pytest.skip(f"the generated video {name} is not beside this checkout (shared/videos)")
        return path

    return find
