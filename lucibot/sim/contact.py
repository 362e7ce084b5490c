"""Which objects touch, for all environments at once.

Two rigid bodies touch when Genesis has a contact point between them or their surfaces come closer
than `RIGID_GAP_M`; where particles take part, when the gap is below `PARTICLE_GAPS` particle sizes.
A gap, not a force: the video shows that things are together, not how hard they press, and contact
forces flicker from step to step.
"""

from __future__ import annotations

import torch
import trimesh
from lucibot_kernels import min_distance, posed_points
from torch import Tensor

from lucibot.sim.scene import SimScene

RIGID_GAP_M = 0.004
PARTICLE_GAPS = 1.5
SURFACE_POINTS = 2000


class Contacts:
    """Answers for fixed pairs of object names."""

    def __init__(self, scene: SimScene, pairs: tuple[tuple[str, str], ...]):
        self._scene, self._pairs = scene, pairs
        self._surface: dict[str, Tensor] = {}
        for obj in scene.rigid_objects:
            if any(obj.name in pair for pair in pairs):
                points, _ = trimesh.sample.sample_surface(
                    scene.task.mesh(obj), SURFACE_POINTS, seed=0
                )
                self._surface[obj.name] = torch.as_tensor(
                    points, dtype=torch.float32, device=scene.device
                )

    def touching(self) -> Tensor:
        """(B, pairs) bool."""
        if not self._pairs:
            return torch.zeros(self._scene.n_envs, 0, dtype=torch.bool, device=self._scene.device)
        clouds = {name: self._cloud(name) for name in {n for pair in self._pairs for n in pair}}
        return torch.stack([self._touch(a, b, clouds) for a, b in self._pairs], dim=1)

    def _touch(self, a: str, b: str, clouds: dict[str, Tensor]) -> Tensor:
        sizes = [s for n in (a, b) if (s := self._scene.particle_sizes_m.get(n)) is not None]
        limit = PARTICLE_GAPS * max(sizes) if sizes else RIGID_GAP_M
        near = min_distance(clouds[a], clouds[b], within_m=limit) < limit
        if not sizes and self._scene.collides:
            near = near | self._scene.touching(a, b)
        return near

    def _cloud(self, name: str) -> Tensor:
        """(B, N, 3) [m, world]: particles, or points on the body's surface."""
        if name not in self._surface:
            return self._scene.particles(name).transpose(0, 1)
        pose = self._scene.position(name), self._scene.quaternion(name)
        return posed_points(self._surface[name], *(x.contiguous() for x in pose))
