"""Whether a task's steps are short enough for what it simulates, told before anything is built.

Genesis warns of MPM steps by a rule of thumb that knows nothing of the material (0.02 seconds a metre
of grid cell, whatever the stiffness), from every process that builds a scene; its logger stays quiet.
These say it of what a task has, once a run. The liquid's limit is Genesis's own.
"""

from __future__ import annotations

import numpy as np

from lucibot.task import ObjectSpec, Task

MOST_CELLS = 0.8
"""An explicit step must not let sound cross a whole cell; faster particles and what compresses take the
rest."""
SPH_EXPONENT = 7.0
"""Of the pressure's growth with density in Genesis's liquids."""
SUPPORT_SIZES = 2.0
"""Liquid particles act on each other within so many of their sizes."""


def sound_m_s(obj: ObjectSpec) -> float:
    """Speed of compression waves [m/s] in an object of particles."""
    m = obj.material
    if m.kind == "liquid":
        return float(np.sqrt(SPH_EXPONENT * m.stiffness_pa / m.density_kg_m3))
    E, nu = m.youngs_modulus_pa, m.poisson_ratio
    return float(np.sqrt(E * (1 - nu) / ((1 + nu) * (1 - 2 * nu) * m.density_kg_m3)))


def sound_cells(task: Task) -> dict[str, float]:
    """How many grid cells, or sizes of a liquid's particles, sound crosses in a substep, by object."""
    sim = task.spec.simulation
    substep_s = sim.dt_s / sim.substeps
    return {
        o.name: sound_m_s(o) * substep_s
        / (task.particle_size_m(o) if o.is_liquid else 1 / sim.mpm.grid_density)
        for o in task.objects if not o.is_rigid
    }  # fmt: skip


def warnings(task: Task) -> list[str]:
    """What a user should know of a task's steps: one sentence each."""
    sim, found = task.spec.simulation, []
    for name, cells in sound_cells(task).items():
        if cells > MOST_CELLS:
            needed = int(np.ceil(sim.substeps * cells / MOST_CELLS))
            found.append(
                f"{name}: sound crosses {cells:.2f} cells in a substep, at most {MOST_CELLS:g} are "
                f"safe: simulation.substeps = {needed}, or a softer material"
            )
    for o in (o for o in task.objects if not o.is_rigid):
        own, used = o.material.particle_size_m, task.particle_size_m(o)
        if own > used:
            found.append(
                f"{o.name}: particle_size_m = {own:g} is not used: a solver has one size, and another object "
                f"asks for {used:g}"
            )
    for o in task.objects:
        if o.is_rigid or not o.is_liquid or not o.material.viscosity_m2_s:
            continue
        support = SUPPORT_SIZES * task.particle_size_m(o)
        most_s = 0.01 * support**2 / o.material.viscosity_m2_s
        if sim.dt_s / sim.substeps > most_s:
            found.append(
                f"{o.name}: a substep of {1e3 * sim.dt_s / sim.substeps:.2g} ms is too long for its "
                f"viscosity: at most {1e3 * most_s:.2g} ms"
            )
    return found
