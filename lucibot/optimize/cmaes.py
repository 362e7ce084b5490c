"""Ask and tell: evosax's CMA-ES, the paper's optimizer (section 4, "Implementation").

JAX runs on the CPU on purpose: a population is some tens of kilobytes, and JAX would otherwise
reserve most of the GPU that the simulator needs.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Optimizer(Protocol):
    """Minimises over R^D, starting at 0 with unit step size."""

    def ask(self) -> np.ndarray:
        """Samples (P, D) float32."""
        ...

    def tell(self, samples: np.ndarray, losses: np.ndarray) -> None: ...

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs, as arrays."""
        ...

    def restore(self, state: dict[str, np.ndarray]) -> None: ...


def strict_ranks(losses: np.ndarray) -> np.ndarray:
    """Losses (P,) to distinct ranks 0..P-1; ties go to the earlier sample, NaN goes last.

    Tied fitness breaks evosax's recombination weights, and clipped IoUs and penalties tie easily.
    """
    ranks = np.empty(len(losses), np.float32)
    ranks[np.argsort(np.nan_to_num(losses, nan=np.inf), kind="stable")] = np.arange(len(losses))
    return ranks


class EvosaxCMAES:
    """The `Optimizer` behind `lucibot.optimize.config.CMAES`."""

    def __init__(self, dimension: int, population: int, seed: int):
        import os

        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax
        import jax.numpy as jnp
        from evosax.algorithms import CMA_ES

        self._jax, self._cpu = jax, jax.devices("cpu")[0]
        with jax.default_device(self._cpu):
            self._es = CMA_ES(population_size=population, solution=jnp.zeros(dimension))
            self._params = self._es.default_params.replace(std_init=1.0)
            self._key, init = jax.random.split(jax.random.key(seed))
            self._state = self._es.init(init, jnp.zeros(dimension), self._params)

    def ask(self) -> np.ndarray:
        with self._jax.default_device(self._cpu):
            self._key, key = self._jax.random.split(self._key)
            samples, self._state = self._es.ask(key, self._state, self._params)
            return np.asarray(samples)

    def tell(self, samples: np.ndarray, losses: np.ndarray) -> None:
        jax = self._jax
        with jax.default_device(self._cpu):
            self._key, key = jax.random.split(self._key)
            fitness = jax.numpy.asarray(strict_ranks(losses))
            population = jax.numpy.asarray(samples)
            self._state, _ = self._es.tell(key, population, fitness, self._state, self._params)

    def state(self) -> dict[str, np.ndarray]:
        leaves = self._jax.tree.leaves(self._state)
        return {
            "key": np.asarray(self._jax.random.key_data(self._key)),
            **{f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)},
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        jax = self._jax
        with jax.default_device(self._cpu):
            self._key = jax.random.wrap_key_data(jax.numpy.asarray(state["key"]))
            treedef = jax.tree.structure(self._state)
            leaves = [jax.numpy.asarray(state[f"leaf_{i}"]) for i in range(treedef.num_leaves)]
            self._state = jax.tree.unflatten(treedef, leaves)
