"""`Moment`: all that is looked at of a batch of environments, copied while the simulation goes on.

A look consists of many small operations, and each costs its call. So a rollout only keeps its
moments, and looks at all of them at once when it is over, as at one large batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The state of P environments; of several moments P counts those of the first one first."""

    position: dict[str, Tensor]
    """(P, 3) [m, world] of each rigid body's mesh frame."""
    quaternion: dict[str, Tensor]
    """(P, 4) (w, x, y, z), mesh frame to world."""
    velocity: dict[str, Tensor]
    """(P, 6) linear [m/s] and angular [rad/s], world axes."""
    particles: dict[str, Tensor]
    """(N, P, 3) [m, world] of each particle object."""
    particle_velocity: dict[str, Tensor]
    """(N, P, 3) [m/s, world]."""
    error: Tensor
    """(P,) bool: the rigid solver has failed."""

    @classmethod
    def joined(cls, moments: Sequence[Moment]) -> Moment:
        def join(field: str, dim: int) -> dict:
            each = [getattr(m, field) for m in moments]
            return {name: torch.cat([x[name] for x in each], dim) for name in each[0]}

        return cls(
            **{n: join(n, 0) for n in ("position", "quaternion", "velocity")},
            **{n: join(n, 1) for n in ("particles", "particle_velocity")},
            error=torch.cat([m.error for m in moments]),
        )

    def of(self, which: slice) -> Moment:
        """Of some of its environments."""
        return Moment(
            **{
                n: {name: x[which] for name, x in getattr(self, n).items()}
                for n in ("position", "quaternion", "velocity")
            },
            **{
                n: {name: x[:, which].contiguous() for name, x in getattr(self, n).items()}
                for n in ("particles", "particle_velocity")
            },
            error=self.error[which],
        )
