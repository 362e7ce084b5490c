"""Label and depth images of every environment at once, from the simulator's own tensors."""

from __future__ import annotations

import numpy as np
import torch
from lucibot_kernels import Observer
from torch import Tensor

from lucibot.core.camera import Camera
from lucibot.objective.losses import MAX_PARTS, Parts
from lucibot.sim.parts import particle_parts
from lucibot.sim.scene import SimScene
from lucibot.task import Task

SPLAT_RADIUS = 0.56
"""Radius of a drawn particle in particle sizes: the outermost particles' centres lie half a size
inside the surface, and a little more than half closes the holes between spheres. Measured on the
block of dough at rest, see `tests/test_sim.py`."""


class SceneObserver:
    """Draws posed meshes and particle splats of all environments over the static background."""

    def __init__(self, scene: SimScene, camera: Camera):
        self._scene, task = scene, scene.task
        device = str(scene.device)
        label, depth = draw_background(task, camera, device)
        meshes = [task.mesh(o) for o in scene.rigid_objects]
        self._body_labels = _i32([task.label(o.name) for o in scene.rigid_objects], device)
        sizes, labels = [], []
        for o in scene.particle_objects:
            n = len(scene.particles(o.name))
            sizes += [scene.particle_sizes_m[o.name]] * n
            labels += [task.label(o.name)] * n
        self._particle_labels = _i32(labels, device)
        self._observer = Observer(
            **_grid(camera), **_mesh_arrays(meshes, self._body_labels, device),
            particle_radius_m=torch.tensor(sizes, device=device) * SPLAT_RADIUS,
            particle_label=self._particle_labels, background_label=label,
            background_depth_m=depth, device=device,
        )  # fmt: skip
        targets = _i32([task.label(t.name) for t in task.targets], device)
        self._draw_targets = torch.isin(self._body_labels, targets)
        self._draw_target_particles = torch.isin(self._particle_labels, targets)

    def observe(self, *, targets_only: bool = False) -> tuple[Tensor, Tensor]:
        """Labels (B, H, W) int32, object i of the task as i + 1, and depth (B, H, W) float32 [m].

        `targets_only` leaves everything else in the foreground out, as in the video's goal frame
        when tool and hand are gone.
        """
        position, quaternion = self._scene.bodies()
        clouds = [self._scene.particles(o.name) for o in self._scene.particle_objects]
        particles = None
        if clouds:
            joined = clouds[0] if len(clouds) == 1 else torch.cat(clouds)
            particles = joined.transpose(0, 1)
        selection = {}
        if targets_only:
            selection = {"draw": self._draw_targets, "draw_particle": self._draw_target_particles}
        has_bodies = len(self._body_labels) > 0
        seen = self._observer.observe(
            position if has_bodies else None, quaternion if has_bodies else None, particles,
            **selection,
        )  # fmt: skip
        return seen.label, seen.depth

    def observe_parts(self) -> Parts:
        """The targets part by part: a rigid target is one, particles fall into groups.

        Parts beyond `MAX_PARTS` count but are not drawn.
        """
        scene = self._scene
        label, depth = self.observe(targets_only=True)
        number = torch.zeros_like(label)
        count = torch.zeros(scene.n_envs, dtype=torch.int32, device=label.device)
        for target in scene.task.targets:
            here = label == scene.task.label(target.name)
            if target.is_rigid:
                number = torch.where(here, count[:, None, None] + 1, number)
                count += 1
                continue
            particles = scene.particles(target.name)
            part, found = particle_parts(
                particles.cpu().numpy(), scene.particle_sizes_m[target.name]
            )
            part = torch.from_numpy(part).to(label.device)
            for q in range(min(int(found.max()), MAX_PARTS)):
                # What has no place is not drawn: each environment shows its own part q alone.
                alone = torch.where((part == q).T[..., None], particles, torch.nan)
                mine = here & (self._draw_alone(target.name, alone) <= depth)
                number = torch.where(mine, (count + q + 1)[:, None, None], number)
            count += torch.from_numpy(found).to(label.device)
        return Parts(number=number, depth=depth, count=count)

    def _draw_alone(self, name: str, particles: Tensor) -> Tensor:
        """Depth (B, H, W) of one object's particles (N, B, 3), nothing else drawn."""
        clouds = [
            particles
            if o.name == name
            else torch.full_like(self._scene.particles(o.name), torch.nan)
            for o in self._scene.particle_objects
        ]
        position, quaternion = self._scene.bodies()
        has_bodies = len(self._body_labels) > 0
        seen = self._observer.observe(
            position if has_bodies else None, quaternion if has_bodies else None,
            torch.cat(clouds).transpose(0, 1), background=False,
            draw=torch.zeros(len(self._body_labels), dtype=torch.bool, device=particles.device),
        )  # fmt: skip
        return seen.depth


def draw_background(task: Task, camera: Camera, device: str) -> tuple[Tensor, Tensor]:
    """Labels (H, W) int32, all 0, and depth (H, W) float32 [m] of the static background."""
    meshes = []
    for item in task.spec.background:
        mesh = task.mesh(item).copy()
        mesh.apply_transform(item.T_world_object)
        meshes.append(mesh)
    zeros = _i32([0] * len(meshes), device)
    observer = Observer(**_grid(camera), **_mesh_arrays(meshes, zeros, device), device=device)
    at_origin = torch.zeros(1, len(meshes), 3, device=device)
    upright = torch.tensor([1.0, 0, 0, 0], device=device).repeat(1, len(meshes), 1)
    seen = observer.observe(at_origin, upright)
    return seen.label[0].contiguous(), seen.depth[0].contiguous()


def _grid(camera: Camera) -> dict:
    return {
        "width": camera.width, "height": camera.height, "fx": camera.fx, "fy": camera.fy,
        "cx": camera.cx, "cy": camera.cy, "T_cam_world": camera.T_cam_world,
    }  # fmt: skip


def _mesh_arrays(meshes: list, labels: Tensor, device: str) -> dict:
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
