"""What a batch of environments needs of memory, said before it is allocated.

Genesis fails deep inside its own allocation, or the system kills the process, when a batch does not
fit. The need is estimated from the shapes of Genesis's fields; `bench/scaling` compares it with
what is really taken.
"""

from __future__ import annotations

import numpy as np

from lucibot.core.errors import UserError
from lucibot.sim.build import PAD_CELLS
from lucibot.sim.sharding import Sharding
from lucibot.task import Task

PROCESS_BYTES = 1.0e9
"""Of a process with Genesis, torch and one compiled scene, whatever its batch."""
CELL_BYTES = 56
"""Of an MPM grid cell: mass and two velocities, and as much for gradients."""
MPM_PARTICLE_BYTES = 1024
"""Of an MPM particle: 62 numbers in two frames, and as much for gradients."""
SPH_PARTICLE_BYTES = 256
RIGID_BYTES = 0.5e6
"""Of an environment's bodies, and of whatever does not grow with particles and cells."""
COUPLED_BYTES = 2.5e6
"""More where particles meet bodies, measured."""
OBSERVED_BYTES = 3.7e6
"""Of an environment's label and depth images, at the last keyframe and at the end, with what the losses
make of them."""


def environment_bytes(task: Task) -> float:
    """About what one environment of a task takes."""
    sim, total = task.spec.simulation, RIGID_BYTES + OBSERVED_BYTES
    soft = [o for o in task.objects if not o.is_rigid]
    for o in soft:
        total += task.particle_count(o) * (
            SPH_PARTICLE_BYTES if o.is_liquid else MPM_PARTICLE_BYTES
        )
    if sim.mpm is not None and any(not o.is_liquid for o in soft):
        sides = np.subtract(sim.mpm.upper_m, sim.mpm.lower_m) * sim.mpm.grid_density
        total += float(np.prod(sides + 2 * PAD_CELLS + 1)) * CELL_BYTES + COUPLED_BYTES
    return total


def free_bytes(device: str) -> float:
    """What can still be allocated on this machine, or on its GPU."""
    if device != "cpu":
        import torch

        return float(torch.cuda.mem_get_info()[0])
    import psutil

    return float(psutil.virtual_memory().available)


def ensure_memory(
    task: Task, sharding: Sharding, *, device: str, free: float | None = None
) -> None:
    """
    Args:
        free: bytes; default: what the device has.

    Raises:
        UserError: the workers' environments will not fit; it states the need and what is free.
    """
    each = environment_bytes(task)
    base = PROCESS_BYTES * sharding.workers
    need = base + each * sharding.n_envs * sharding.workers
    free = free_bytes(device) if free is None else free
    if need <= free:
        return
    fit = int((free - base) / sharding.workers / each)
    gib = 2**30
    wanted = f"{sharding.workers} x {sharding.n_envs}" if sharding.workers > 1 else sharding.n_envs
    raise UserError(
        f"{wanted} environments of {task.name} need about {need / gib:.1f} GiB, "
        f"{free / gib:.1f} GiB are free on the {'GPU' if device != 'cpu' else 'machine'}; "
        + (
            f"--optimize.environments {fit} rolls a population out in several turns"
            + (", with other last bits" if task.spec.simulation.rigid_collision else
               ", with the same result") if fit > 0 else "free memory, or use fewer --optimize.workers"
        )
    )  # fmt: skip
