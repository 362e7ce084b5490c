"""Genesis's particle solvers on a CPU, with their substeps computed by our own kernels.

Genesis's CPU code adds atomically and computes one number at a time; `lucibot_kernels.mpm` and
`lucibot_kernels.sph` do the same physics on the same memory several times as fast. On a GPU
Genesis's kernels stay.
"""

from __future__ import annotations

import numpy as np
from lucibot_kernels import mpm, sph
from lucibot_kernels.bodies import Bodies
from lucibot_kernels.mpm_tape import Tape

from lucibot.sim.adapter import Adapter


def take_over(adapter: Adapter, *, cpic: bool) -> QuickMPM | QuickSPH | None:
    """Let our own kernels compute what particles do in a Genesis scene, if they can do all of it:
    on the CPU, with the materials they know, and with either MPM or SPH particles, because what the
    two do to each other would be left out. Otherwise None, and nothing is changed.

    Args:
        cpic: see `QuickMPM`.
    """
    import genesis as gs

    if gs.device.type != "cpu" or not adapter.own_kernels_know():
        return None
    quick = QuickSPH(adapter) if adapter.has_liquids() else QuickMPM(adapter, cpic=cpic)
    adapter.before.append(quick.before_bodies_move)
    adapter.take_over_particles(quick.substep)
    return quick


class QuickMPM:
    """Computes the MPM substeps of a Genesis scene.

    Args:
        cpic: whether moving bodies keep particles on two sides of them apart. Fixed ones never do:
            a plane has one side, walls are thick enough for the grid's own coupling, and in a
            hollow CPIC does harm where one wall ends to be the nearest and the opposite one begins.
    """

    def __init__(self, adapter: Adapter, *, cpic: bool):
        self._particles, self._matter, self._space = adapter.solids()
        self._bodies, coupled = adapter.bodies(), adapter.coupled()
        moving = [g.idx for g in coupled if cpic and not g.link.is_fixed]
        self._coupled = np.array([g.idx for g in coupled], np.int32)
        self._separating = np.array(moving, np.int32)
        N, B, _ = self._particles.pos.shape
        self._normals = np.zeros((len(moving), N, B, 3), np.float32)
        self._scratch = mpm.scratch(N, B, tuple(self._space.cells), len(moving))
        self.tape: Tape | None = None
        """What is recorded on, see `record`."""

    def record(self) -> Tape:
        """From the next reset on write down what gradients are made of.

        Raises:
            ValueError: there is matter that has none.
        """
        self.tape = Tape(
            self._particles, self._matter, self._space, self._bodies, self._coupled,
            self._separating, self._normals,
        )  # fmt: skip
        return self.tape

    @property
    def bodies(self) -> Bodies:
        """The shapes that particles meet, views of the simulator's memory."""
        return self._bodies

    def reset(self) -> None:
        """Call after each reset of the scene."""
        self._normals[:] = 0
        if self.tape is not None:
            self.tape.begin()

    def before_bodies_move(self, _: int) -> None:
        if self.tape is not None:
            self.tape.before_bodies_move()
        if len(self._separating):
            mpm.particle_normals(self._particles.pos, self._bodies, self._separating, self._normals)

    def substep(self, _: int) -> None:
        if self.tape is not None:
            self.tape.before_substep()
        mpm.substep(
            self._particles, self._matter, self._space, self._bodies, self._coupled,
            self._separating, self._normals, self._scratch,
        )  # fmt: skip


class QuickSPH:
    """Computes the WCSPH substeps of a Genesis scene."""

    def __init__(self, adapter: Adapter):
        self._particles, self._matter, self._space = adapter.liquids()
        self._bodies, coupled = adapter.bodies(), adapter.coupled()
        self._coupled = np.array([g.idx for g in coupled], np.int32)
        self._pressed = np.array([not g.link.is_fixed for g in coupled], np.bool_)
        self._scratch = sph.scratch(len(self._particles.pos))

    def reset(self) -> None:
        """Call after each reset of the scene; nothing is remembered here."""

    def before_bodies_move(self, _: int) -> None:
        """Nothing is asked of a liquid then."""

    def substep(self, _: int) -> None:
        sph.substep(
            self._particles, self._matter, self._space, self._bodies, self._coupled,
            self._pressed, self._scratch,
        )  # fmt: skip
