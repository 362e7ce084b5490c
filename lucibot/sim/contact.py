"""Which objects touch, for all environments at once.

Two rigid bodies touch when Genesis has a contact point between them or their surfaces come closer
than `RIGID_GAP_M`; where particles take part, when the gap is below `PARTICLE_GAPS` particle sizes.
A gap, not a force: the video shows that things are together, not how hard they press, and contact
forces flicker from step to step.
"""

from __future__ import annotations

import torch
import trimesh
from lucibot_kernels import min_distance
from torch import Tensor

from lucibot.sim.scene import SimScene

RIGID_GAP_M = 0.004
PARTICLE_GAPS = 1.5
SURFACE_POINTS = 2000


class Contacts:
    """Answers for fixed pairs of object names."""

    def __init__(self, scene: SimScene, pairs: tuple[tuple[str, str], ...]):
        self._scene, self._pairs = scene, pairs
        self._surface, self._corners = {}, {}
        for obj in scene.rigid_objects:
            if any(obj.name in pair for pair in pairs):
                points, _ = trimesh.sample.sample_surface(
                    scene.task.mesh(obj), SURFACE_POINTS, seed=0
                )
                self._surface[obj.name] = torch.as_tensor(
                    points, dtype=torch.float32, device=scene.device
                )
                corners = trimesh.bounds.corners(scene.task.mesh(obj).bounds)
                self._corners[obj.name] = torch.as_tensor(
                    corners, dtype=torch.float32, device=scene.device
                )

    def touching(self) -> Tensor:
        """(B, pairs) bool."""
        if not self._pairs:
            return torch.zeros(self._scene.n_envs, 0, dtype=torch.bool, device=self._scene.device)
        clouds: dict[str, Tensor] = {}
        return torch.stack([self._touch(a, b, clouds) for a, b in self._pairs], dim=1)

    def _touch(self, a: str, b: str, clouds: dict[str, Tensor]) -> Tensor:
        sizes = [s for n in (a, b) if (s := self._scene.particle_sizes_m.get(n)) is not None]
        limit = PARTICLE_GAPS * max(sizes) if sizes else RIGID_GAP_M
        (low_a, high_a), (low_b, high_b) = self._box(a), self._box(b)
        # What both boxes reach: a point outside is too far from the other object to count.
        low, high = torch.maximum(low_a, low_b) - limit, torch.minimum(high_a, high_b) + limit
        if (low > high).any(1).all():
            return torch.zeros(self._scene.n_envs, dtype=torch.bool, device=self._scene.device)
        inside = [self._within(self._cloud(n, clouds), low, high) for n in (a, b)]
        near = min_distance(*inside) < limit
        if not sizes and self._scene.collides:
            near = near | self._scene.touching(a, b)
        return near

    @staticmethod
    def _within(cloud: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The cloud (B, N, 3) with NaN for what lies outside of boxes (B, 3)."""
        outside = (cloud < low[:, None]) | (cloud > high[:, None])
        return cloud.masked_fill(outside.any(-1, keepdim=True), torch.nan)

    def _box(self, name: str) -> tuple[Tensor, Tensor]:
        """(B, 3) lower and upper corners [m, world]."""
        if name in self._corners:
            points = self._placed(name, self._corners[name])
        else:
            points = self._scene.particles(name).transpose(0, 1)
        return points.amin(1), points.amax(1)

    def _cloud(self, name: str, known: dict[str, Tensor]) -> Tensor:
        """(B, N, 3) [m, world]: particles, or points on the body's surface."""
        if name not in known:
            if name in self._surface:
                known[name] = self._placed(name, self._surface[name])
            else:
                known[name] = self._scene.particles(name).transpose(0, 1)
        return known[name]

    def _placed(self, name: str, points: Tensor) -> Tensor:
        """Points (N, 3) of a body's frame in the world, (B, N, 3)."""
        q = self._scene.quaternion(name)
        w, v = q[:, None, :1], q[:, None, 1:].expand(-1, len(points), -1)
        p = points.expand(len(q), -1, -1)
        t = 2 * torch.linalg.cross(v, p)
        rotated = p + w * t + torch.linalg.cross(v, t)
        return rotated + self._scene.position(name)[:, None]
