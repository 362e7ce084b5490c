"""Compile once, not once a process.

Quadrants writes what it has compiled to its cache when it shuts down. Where several processes build
the same scene with an empty cache, each would compile all of it. Here the first builds, makes a step,
shuts down and builds again, while the others wait for its cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from lucibot.core.camera import Camera
from lucibot.sim.engine import shut_down
from lucibot.sim.scene import SimScene
from lucibot.task import Task


def build_scene(
    task: Task, *, n_envs: int, device: str = "cpu", camera: Camera | None = None
) -> SimScene:
    """A `SimScene`; if the cache lacks this task's kernels, only one process compiles them."""
    with _turn(_marker(task, device)) as marker:
        if marker is not None:
            SimScene(task, n_envs=n_envs, device=device).step()
            shut_down()
            marker.touch()
    return SimScene(task, n_envs=n_envs, device=device, camera=camera)


def _marker(task: Task, device: str) -> Path:
    """A file in the cache that says: this task's kernels are there."""
    root = os.environ.get("QD_OFFLINE_CACHE_FILE_PATH")
    folder = Path(root) if root else Path.home() / ".cache" / "quadrants"
    physics = task.digest_of("scene", "roles", "simulation")
    what = [physics, device, version("genesis-world"), version("quadrants")]
    return folder / f"lucibot_{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}"


@contextmanager
def _turn(marker: Path) -> Iterator[Path | None]:
    """Gives the marker to whoever is to compile, None to all others, after waiting if need be.

    The lock goes with its process: who waits for one that died takes its turn.
    """
    try:
        import fcntl
    except ImportError:  # No such locks here: every process compiles for itself.
        yield None
        return
    if marker.exists():
        yield None
        return
    marker.parent.mkdir(parents=True, exist_ok=True)
    with open(marker.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield None if marker.exists() else marker
