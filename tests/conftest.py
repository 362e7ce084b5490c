"""Shared fixtures. Heavy work is one-threaded here, so that equal inputs give equal bits."""

from __future__ import annotations

import os
import re
import shutil
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


@pytest.fixture(scope="session")
def small_task():
    """Makes a shipped task with a smaller camera in a folder of its own."""
    from lucibot.task import load_task, tasks_folder

    def make(name: str, folder: Path, *, width: int, height: int, fps: float):
        shutil.copytree(tasks_folder() / name, folder)
        text = (folder / "task.toml").read_text()
        for key, value in {"width": width, "height": height, "fps": fps}.items():
            text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", text, count=1)
        (folder / "task.toml").write_text(text)
        return load_task(folder)

    return make
