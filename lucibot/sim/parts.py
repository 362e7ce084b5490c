"""The parts into which a target has fallen: what the video's goal frame is compared with.

A person who is shown the goal frame sees pieces; here they are groups of particles that hang
together, and nothing but the targets is drawn.
"""

from __future__ import annotations

import torch
from lucibot_kernels import linked_groups
from torch import Tensor

from lucibot.core.camera import Camera
from lucibot.objective.objective import MAX_PARTS, Parts
from lucibot.sim.drawing import Drawing
from lucibot.sim.moment import Moment
from lucibot.sim.scene import SimScene

LEAST_SHARE = 0.05
"""A group with a smaller share of the particles is a crumb, not a part."""


def particle_parts(points_m: Tensor, link_m: float) -> tuple[Tensor, Tensor]:
    """Parts of one object in every environment; a diverged one has none.

    Args:
        points_m: (N, B, 3) float32 [m].
        link_m: particles nearer than this hang together.

    Returns:
        part (B, N) int32, numbered from 0 by decreasing size, -1 for crumbs; count (B,) int32.
    """
    return linked_groups(points_m.transpose(0, 1), link_m, LEAST_SHARE)


class DrawnParts:
    """The targets drawn part by part: a rigid target is one, particles fall into groups.

    Tool and hand are not drawn, as in the video's goal frame when they are gone. Parts beyond
    `MAX_PARTS` of a target and crumbs are drawn, but have no number.
    """

    def __init__(self, scene: SimScene, camera: Camera, background: tuple[Tensor, Tensor]):
        # Rigid targets are numbered first; what falls into parts is numbered anew each time.
        rigid = [o.name for o in scene.task.targets if o.is_rigid]
        self._scene, self._rigid = scene, len(rigid)
        self._soft = [o.name for o in scene.task.targets if not o.is_rigid]
        labels = {n: i + 1 for i, n in enumerate(rigid)} | dict.fromkeys(self._soft, 0)
        self._drawing = Drawing(scene, camera, background, labels)

    def draw(self, moment: Moment, into: str = "") -> Parts:
        """The parts; see `Drawing.draw`."""
        scene, labels = self._scene, []
        count = torch.full(moment.error.shape, self._rigid, dtype=torch.int32, device=scene.device)
        for name in self._soft:
            part, found = particle_parts(moment.particles[name], scene.link_m(name))
            numbered = (part >= 0) & (part < MAX_PARTS)
            labels.append(torch.where(numbered, part + count[:, None] + 1, 0))
            count = count + found
        particle_label = torch.cat(labels, dim=1) if labels else None
        number, depth = self._drawing.draw(moment, particle_label=particle_label, into=into)
        return Parts(number=number, depth=depth, count=count)
