"""CPIC as our own kernels do it (`lucibot_kernels.mpm`), where Genesis computes the particles: for
moving bodies only, and with a memory that lasts in a wall.

CPIC keeps particles on two sides of a thin body apart: for each particle it asks each coupled body
on which side each of 27 grid cells lies. For what stands still that is mostly wasted: a plane has
one side, and walls are thick enough for the grid's own coupling. In a hollow it even does harm:
where one wall ends to be the nearest and the opposite one begins, it parts particles that have
nothing between them.
"""

from __future__ import annotations

from lucibot_kernels.runtime import quick_imports

from lucibot.sim.adapter import Adapter


def separate_by_moving_bodies_only(adapter: Adapter) -> None:
    """Hide coupled bodies that are fixed from Genesis's CPIC, in each substep; the grid's coupling
    sees them as before."""
    still = [g.idx for g in adapter.coupled() if g.link.is_fixed]
    if not still or not adapter.has_solids():
        return
    coupled, physics = adapter.coupled_flags(), adapter.physics

    def hidden(f: int) -> None:
        coupled[still] = 0
        physics(f)
        coupled[still] = 1

    adapter.physics = hidden


def keep_sides_within_walls(adapter: Adapter) -> None:
    """Let a particle that is in a body's wall keep the side that it came from. Genesis looks there for
    the nearest way out, which in the middle of a thin wall points anywhere: what was pressed into
    the wall came out on its other side, with the energy of its compression."""
    if not adapter.has_solids():
        return
    with quick_imports():
        from lucibot.sim._cpic_kernels import remember_sides

    adapter.remember_sides_by(remember_sides)
