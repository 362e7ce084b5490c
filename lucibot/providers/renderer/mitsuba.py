"""The default renderer: Mitsuba 3, a path tracer, on the CPU (paper, section 3.2).

Mitsuba runs in a process of its own. Its LLVM back end aborts the whole process where it meets a
version of LLVM that it does not like, which no `except` can catch, and two of its back ends cannot
live together with other users of LLVM.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.errors import RunFailed
from lucibot.core.progress import Progress, silent
from lucibot.core.schema import Count
from lucibot.providers.renderer.surfaces import linear_to_srgb, task_surfaces
from lucibot.task import Task

WORKER = Path(__file__).with_name("mitsuba_worker.py")
PROBE_SECONDS = 60
ADVICE = "With LLVM 19 (Debian's libllvm19) it takes a quarter to a half of the time"


@dataclass(frozen=True, kw_only=True)
class MitsubaRenderer(Config):
    """Path tracing on the CPU."""

    kind: Literal["mitsuba"] = "mitsuba"
    spp: Annotated[Count, Field(le=65_536)] = 5
    """Light paths a pixel."""
    variant: Literal["auto", "llvm_ad_rgb", "scalar_rgb"] = "auto"
    """Mitsuba's back end; "auto" takes LLVM where a probe in a subprocess survives."""
    denoise: bool = True
    """Smooth what noise is left, guided by normals, depth and surface colour."""
    max_depth: Annotated[Count, Field(le=100)] = 4
    """Longest light path, in edges."""
    seed: int = 0

    def create(self) -> PathTracer:
        return PathTracer(self)


@dataclass(frozen=True, kw_only=True)
class Buffers:
    """What the worker draws."""

    color: np.ndarray
    """(H, W, 3) float32 linear RGB."""
    albedo: np.ndarray
    """(H, W, 3) float32."""
    normal: np.ndarray
    """(H, W, 3) float32, world axes."""
    ray_length_m: np.ndarray
    """(H, W) float32; the mean over each pixel."""
    labels: np.ndarray
    """(H, W) uint8, exactly at pixel centres: 0 background, i + 1 for object i."""
    depth_m: np.ndarray
    """(H, W) float32 [m], at pixel centres, along the optical axis; inf where nothing is."""


@dataclass
class PathTracer:
    config: MitsubaRenderer
    notes: list[str] = field(default_factory=list)
    """Fallbacks that were taken, for the run's records."""

    def render(self, task: Task, *, foreground: bool, progress: Progress = silent) -> np.ndarray:
        """(H, W, 3) uint8 sRGB picture of the initial scene through the task's camera."""
        what = "scene" if foreground else "background"
        progress(f"ray-tracing the {what} of {task.name}")
        buffers = self.trace(task, foreground=foreground)
        color = buffers.color
        if self.config.denoise:
            # Imports numba, which takes half a second: not for everybody who reads a config.
            from lucibot.providers.renderer.denoise import denoise

            color = denoise(
                color, albedo=buffers.albedo, normal=buffers.normal, depth=buffers.ray_length_m
            )
        return np.round(255 * linear_to_srgb(color)).astype(np.uint8)

    def trace(self, task: Task, *, foreground: bool) -> Buffers:
        """Draw once, with everything that the path tracer knows of each pixel.

        Raises:
            RunFailed: the worker died; the message carries its last words.
        """
        variant = self._variant()
        with tempfile.TemporaryDirectory(prefix="lucibot_mitsuba_") as folder:
            scratch = Path(folder)
            self._write_scene(task, scratch, foreground)
            _run_worker(variant, scratch)
            with np.load(scratch / "buffers.npz") as z:
                buffers = {k: z[k] for k in z.files}
        return Buffers(**buffers)

    def _variant(self) -> str:
        if self.config.variant != "auto":
            return self.config.variant
        reason = llvm_trouble()
        if reason is None:
            return "llvm_ad_rgb"
        note = f"mitsuba's llvm_ad_rgb does not work here ({reason}); scalar_rgb draws instead. {ADVICE}"
        if note not in self.notes:
            self.notes.append(note)
        return "scalar_rgb"

    def _write_scene(self, task: Task, folder: Path, foreground: bool) -> None:
        """`scene.json` and one `<i>.npz` a surface, for the worker."""
        shapes = []
        for i, s in enumerate(task_surfaces(task, foreground=foreground)):
            np.savez(folder / f"{i}.npz", corners=s.corners_m, normals=s.normals, uv=s.uv,
                     colors=s.colors)  # fmt: skip
            shapes.append({
                "arrays": f"{i}.npz", "label": s.label, "roughness": s.roughness,
                "metallic": s.metallic, "texture": str(s.texture) if s.texture else None,
            })  # fmt: skip
        light, c = task.spec.light, self.config
        scene = {
            "camera": task.camera.to_dict(), "shapes": shapes, "light": light.model_dump(),
            "spp": c.spp, "max_depth": c.max_depth, "seed": c.seed,
        }  # fmt: skip
        (folder / "scene.json").write_text(json.dumps(scene))


def _run_worker(variant: str, folder: Path) -> None:
    done = _worker(["draw", variant, str(folder)], timeout=None)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise RunFailed(f"mitsuba ({variant}) ended with status {done.returncode}: {words[-1]}")


@cache
def llvm_trouble() -> str | None:
    """Why `llvm_ad_rgb` cannot be used on this machine, or None; tried once a process."""
    try:
        done = _worker(["probe", "llvm_ad_rgb"], timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"the probe took longer than {PROBE_SECONDS} s"
    if done.returncode == 0 and done.stdout.strip().endswith("ok"):
        return None
    if done.returncode < 0:
        return f"the probe was killed by signal {-done.returncode}"
    words = done.stderr.strip().splitlines() or ["no message"]
    return words[-1][:200]


def _worker(arguments: list[str], timeout: float | None) -> subprocess.CompletedProcess:
    # Run as a file it pays for mitsuba and nothing else; -P keeps this folder, which has a
    # mitsuba.py too, off its path. In a session of its own it does not see Ctrl-C, of which it would
    # tell with a traceback; it is killed when this process is interrupted.
    return subprocess.run(
        [sys.executable, "-P", str(WORKER), *arguments], capture_output=True, text=True,
        timeout=timeout, env={**os.environ, "PYTHONPATH": ""}, check=False, start_new_session=True,
    )  # fmt: skip
