"""How a population is spread over simulation processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lucibot.task import Task

BATCH = 16
"""Environments in a batch, where their number must not depend on the machine."""


def settled_batch(task: Task, population: int, *, device: str = "cpu") -> int | None:
    """How many environments are in a batch where that decides the last bits: two batches of the
    population, or more of at most `BATCH`, whatever the machine. None where any number will do."""
    if device != "cpu" or not task.spec.simulation.rigid_collision:
        return None
    return -(-population // min(population, max(2, -(-population // BATCH))))


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How a population is spread: one process on a GPU, one a core on the CPU.

    The same trajectory has the same bits in batches of any size, except where rigid bodies collide:
    there another size changes the last ones. So there the size follows from the population, not from
    the number of cores, and a search is the same on any number of them.
    """

    workers: int
    n_envs: int
    """Environments that a worker rolls out together."""

    @staticmethod
    def of(
        task: Task, population: int, *, workers: int | None = None, device: str = "cpu",
        environments: int | None = None, one_process: bool = True,
    ) -> Sharding:  # fmt: skip
        """
        Args:
            workers: default: one per core that this process may use.
            one_process: a GPU takes one process, whatever `workers` says; not so on a cluster,
                where each worker has a GPU of its own.
            environments: of each worker; default: `settled_batch`, or else enough for one round of
                the population.
        """
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        count = min(workers or cores or 1, population)
        if device != "cpu" and one_process:
            count = 1
        n_envs = environments or settled_batch(task, population, device=device)
        n_envs = n_envs or -(-population // count)
        return Sharding(workers=min(count, -(-population // n_envs)), n_envs=n_envs)
