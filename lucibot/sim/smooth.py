"""A smooth stand-in for the loss of a rollout (paper, section 3.4), with gradients with respect to what
particles and a rigid tool do.

Of the loss's terms those that pictures and clouds give, with silhouettes that fade: at the goal the target's
silhouette, and how far the cloud that the video shows is from the target's particles; at every keyframe the
tool's silhouette. How many parts there are and what touches what have no slope, and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lucibot_kernels import Observer, gradients
from torch import Tensor

from lucibot.objective.supervision import Supervision
from lucibot.objective.weights import LossWeights
from lucibot.sim.drawing import SPLAT_RADIUS, draw_background, grid_of, mesh_arrays
from lucibot.sim.moment import Moment
from lucibot.sim.scene import SimScene

BLUR_PX = 2.0
"""Over how many pixels of the observation grid a silhouette fades."""


@dataclass(frozen=True, kw_only=True)
class Slope:
    """A value, and its gradients."""

    value: float
    particles: dict[int, np.ndarray]
    """By keyframe, (N, 3) with respect to all of the scene's particles [1 / m]."""
    tool: dict[int, np.ndarray]
    """By keyframe, (6,) with respect to the tool's shift [1 / m] and turn [1 / rad], world."""


class SmoothLoss:
    """Of a scene in which one rigid tool meets particles (`lucibot.sim.gradient`), on a CPU."""

    def __init__(self, scene: SimScene, supervision: Supervision, weights: LossWeights):
        task, camera = scene.task, supervision.camera
        label, depth = draw_background(task, camera, "cpu")
        background = {"background_label": label, "background_depth_m": depth}
        tool = task.actuators[0]
        self._tool = tool.name
        self._tools = Observer(
            **grid_of(camera), **background,
            **mesh_arrays([task.mesh(tool)], torch.ones(1, dtype=torch.int32), "cpu"),
        )  # fmt: skip
        self._targets = [o.name for o in task.targets if not o.is_rigid]
        sizes = {o.name: len(scene.particles(o.name)) for o in scene.particle_objects}
        ends = np.cumsum(list(sizes.values()))
        self._count = int(ends[-1])
        self._rows = np.concatenate([
            np.arange(end - sizes[n], end) for n, end in zip(sizes, ends, strict=True)
            if n in self._targets
        ])  # fmt: skip
        self._targets = [n for n in sizes if n in self._targets]
        radius = np.repeat(
            [scene.particle_sizes_m[n] * SPLAT_RADIUS for n in self._targets],
            [sizes[n] for n in self._targets],
        )
        self._clouds = Observer(
            **grid_of(camera), **background,
            particle_radius_m=torch.as_tensor(radius, dtype=torch.float32),
            particle_label=torch.ones(len(radius), dtype=torch.int32),
        )  # fmt: skip
        cloud = supervision.target_cloud
        self._cloud = torch.as_tensor(cloud[np.isfinite(cloud).all(1)]).double()[None].contiguous()
        valid = torch.as_tensor(supervision.valid)
        masks = torch.as_tensor(supervision.actuator_masks)[:, 0]
        self._mask = _soft(torch.as_tensor(supervision.target_masks[-1]))
        # Where the video shows the tool, it may hide the target.
        self._free = valid[-1] & ~masks[-1]
        seen = (supervision.waypoint_confidence[:, 0] > 0) & supervision.held[:, 0]
        self._seen = {int(k): (_soft(masks[k]), valid[k]) for k in np.flatnonzero(seen)}
        self._of_silhouette = weights.target_iou + weights.part_iou
        self._of_cloud = weights.target_chamfer + weights.part_chamfer
        self._of_tool = weights.actuator_iou / max(len(self._seen), 1)

    def slope(self, moments: Sequence[Moment], environment: int) -> Slope:
        """Of one environment, from its K keyframes."""
        tool, value, particles, last = {}, 0.0, {}, len(moments) - 1
        if self._cloud.shape[1]:
            value, particles[last] = self._of_targets(moments[last], environment)
        for k in self._seen:
            missed, tool[k] = self._of_keyframe(k, moments[k], environment)
            value += missed
        return Slope(value=value, particles=particles, tool=tool)

    def _of_targets(self, moment: Moment, b: int) -> tuple[float, np.ndarray]:
        x = torch.cat([moment.particles[n][:, b] for n in self._targets])
        x = x.double()[None].contiguous().requires_grad_()
        seen = gradients.soft_observe(self._clouds, particles_m=x, blur_px=BLUR_PX)
        iou = gradients.soft_iou(seen.silhouette, self._mask.double(), self._free)
        there, _ = gradients.chamfer(self._cloud, x)
        loss = self._of_silhouette * (1 - iou.sum()) + self._of_cloud * there.sum()
        loss.backward()
        gradient = np.zeros((self._count, 3))
        gradient[self._rows] = x.grad[0].numpy()
        return float(loss.detach()), gradient

    def _of_keyframe(self, k: int, moment: Moment, b: int) -> tuple[float, np.ndarray]:
        mask, valid = self._seen[k]
        place = moment.position[self._tool][b].double()
        turn = moment.quaternion[self._tool][b].double()
        moved = torch.zeros(6, dtype=torch.float64, requires_grad=True)
        position = (place + moved[:3])[None, None]
        quaternion = _turned(turn, moved[3:])[None, None]
        seen = gradients.soft_observe(self._tools, position, quaternion, blur_px=BLUR_PX)
        loss = self._of_tool * (1 - gradients.soft_iou(seen.silhouette, mask.double(), valid).sum())
        loss.backward()
        return float(loss.detach()), moved.grad.numpy()


def _soft(mask: Tensor) -> Tensor:
    return gradients.soften(mask[None], blur_px=BLUR_PX)[0]


def _turned(quaternion: Tensor, by: Tensor) -> Tensor:
    """A quaternion (4,) turned on by a small rotation vector (3,) in the world."""
    w, v = quaternion[0], quaternion[1:]
    turned = torch.cat([(w - by @ v / 2)[None], v + (w * by + torch.linalg.cross(by, v)) / 2])
    return turned / turned.norm()
