"""Deformable parts over time: key meshes of one topology, and how they are placed and interpolated.

A morph tells what becomes of a deformable object, or of one part of it (the liquid in the bottle,
the stream, the liquid in the glass). Its key meshes come from an `.npz` file that the task's own
`assets/make.py` writes: `vertices` (K, V, 3) [m], `faces` (F, 3), and optionally `colors` (V, 3)
sRGB in [0, 1]. Nothing is simulated; vertices move on smooth curves from key to key.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.interpolate import PchipInterpolator

from lucibot.core.arrays import read_npz
from lucibot.core.errors import UserError
from lucibot.core.euler import euler_xyz_deg_to_matrix
from lucibot.providers.video.storyboard.schema import MorphKey, MorphSpec
from lucibot.providers.video.storyboard.shapes import to_linear
from lucibot.task import Task

GROW_S = 1.0
"""How long a part takes to its jittered size."""


@dataclass(frozen=True, kw_only=True)
class KeyMeshes:
    vertices: np.ndarray
    """(K, V, 3) float64 [m], each in its key's frame."""
    faces: np.ndarray
    """(F, 3) int32"""
    albedo: np.ndarray | None
    """(V, 3) float32 linear RGB; None for the object's mean colour."""


def load_key_meshes(path: Path) -> KeyMeshes:
    """The key meshes of one file.

    Raises:
        UserError: an array is missing, of a wrong shape or not finite.
    """

    def none(why: str) -> UserError:
        return UserError(f"{path}: no key meshes can be read from it ({why})")

    try:
        with read_npz(path, none) as arrays:
            vertices = np.asarray(arrays["vertices"], float)
            faces = np.asarray(arrays["faces"], np.int32)
    except FileNotFoundError:
        raise none("no such file") from None
    if vertices.ndim != 3 or vertices.shape[2] != 3 or not np.isfinite(vertices).all():
        raise UserError(f"{path}: vertices must be finite and (K, V, 3), got {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3 or not _within(faces, vertices.shape[1]):
        raise UserError(f"{path}: faces must be (F, 3) indices of {vertices.shape[1]} vertices")
    colors = arrays.get("colors")
    if colors is not None and colors.shape != vertices.shape[1:]:
        raise UserError(f"{path}: colors must be {vertices.shape[1:]}, got {colors.shape}")
    albedo = None if colors is None else to_linear(np.asarray(colors)).astype(np.float32)
    return KeyMeshes(vertices=vertices, faces=faces, albedo=albedo)


def _within(faces: np.ndarray, count: int) -> bool:
    return len(faces) > 0 and faces.min() >= 0 and faces.max() < count


class MorphPath:
    """One part over the whole video."""

    def __init__(
        self,
        task: Task,
        spec: MorphSpec,
        times_s: np.ndarray,
        warp,
        groups: dict,
        *,
        size: float,
        stops_s: float | None = None,
    ):
        """
        Args:
            times_s: (T,) of the video's frames.
            warp: map from storyboard to video time [s].
            groups: jitter of each group of keys, a shift (3,) [m] and a turn (3,) [deg].
            size: relative growth that the part drifts to.
            stops_s: video time at which the part stops changing, to miss the goal.
        """
        self.spec, self.name = spec, spec.part or spec.object
        self.meshes = load_key_meshes(task.path(spec.meshes))
        self.albedo = self.meshes.albedo
        self.rest = task.object(spec.object).T_world_object
        keys = sorted(spec.key, key=lambda k: k.at_s)
        at = np.array([warp(k.at_s) for k in keys])
        self._runs: list[_Run] = []
        first = 0
        for i in range(1, len(keys) + 1):
            if i == len(keys) or keys[i].frame != keys[first].frame:
                rows = [self._placed(task, k, groups) for k in keys[first:i]]
                self._runs.append(_Run(keys[first].frame, at[first:i], np.stack(rows)))
                first = i
        last = np.inf if stops_s is None else stops_s
        self._clock = np.minimum(times_s, last)
        ends = np.inf if spec.until_s is None else warp(spec.until_s)
        self.shown = (self._clock >= at[0]) & (self._clock < ends)
        """(T,) bool: the part is there."""
        ramp = np.clip((times_s - at[0]) / GROW_S, 0, 1)
        self._scale = 1 + size * ramp * ramp * (3 - 2 * ramp)

    def _placed(self, task: Task, key: MorphKey, groups: dict) -> np.ndarray:
        """(V, 3) [m] vertices of one key in its frame, with its group's jitter."""
        count = len(self.meshes.vertices)
        if key.mesh >= count:
            raise UserError(
                f"task {task.name!r}: a morph of {self.name!r} asks for mesh {key.mesh} of "
                f"{self.spec.meshes}, which holds {count}"
            )
        T = euler_xyz_deg_to_matrix(key.position_m, key.rotation_deg)
        v = key.scale * self.meshes.vertices[key.mesh] @ T[:3, :3].T + T[:3, 3]
        if key.group:
            shift, turn = groups.get(key.group, (np.zeros(3), np.zeros(3)))
            R, middle = euler_xyz_deg_to_matrix((0, 0, 0), turn)[:3, :3], v.mean(0)
            v = (v - middle) @ R.T + middle + shift
        return v

    def vertices(self, t: int, T_world_object: dict[str, np.ndarray]) -> np.ndarray:
        """(V, 3) [m, world] in frame `t`, given all objects' poses (4, 4) in that frame."""
        now = self._clock[t]
        # What moves the object as a whole moves its parts: nothing but a planted fault does.
        moved = T_world_object[self.spec.object] @ np.linalg.inv(self.rest)

        def world(run: _Run) -> np.ndarray:
            frame = {"world": np.eye(4), "rest": self.rest}.get(run.frame)
            T = moved @ (T_world_object[run.frame] if frame is None else frame)
            return run(now) @ T[:3, :3].T + T[:3, 3]

        r = max((i for i, run in enumerate(self._runs) if run.begins <= now), default=0)
        v = world(self._runs[r])
        if r + 1 < len(self._runs) and now > self._runs[r].ends:
            # Between keys of two frames, each of which may move, the two shapes are blended.
            s = (now - self._runs[r].ends) / (self._runs[r + 1].begins - self._runs[r].ends)
            s = s * s * (3 - 2 * s)
            v = (1 - s) * v + s * world(self._runs[r + 1])
        foot = np.array([*v[:, :2].mean(0), v[:, 2].min()])
        return self._scale[t] * (v - foot) + foot


class _Run:
    """Consecutive keys of one frame, their vertices on monotone cubics."""

    def __init__(self, frame: str, at_s: np.ndarray, vertices: np.ndarray):
        self.frame, self.begins, self.ends = frame, at_s[0], at_s[-1]
        self._single = vertices[0] if len(at_s) == 1 else None
        if self._single is None:
            self._curve = PchipInterpolator(at_s, vertices)

    def __call__(self, t: float) -> np.ndarray:
        """(V, 3) in the run's frame; before and after the run, its first and last key."""
        if self._single is not None:
            return self._single
        return self._curve(np.clip(t, self.begins, self.ends))
