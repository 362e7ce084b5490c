"""How a population is spread over simulation processes."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How a population is spread: one process on a GPU, one a core on the CPU."""

    workers: int
    n_envs: int
    """Environments that a worker rolls out together."""

    @staticmethod
    def of(
        population: int, *, workers: int | None = None, device: str = "cpu",
        environments: int | None = None, one_process: bool = True,
    ) -> Sharding:  # fmt: skip
        """
        Args:
            workers: default: one per core that this process may use.
            one_process: a GPU takes one process, whatever `workers` says; not so on a cluster,
                where each worker has a GPU of its own.
            environments: of each worker; default: enough for one round of the population.
        """
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        count = min(workers or cores or 1, population)
        if device != "cpu" and one_process:
            count = 1
        return Sharding(workers=count, n_envs=environments or -(-population // count))
