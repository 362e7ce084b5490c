"""Posed meshes and particles of all environments, drawn at once over the static background."""

from __future__ import annotations

import numpy as np
import torch
from lucibot_kernels import Observation, Observer, Wanted
from torch import Tensor

from lucibot.core.camera import Camera
from lucibot.sim.moment import Moment
from lucibot.sim.scene import SimScene
from lucibot.task import Task

SPLAT_RADIUS = 0.56
"""Radius of a drawn particle in particle sizes: the outermost particles' centres lie half a size
inside the surface, and a little more than half closes the holes between spheres. Measured on the
block of dough at rest, see `tests/test_sim.py`."""


class Drawing:
    """Posed meshes and particle splats of some of a scene's objects.

    Args:
        background: labels (H, W) and depth (H, W) [m].
        labels: of the objects to draw, by name.
    """

    def __init__(
        self, scene: SimScene, camera: Camera, background: tuple[Tensor, Tensor],
        labels: dict[str, int],
    ):  # fmt: skip
        self._scene, device = scene, str(scene.device)
        bodies = [o for o in scene.rigid_objects if o.name in labels]
        self._bodies = [o.name for o in bodies]
        self._clouds = [o.name for o in scene.particle_objects if o.name in labels]
        self._counts = [len(scene.particles(n)) for n in self._clouds]
        sizes = [scene.particle_sizes_m[n] for n in self._clouds]
        self._kernels = Observer(
            **grid_of(camera),
            **mesh_arrays(
                [scene.task.mesh(o) for o in bodies], _i32([labels[n] for n in self._bodies], device),
                device,
            ),
            particle_radius_m=torch.from_numpy(np.repeat(np.float32(sizes), self._counts)).to(device)
            * SPLAT_RADIUS,
            particle_label=_i32(np.repeat([labels[n] for n in self._clouds], self._counts), device),
            background_label=background[0], background_depth_m=background[1], device=device,
        )  # fmt: skip
        # Of closed surfaces only what faces the camera is seen.
        meshes = [scene.task.mesh(o) for o in bodies]
        self._closed = all(m.is_watertight and m.volume > 0 for m in meshes)
        # New memory for each picture would cost more than drawing it.
        self._pictures: dict[str, Observation] = {}

    def _poses(self, moment: Moment) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Positions (P, R, 3) and quaternions (P, R, 4) of the bodies and (P, N, 3) particles."""
        bodies, clouds = [None, None], [None]
        if self._bodies:
            bodies = [
                torch.stack([values[n] for n in self._bodies], dim=1)
                for values in (moment.position, moment.quaternion)
            ]
        if self._clouds:
            clouds = [torch.cat([moment.particles[n] for n in self._clouds]).transpose(0, 1)]
        return *bodies, *clouds

    def overlap(self, wanted: Wanted, moments: Moment) -> Tensor:
        """IoU (P, L)."""
        return self._kernels.overlap(wanted, *self._poses(moments), cull_backfaces=self._closed)

    def draw(
        self, moment: Moment, particle_label: Tensor | None = None, into: str = ""
    ) -> tuple[Tensor, Tensor]:
        """Label and depth; the next call with the same `into` draws over them."""
        picture = self._kernels.observe(
            *self._poses(moment),
            particle_label=particle_label,
            out=self._pictures.get(into),
            cull_backfaces=self._closed,
        )
        self._pictures[into] = picture
        return picture.label, picture.depth


def draw_background(task: Task, camera: Camera, device: str) -> tuple[Tensor, Tensor]:
    """Labels (H, W) int32, all 0, and depth (H, W) float32 [m] of the static background."""
    meshes = []
    for item in task.spec.background:
        mesh = task.mesh(item).copy()
        mesh.apply_transform(item.T_world_object)
        meshes.append(mesh)
    zeros = _i32([0] * len(meshes), device)
    observer = Observer(**grid_of(camera), **mesh_arrays(meshes, zeros, device), device=device)
    at_origin = torch.zeros(1, len(meshes), 3, device=device)
    upright = torch.tensor([1.0, 0, 0, 0], device=device).repeat(1, len(meshes), 1)
    seen = observer.observe(at_origin, upright)
    return seen.label[0].contiguous(), seen.depth[0].contiguous()


def grid_of(camera: Camera) -> dict:
    """A camera as an `Observer` takes it."""
    return {
        "width": camera.width, "height": camera.height, "fx": camera.fx, "fy": camera.fy,
        "cx": camera.cx, "cy": camera.cy, "T_cam_world": camera.T_cam_world,
    }  # fmt: skip


def mesh_arrays(meshes: list, labels: Tensor, device: str) -> dict:
    """The meshes as one soup of bodies, in the observer's layout; nothing if there are none."""
    if not meshes:
        return {}
    offsets = np.cumsum([0] + [len(m.vertices) for m in meshes])
    vertices = np.concatenate([m.vertices for m in meshes]).astype(np.float32)
    faces = np.concatenate([m.faces + o for m, o in zip(meshes, offsets, strict=False)])
    owner = np.repeat(np.arange(len(meshes)), np.diff(offsets))
    return {
        "vertices_m": torch.from_numpy(vertices).to(device),
        "faces": _i32(faces, device), "vertex_body": _i32(owner, device), "body_label": labels,
    }  # fmt: skip


def _i32(values, device: str) -> Tensor:
    return torch.as_tensor(np.asarray(values, np.int32), device=device)
