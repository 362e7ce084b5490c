"""Label and depth images of every environment at once, from the simulator's own tensors."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from lucibot_kernels import Observer
from torch import Tensor

from lucibot.core.camera import Camera
from lucibot.objective.losses import MAX_PARTS, Parts
from lucibot.perception.around import axis_px, encloses
from lucibot.sim.parts import particle_parts
from lucibot.sim.scene import SimScene
from lucibot.task import Task

SPLAT_RADIUS = 0.56
"""Radius of a drawn particle in particle sizes: the outermost particles' centres lie half a size
inside the surface, and a little more than half closes the holes between spheres. Measured on the
block of dough at rest, see `tests/test_sim.py`."""


class SceneObserver:
    """Draws posed meshes and particle splats of all environments over the static background."""

    def __init__(
        self, scene: SimScene, camera: Camera, around_pairs: tuple[tuple[str, str], ...] = ()
    ):
        self._scene, task = scene, scene.task
        self._camera = camera
        self._around = [(t, axis_px(task, task.solid(thing), camera)) for t, thing in around_pairs]
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
        selection = {}
        if targets_only:
            selection = {"draw": self._draw_targets, "draw_particle": self._draw_target_particles}
        seen = self._draw(**selection)
        return seen.label, seen.depth

    def _draw(self, replaced: dict[str, Tensor] | None = None, **options):
        """What the kernels see; `replaced` gives some objects' particles (N, B, 3) other places."""
        scene, replaced = self._scene, replaced or {}
        position, quaternion = scene.bodies()
        has_bodies = len(self._body_labels) > 0
        clouds = [replaced.get(o.name, scene.particles(o.name)) for o in scene.particle_objects]
        particles = None
        if clouds:
            joined = clouds[0] if len(clouds) == 1 else torch.cat(clouds)
            particles = joined.transpose(0, 1)
        return self._observer.observe(
            position if has_bodies else None, quaternion if has_bodies else None, particles,
            **options,
        )  # fmt: skip

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
            part, found = particle_parts(particles.cpu().numpy(), scene.link_m(target.name))
            part = torch.from_numpy(part).to(label.device)
            for q in range(min(int(found.max()), MAX_PARTS)):
                # What has no place is not drawn: each environment shows its own part q alone.
                alone = torch.where((part == q).T[..., None], particles, torch.nan)
                drawn = self._draw({target.name: alone}, **self._only(target.name))
                mine = here & (drawn.depth <= depth)
                number = torch.where(mine, (count + q + 1)[:, None, None], number)
            count += torch.from_numpy(found).to(label.device)
        return Parts(number=number, depth=depth, count=count, around=self._goes_around())

    def _goes_around(self) -> Tensor:
        """(B, pairs) bool, see `Parts.around`."""
        scene = self._scene
        out = torch.zeros(scene.n_envs, len(self._around), dtype=torch.bool, device=scene.device)
        masks = {name: self._alone(name) for name in {t for t, _ in self._around}}
        for r, (target, axis) in enumerate(self._around):
            for b, mask in enumerate(masks[target]):
                out[b, r] = encloses(mask, axis)
        return out

    def _only(self, name: str) -> dict:
        """Options that draw one object and nothing else."""
        label = self._scene.task.label(name)
        return {
            "draw": self._body_labels == label, "draw_particle": self._particle_labels == label,
            "background": False,
        }  # fmt: skip

    def _alone(self, name: str) -> np.ndarray:
        """(B, H, W) bool: one target with nothing in front of it, gaps between particles that hang
        together closed."""
        depth = self._draw(**self._only(name)).depth.cpu().numpy()
        masks = np.isfinite(depth)
        if self._scene.task.object(name).is_rigid:
            return masks
        for b in np.flatnonzero(masks.any((1, 2))):
            reach_px = self._camera.fx * self._scene.link_m(name) / np.median(depth[b][masks[b]])
            ball = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(reach_px / 2) + 1,) * 2)
            masks[b] = cv2.morphologyEx(masks[b].astype(np.uint8), cv2.MORPH_CLOSE, ball) > 0
        return masks


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
