"""A loaded task: its objects, its camera and its files."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np

from lucibot.core.arrays import read_npy
from lucibot.core.camera import Camera
from lucibot.core.errors import UserError, unknown_name
from lucibot.task import digests
from lucibot.task.files import read_mesh, within
from lucibot.task.schema import BackgroundSpec, ObjectSpec, TaskSpec


class Task:
    """A loaded and validated task folder."""

    def __init__(self, folder: Path, spec: TaskSpec, instruction: str):
        self.folder, self.spec, self.instruction = folder, spec, instruction
        self._digests: dict[str, str] = {}

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def objects(self) -> list[ObjectSpec]:
        """Foreground objects; object i has label i + 1 in every label image, 0 is background."""
        return self.spec.objects

    def object(self, name: str) -> ObjectSpec:
        for o in self.objects:
            if o.name == name:
                return o
        raise unknown_name("object", name, [o.name for o in self.objects])

    def solid(self, name: str) -> ObjectSpec | BackgroundSpec:
        """A foreground object or something in the background."""
        things = [*self.objects, *self.spec.background]
        for thing in things:
            if thing.name == name:
                return thing
        raise unknown_name("object", name, [t.name for t in things])

    def label(self, name: str) -> int:
        return self.objects.index(self.object(name)) + 1

    @property
    def actuators(self) -> list[ObjectSpec]:
        return [o for o in self.objects if "actuator" in o.roles]

    @property
    def targets(self) -> list[ObjectSpec]:
        return [o for o in self.objects if "target" in o.roles]

    @property
    def is_searched(self) -> bool:
        """Whether a trajectory has to be found: joint values are read from the video and set
        (paper, section 4.1)."""
        return any(o.joint is None for o in self.actuators)

    @cached_property
    def camera(self) -> Camera:
        c = self.spec.camera
        return Camera.look_at(
            position=c.position_m, target=c.look_at_m, up=c.up,
            vertical_fov_deg=c.vertical_fov_deg, width=c.width, height=c.height,
            principal_point=c.principal_point,
        )  # fmt: skip

    def path(self, relative: str) -> Path:
        """A file of the task folder.

        Raises:
            UserError: the file is missing, or lies outside of the folder.
        """
        return within(self.folder, relative)

    def read_mesh(self, relative: str, *, process: bool = False):
        """A mesh file as it is, a `trimesh.Trimesh`; `process` merges vertices that coincide.

        Raises:
            UserError: it is missing, or no mesh.
        """
        return read_mesh(self.folder, relative, process=process)[0]

    def mesh(self, obj: ObjectSpec | BackgroundSpec):
        """The object's `trimesh.Trimesh` [m] in its own frame (a box for `size_m`)."""
        import trimesh

        if isinstance(obj, BackgroundSpec) and obj.size_m is not None:
            return trimesh.creation.box(extents=obj.size_m)
        mesh = self.read_mesh(obj.mesh)
        scale = getattr(obj, "scale", 1.0)
        if scale != 1.0:
            mesh.apply_scale(scale)
        return mesh

    def cloud(self, obj: ObjectSpec) -> np.ndarray | None:
        """Where the object's particles are, (N, 3) float32 [m] in its own frame; None where its mesh is
        to be filled with them.

        Raises:
            UserError: the file is missing, or holds something else.
        """
        name = getattr(obj.material, "cloud", None)
        if name is None:
            return None
        path = self.path(name)
        try:
            points = read_npy(path)
        except OSError as e:
            raise UserError(f"{path} cannot be read: {e.strerror}") from None
        if points.ndim != 2 or points.shape[1] != 3 or not len(points):
            raise UserError(f"{path} holds {points.shape}, not the places (N, 3) of particles")
        if not np.issubdtype(points.dtype, np.floating) or not np.isfinite(points).all():
            raise UserError(f"{path} holds what are no finite numbers")
        return (points * obj.scale).astype(np.float32)

    def particle_size_m(self, obj: ObjectSpec) -> float:
        """[m] of an object's particles: a solver has one size, the smallest that any of its objects gives."""
        return min(
            o.material.particle_size_m
            for o in self.objects
            if not o.is_rigid and o.is_liquid == obj.is_liquid
        )

    def particle_count(self, obj: ObjectSpec) -> int:
        """About how many particles an object has.

        Raises:
            UserError: its cloud is missing, or holds something else.
        """
        if (cloud := self.cloud(obj)) is not None:
            return len(cloud)
        return round(self.mesh(obj).volume / self.particle_size_m(obj) ** 3)

    def digest_of(self, *parts: str) -> str:
        """sha256 over parts of the task, by content: of its values and of all files behind them.

        Args:
            parts: of `lucibot.task.digests.PARTS`: scene (shapes, places, looks, camera, light),
                roles, hands, goal, instruction, storyboard, simulation (solvers, materials), success,
                title.

        Raises:
            UserError: a file cannot be read.
        """
        for part in parts:
            if part not in self._digests:
                self._digests[part] = digests.digest(self, part)
        told = "".join(f"{part} {self._digests[part]}\n" for part in sorted({*parts}))
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def digest(self) -> str:
        """sha256 over the whole task."""
        return self.digest_of(*digests.PARTS)
