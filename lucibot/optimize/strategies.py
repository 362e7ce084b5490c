"""Ask and tell: evosax's strategies, of which CMA-ES is the paper's optimizer (section 4,
"Implementation"), and the cross-entropy method."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lucibot.optimize.config import CEM


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


class EvosaxStrategy:
    """The `Optimizer` behind `lucibot.optimize.config.Evosax`.

    JAX runs on the CPU on purpose: a population is some tens of kilobytes, and JAX would otherwise
    reserve most of the GPU that the simulator needs.
    """

    def __init__(self, dimension: int, population: int, seed: int, name: str = "CMA_ES"):
        import os

        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import evosax.algorithms
        import jax
        import jax.numpy as jnp

        self._jax, self._cpu = jax, jax.devices("cpu")[0]
        with jax.default_device(self._cpu):
            strategy = getattr(evosax.algorithms, name)
            self._es = strategy(population_size=population, solution=jnp.zeros(dimension))
            self._params = self._es.default_params.replace(std_init=1.0)
            self._key, init = jax.random.split(jax.random.key(seed))
            self._state = self._typed(self._es.init(init, jnp.zeros(dimension), self._params))

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
            state, _ = self._es.tell(key, population, fitness, self._state, self._params)
            self._state = self._typed(state)

    def _typed(self, state):
        """The state with numbers of definite types: otherwise the first `tell` changes the types
        of some, and `ask` and `tell` are compiled twice."""
        return self._jax.tree.map(lambda x: self._jax.numpy.asarray(x, x.dtype), state)

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


class CrossEntropy:
    """The `Optimizer` behind `lucibot.optimize.config.CEM`."""

    def __init__(self, dimension: int, population: int, seed: int, config: CEM):
        self._population, self._seed, self._config = population, seed, config
        self._elites = max(2, round(config.elite_share * population))
        self._generation = np.zeros((), np.int64)
        self._mean, self._std = np.zeros(dimension), np.ones(dimension)
        self._kept = np.zeros((0, dimension), np.float32)

    def ask(self) -> np.ndarray:
        rng = np.random.default_rng([self._seed, int(self._generation)])
        samples = self._mean + self._std * rng.normal(size=(self._population, len(self._mean)))
        # In front: the last sample's place may be taken by the start.
        samples[: len(self._kept)] = self._kept
        return samples.astype(np.float32)

    def tell(self, samples: np.ndarray, losses: np.ndarray) -> None:
        best = samples[np.argsort(strict_ranks(losses))[: self._elites]].astype(float)
        inertia = self._config.inertia if self._generation else 0.0
        self._mean = inertia * self._mean + (1 - inertia) * best.mean(0)
        spread = inertia * self._std + (1 - inertia) * best.std(0)
        self._std = np.maximum(spread, self._config.least_spread)
        self._kept = best[: self._config.kept].astype(np.float32)
        self._generation += 1

    def state(self) -> dict[str, np.ndarray]:
        return {
            "generation": self._generation, "mean": self._mean, "std": self._std, "kept": self._kept
        }  # fmt: skip

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._generation, self._kept = np.asarray(state["generation"]), state["kept"]
        self._mean, self._std = state["mean"], state["std"]
