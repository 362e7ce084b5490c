"""Which objects touch, for all environments at once.

Two rigid bodies touch when Genesis has a contact point between them or their surfaces come closer
than `RIGID_GAP_M`; where particles take part, when the gap is below `PARTICLE_GAPS` particle sizes.
A gap, not a force: the video shows that things are together, not how hard they press, and contact
forces flicker from step to step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import trimesh
from lucibot_kernels import Surface, min_distance
from torch import Tensor

from lucibot.sim.moment import Moment
from lucibot.sim.scene import SimScene

RIGID_GAP_M = 0.004
PARTICLE_GAPS = 1.5
SURFACE_POINTS = 2000


class Contacts:
    """Answers for fixed pairs of object names."""

    def __init__(self, scene: SimScene, pairs: tuple[tuple[str, str], ...]):
        self._scene = scene
        self._pairs = [self._pair(a, b) for a, b in pairs]

    def touching(self, moment: Moment) -> Tensor:
        """(P, pairs) bool."""
        if not self._pairs:
            return torch.zeros(len(moment.error), 0, dtype=torch.bool, device=moment.error.device)
        return torch.stack([touch(moment) for touch in self._pairs], dim=1)

    def _pair(self, a: str, b: str) -> Callable[[Moment], Tensor]:
        """What tells of one pair whether it touches, (P,) bool."""
        sizes = [s for n in (a, b) if (s := self._scene.particle_sizes_m.get(n)) is not None]
        if len(sizes) == 2:
            limit_m = PARTICLE_GAPS * max(sizes)
            return lambda m: (
                min_distance(
                    m.particles[a].transpose(0, 1), m.particles[b].transpose(0, 1), within_m=limit_m
                )
                < limit_m
            )
        if sizes:
            soft, rigid = (a, b) if a in self._scene.particle_sizes_m else (b, a)
            surface = Surface(self._surface_points(rigid), PARTICLE_GAPS * sizes[0])
            return lambda m: surface.near(
                m.position[rigid], m.quaternion[rigid], m.particles[soft].transpose(0, 1)
            )
        surface, points = Surface(self._surface_points(b), RIGID_GAP_M), self._surface_points(a)

        def rigid_touch(m: Moment) -> Tensor:
            pose = m.position[a], m.quaternion[a]
            near = surface.near(m.position[b], m.quaternion[b], points, pose)
            return near | self._scene.touching(a, b, m) if self._scene.collides else near

        return rigid_touch

    def _surface_points(self, name: str) -> Tensor:
        """(SURFACE_POINTS, 3) [m] of a body's frame."""
        task = self._scene.task
        points, _ = trimesh.sample.sample_surface(
            task.mesh(task.object(name)), SURFACE_POINTS, seed=0
        )
        return torch.as_tensor(points, dtype=torch.float32, device=self._scene.device)
