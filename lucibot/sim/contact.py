"""Which objects touch, for all environments at once, by the measure of `lucibot.vision.touching`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lucibot_kernels import Surface, min_distance
from torch import Tensor

from lucibot.sim.moment import Moment
from lucibot.sim.scene import SimScene
from lucibot.vision.touching import surface_points


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
        soft = [n for n in (a, b) if n in self._scene.particle_sizes_m]
        # A deformable's surface lies half a size outside of its particles' middles.
        reach_m = self._scene.task.spec.contact_m + sum(
            0.5 * self._scene.particle_sizes_m[n] for n in soft
        )
        if len(soft) == 2:
            return lambda m: (
                min_distance(
                    m.particles[a].transpose(0, 1), m.particles[b].transpose(0, 1), within_m=reach_m
                )
                < reach_m
            )
        if soft:
            rigid = b if soft == [a] else a
            surface = Surface(self._surface_points(rigid), reach_m)
            return lambda m: surface.near(
                m.position[rigid], m.quaternion[rigid], m.particles[soft[0]].transpose(0, 1)
            )
        surface, points = Surface(self._surface_points(b), reach_m), self._surface_points(a)
        return lambda m: surface.near(
            m.position[b], m.quaternion[b], points, (m.position[a], m.quaternion[a])
        )

    def _surface_points(self, name: str) -> Tensor:
        """(N, 3) float32 [m] of a body's frame."""
        points = surface_points(self._scene.task, self._scene.task.object(name))
        return torch.as_tensor(points, dtype=torch.float32, device=self._scene.device)
