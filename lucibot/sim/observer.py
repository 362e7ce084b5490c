"""Label and depth images of every environment at once, from the simulator's own tensors."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from lucibot_kernels import Observation, Observer, Wanted
from torch import Tensor

from lucibot.core.camera import Camera
from lucibot.objective.losses import MAX_PARTS, Parts
from lucibot.sim.moment import Moment
from lucibot.sim.parts import particle_parts
from lucibot.sim.scene import SimScene
from lucibot.task import Task
from lucibot.vision.around import axis_px, encloses

SPLAT_RADIUS = 0.56
"""Radius of a drawn particle in particle sizes: the outermost particles' centres lie half a size
inside the surface, and a little more than half closes the holes between spheres. Measured on the
block of dough at rest, see `tests/test_sim.py`."""


class SceneObserver:
    """Looks at all environments over the static background: at everything, or at targets only."""

    def __init__(
        self, scene: SimScene, camera: Camera, around_pairs: tuple[tuple[str, str], ...] = ()
    ):
        self._scene, task = scene, scene.task
        self._camera = camera
        self._around = [(t, axis_px(task, task.solid(thing), camera)) for t, thing in around_pairs]
        background = draw_background(task, camera, str(scene.device))
        labels = {o.name: task.label(o.name) for o in task.objects}
        self._all = _Drawing(scene, camera, background, labels)
        # Rigid targets are parts, numbered first; what falls into parts is numbered anew each time.
        rigid = [o.name for o in task.targets if o.is_rigid]
        soft = [o.name for o in task.targets if not o.is_rigid]
        self._soft_targets, self._rigid_parts = soft, len(rigid)
        self._targets = _Drawing(
            scene,
            camera,
            background,
            {n: i + 1 for i, n in enumerate(rigid)} | dict.fromkeys(soft, 0),
        )

    def overlap(self, wanted: Wanted, moments: Moment) -> Tensor:
        """IoU (K, B, L) of visible objects, by label, with masks (K, L, H, W) at K moments."""
        found = self._all.overlap(wanted, moments)
        return found.view(len(wanted.mask), -1, len(wanted.labels))

    def observe(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """Labels (B, H, W) int32, object i of the task as i + 1, and depth (B, H, W) float32 [m];
        the next call draws over them."""
        return self._all.draw(moment)

    def observe_parts(self, moment: Moment) -> Parts:
        """The targets part by part: a rigid target is one, particles fall into groups.

        Tool and hand are not drawn, as in the video's goal frame when they are gone. Parts beyond
        `MAX_PARTS` of a target and crumbs are drawn, but have no number.
        """
        scene, labels = self._scene, []
        count = torch.full(
            (scene.n_envs,), self._rigid_parts, dtype=torch.int32, device=scene.device
        )
        for name in self._soft_targets:
            part, found = particle_parts(moment.particles[name], scene.link_m(name))
            numbered = (part >= 0) & (part < MAX_PARTS)
            labels.append(torch.where(numbered, part + count[:, None] + 1, 0))
            count = count + found
        number, depth = self._targets.draw(
            moment, particle_label=torch.cat(labels, dim=1) if labels else None
        )
        return Parts(number=number, depth=depth, count=count, around=self._goes_around(moment))

    def _goes_around(self, moment: Moment) -> Tensor:
        """(B, pairs) bool, see `Parts.around`."""
        scene = self._scene
        out = torch.zeros(scene.n_envs, len(self._around), dtype=torch.bool, device=scene.device)
        masks = {name: self._alone(name, moment) for name in {t for t, _ in self._around}}
        for r, (target, axis) in enumerate(self._around):
            for b, mask in enumerate(masks[target]):
                out[b, r] = encloses(mask, axis)
        return out

    def _alone(self, name: str, moment: Moment) -> np.ndarray:
        """(B, H, W) bool: one target with nothing in front of it, gaps between particles that hang
        together closed."""
        depth = self._targets.depth_alone(name, moment).cpu().numpy()
        masks = np.isfinite(depth)
        if self._scene.task.object(name).is_rigid:
            return masks
        for b in np.flatnonzero(masks.any((1, 2))):
            reach_px = self._camera.fx * self._scene.link_m(name) / np.median(depth[b][masks[b]])
            ball = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(reach_px / 2) + 1,) * 2)
            masks[b] = cv2.morphologyEx(masks[b].astype(np.uint8), cv2.MORPH_CLOSE, ball) > 0
        return masks


class _Drawing:
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
            **_grid(camera),
            **_mesh_arrays(
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
        self._picture: Observation | None = None

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

    def draw(self, moment: Moment, particle_label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Label and depth; the next call draws over them."""
        self._picture = self._kernels.observe(
            *self._poses(moment),
            particle_label=particle_label,
            out=self._picture,
            cull_backfaces=self._closed,
        )
        return self._picture.label, self._picture.depth

    def depth_alone(self, name: str, moment: Moment) -> Tensor:
        """(B, H, W) [m]: one object, nothing else and no background."""
        body = np.array([n == name for n in self._bodies], bool)
        particle = np.repeat(np.array([n == name for n in self._clouds], bool), self._counts)
        return self._kernels.observe(
            *self._poses(moment), background=False,
            draw=torch.from_numpy(body).to(self._scene.device),
            draw_particle=torch.from_numpy(particle).to(self._scene.device),
        ).depth  # fmt: skip


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
