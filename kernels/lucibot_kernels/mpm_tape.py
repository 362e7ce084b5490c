"""Gradients through many substeps: what bodies did in each, particles every so often, and the rest again.

A rollout of a thousand substeps has too many states to keep. How bodies moved is little, so that is kept
of each substep; of particles a checkpoint every `every` substeps, from which they are carried on once
more when the way back comes to it. Forward it is the same kernels, hence the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lucibot_kernels import mpm, mpm_adjoint, mpm_materials_adjoint
from lucibot_kernels.bodies import Bodies
from lucibot_kernels.bodies_adjoint import Pull, pull

MOVES = ("pos", "quat", "velocity", "spin", "centre")
"""What changes of `Bodies` from substep to substep."""


class Tape:
    """Of one batch of environments; arguments are the memory that `mpm.substep` works on, and `normals`
    that of `mpm.particle_normals`."""

    def __init__(
        self, particles: mpm.Particles, matter, space: mpm.Space, bodies: Bodies,
        coupled: np.ndarray, separating: np.ndarray, normals: np.ndarray, *, every: int = 24,
    ):  # fmt: skip
        if not mpm_materials_adjoint.knows(matter.kind):
            raise ValueError("sand has no gradient")
        self._particles, self._matter, self._space, self._bodies = particles, matter, space, bodies
        self._coupled, self._separating, self._normals = coupled, separating, normals
        self._every = every
        self.begin()

    def begin(self) -> None:
        """Forget all; to be called where a rollout begins."""
        self._checkpoints: list[tuple[list[np.ndarray], np.ndarray]] = []
        self._before: list[list[np.ndarray]] = []
        self._moves: list[list[np.ndarray]] = []

    @property
    def substeps(self) -> int:
        """So many have been recorded."""
        return len(self._moves)

    def moves(self, substep: int, environment: int) -> list[np.ndarray]:
        """Of `MOVES`, what they were in a substep, (G or L, 3 or 4)."""
        return [x[:, environment] for x in self._moves[substep]]

    def before_bodies_move(self) -> None:
        """To be called before `mpm.particle_normals`."""
        if self.substeps % self._every == 0:
            self._checkpoints.append(([x.copy() for x in self._particles], self._normals.copy()))
        self._before.append([self._bodies.pos.copy(), self._bodies.quat.copy()])

    def before_substep(self) -> None:
        """To be called before `mpm.substep`."""
        self._moves.append([getattr(self._bodies, n).copy() for n in MOVES])

    def back(self, gradients: Mapping[int, np.ndarray], environment: int = 0) -> Pull:
        """From gradients with respect to where particles are to those with respect to how bodies move.

        Args:
            gradients: (N, 3) of the positions after so many substeps, by that number.

        Returns:
            Of each recorded substep, (S, G or L, 3).
        """
        dtype, b = self._particles.pos.dtype, environment
        N, (G, L) = len(self._particles.pos), (len(self._bodies.pos), len(self._bodies.velocity))
        space = self._space._replace(gravity=self._space.gravity[b : b + 1].copy())
        bodies = _one(self._bodies, b, dtype)
        sizes = N, 1, tuple(space.cells), len(self._coupled), len(self._separating)
        memory = mpm_adjoint.memory(*sizes, dtype)
        d = mpm_adjoint.nothing(N, 1, dtype)
        found = Pull(*(np.zeros((self.substeps, n, 3), dtype) for n in (G, G, L, L, L)))
        scene = self._matter, space, bodies, self._coupled, self._separating
        until = max(gradients, default=0)
        for c in range((until - 1) // self._every, -1, -1):
            first = c * self._every
            last = min(first + self._every, until)
            states = self._again(c, first, last, b, scene, memory.forward)
            for s in range(last - 1, first - 1, -1):
                if s + 1 in gradients:
                    d.pos[:, 0] += gradients[s + 1]
                to = pull(G, L, 1, dtype)
                self._set(bodies, self._moves[s], MOVES, b)
                particles, normals = states[s - first]
                mpm_adjoint.substep(particles, *scene, normals, memory, d, to)
                for of_all, here in zip(found, to, strict=True):
                    of_all[s] = here[:, 0]
        return found

    def _again(self, c: int, first: int, last: int, b: int, scene, scratch):
        """Particles and normals as each of these substeps found them."""
        particles, normals = self._checkpoints[c]
        particles = mpm.Particles(*(x[:, b : b + 1].copy() for x in particles))
        normals, bodies, states = normals[:, :, b : b + 1].copy(), scene[2], []
        for s in range(first, last):
            if len(self._separating):
                self._set(bodies, self._before[s], ("pos", "quat"), b)
                mpm.particle_normals(particles.pos, bodies, self._separating, normals)
            self._set(bodies, self._moves[s], MOVES, b)
            states.append((mpm.Particles(*(x.copy() for x in particles)), normals.copy()))
            if s + 1 < last:
                mpm.substep(particles, *scene, normals, scratch)
        return states

    def _set(self, bodies: Bodies, values: list[np.ndarray], names, b: int) -> None:
        for name, value in zip(names, values, strict=True):
            getattr(bodies, name)[:, 0] = value[:, b]


def _one(bodies: Bodies, b: int, dtype) -> Bodies:
    """A copy of the bodies in one environment."""
    batched = (*MOVES, "force", "torque", "into", "out")
    own = {n: getattr(bodies, n)[:, b : b + 1].astype(dtype) for n in batched}
    return bodies._replace(**own)
