"""Shared fixtures. Heavy work is one-threaded here, so that equal inputs give equal bits."""

from __future__ import annotations

import json
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


@pytest.fixture(scope="session")
def panda():
    from lucibot.robot.arm import load_arm

    return load_arm("franka")


@pytest.fixture
def own_arm(tmp_path):
    """Makes an arm of a model's file name and text: joints j0 and so on, and a body "tip" without a gripper."""
    from lucibot.robot.arm import load_arm

    def make(name: str, text: str, joints: int = 4):
        folder = tmp_path / "own_arm"
        folder.mkdir()
        (folder / name).write_text(text)
        names, ones = [f"j{i}" for i in range(joints)], [1.0] * joints
        (folder / "arm.toml").write_text(
            f'title = "A stick"\nmodel = "{name}"\ntip = "tip"\njoints = {json.dumps(names)}\n'
            f"home_rad = {ones}\nvelocity_rad_s = {ones}\nacceleration_rad_s2 = {ones}\n"
            "[gripper]\ntcp_m = [0.0, 0.0, 0.1]\nopening_m = 0.05\nfinger_m = [0.02, 0.01, 0.04]\n"
            "palm_m = [0.05, 0.1, 0.05]\n"
        )
        return load_arm(folder)

    return make


@pytest.fixture
def slow_panda(panda, tmp_path):
    """The folder of somebody's own arm, which is called "franka" too: its joints are ten times as slow."""
    folder = tmp_path / "own" / "franka"
    folder.mkdir(parents=True)
    text = (panda.folder / "arm.toml").read_text()
    slow = ", ".join(str(v / 10) for v in panda.spec.velocity_rad_s)
    text, found = re.subn(r"(?m)^velocity_rad_s = .*$", f"velocity_rad_s = [{slow}]", text)
    assert found == 1
    (folder / "arm.toml").write_text(text)
    return folder


@pytest.fixture(scope="session")
def cups(small_task, tmp_path_factory):
    """The scene of stack_cups with a small camera."""
    return small_task("stack_cups", tmp_path_factory.mktemp("t") / "stack_cups", width=160, height=120, fps=10)  # fmt: skip
