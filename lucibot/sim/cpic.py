"""CPIC for moving bodies only.

CPIC keeps particles on two sides of a thin body apart: for each particle it asks each coupled body
on which side each of 27 grid cells lies. For what stands still that is mostly wasted: a plane has
one side, and walls are thick enough for the grid's own coupling. In a hollow it even does harm:
where one wall ends to be the nearest and the opposite one begins, it parts particles that have
nothing between them.
"""

from __future__ import annotations

from typing import Any

from lucibot.sim.engine import view


def separate_by_moving_bodies_only(scene: Any) -> None:
    """Hide coupled bodies that are fixed from CPIC, in each substep of a built Genesis scene; the
    grid's coupling sees them as before."""
    rigid, coupler = scene.sim.rigid_solver, scene.sim.coupler
    still = [g.idx for link in rigid.links if link.is_fixed for g in link.geoms if g.needs_coup]
    if not still or not scene.sim.mpm_solver.is_active:
        return
    coupled = view(rigid.dyn_info.geoms.needs_coup)
    preprocess, couple = coupler.preprocess, coupler.couple

    def hide_and_preprocess(f):
        coupled[still] = 0
        preprocess(f)

    def show_and_couple(f):
        coupled[still] = 1
        couple(f)

    coupler.preprocess, coupler.couple = hide_and_preprocess, show_and_couple
