"""Ask and tell: evosax's strategies, of which CMA-ES is the paper's optimizer (section 4,
"Implementation"), pycma's CMA-ES and the cross-entropy method."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from threadpoolctl import ThreadpoolController

from lucibot.core.errors import UserError
from lucibot.optimize.config import CEM


def strict_ranks(losses: np.ndarray) -> np.ndarray:
    """Losses (P,) to distinct ranks 0..P-1; ties go to the earlier sample, NaN goes last.

    Tied fitness breaks evosax's recombination weights, and clipped IoUs and penalties tie easily.
    """
    ranks = np.empty(len(losses), np.float32)
    ranks[np.argsort(np.where(np.isnan(losses), np.inf, losses), kind="stable")] = np.arange(
        len(losses)
    )
    return ranks


def _one_thread(step: Callable) -> Callable:
    """For what decomposes a covariance: LAPACK rounds otherwise on another number of threads, and an
    eigenvector that changes its sign changes all samples after it."""

    @functools.wraps(step)
    def alone(*arguments):
        with _libraries().limit(limits=1, user_api="blas"):
            return step(*arguments)

    return alone


@functools.cache
def _libraries() -> ThreadpoolController:
    """NumPy's LAPACK, and SciPy's, which is JAX's as well. To look for them takes milliseconds."""
    import scipy.linalg  # noqa: F401

    return ThreadpoolController()


@functools.cache
def _compiled(name: str, dimension: int, population: int):
    """JAX, its CPU, and an evosax strategy's begin, ask and tell, compiled once in a process."""
    import os

    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import evosax.algorithms
    import jax
    import jax.numpy as jnp

    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        start = jnp.zeros(dimension)
        es = getattr(evosax.algorithms, name)(population_size=population, solution=start)
        params = es.default_params.replace(std_init=1.0)

        def typed(state):
            """The state with numbers of definite types: otherwise the first `tell` changes the
            types of some, and `ask` and `tell` are compiled twice."""
            return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)

        # All of a step in one call: small operations by themselves cost more than the strategy.
        @jax.jit
        def begin(key):
            key, init = jax.random.split(key)
            return key, typed(es.init(init, start, params))

        @jax.jit
        def ask(key, state):
            key, now = jax.random.split(key)
            samples, state = es.ask(now, state, params)
            return key, samples, typed(state)

        @jax.jit
        def tell(key, state, samples, losses):
            key, now = jax.random.split(key)
            # `strict_ranks`, without leaving JAX.
            order = jnp.argsort(jnp.where(jnp.isnan(losses), jnp.inf, losses), stable=True)
            ranks = jnp.empty(population, jnp.float32)
            ranks = ranks.at[order].set(jnp.arange(population, dtype=jnp.float32))
            return key, typed(es.tell(now, samples, ranks, state, params)[0])

    return jax, cpu, begin, ask, tell


class EvosaxStrategy:
    """The `Optimizer` behind `lucibot.optimize.config.Evosax`.

    JAX runs on the CPU on purpose: a population is some tens of kilobytes, and JAX would otherwise
    reserve most of the GPU that the simulator needs.
    """

    def __init__(self, dimension: int, population: int, seed: int, name: str = "CMA_ES"):
        self._jax, self._cpu, begin, self._ask, self._tell = _compiled(name, dimension, population)
        with self._jax.default_device(self._cpu):
            self._key, self._state = begin(self._jax.random.key(seed))
        self._asked, self._shown = None, None

    @_one_thread
    def ask(self) -> np.ndarray:
        with self._jax.default_device(self._cpu):
            self._key, self._asked, self._state = self._ask(self._key, self._state)
            self._shown = np.asarray(self._asked)  # the same memory
            return self._shown

    @_one_thread
    def tell(self, samples: np.ndarray, losses: np.ndarray) -> None:
        with self._jax.default_device(self._cpu):
            # What was asked for is still there; other samples have to be taken in.
            given = self._asked if samples is self._shown else samples
            self._key, self._state = self._tell(self._key, self._state, given, losses)

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


class PycmaStrategy:
    """The `Optimizer` behind `lucibot.optimize.config.Pycma`.

    Its state is what it was told: told the same again, it is the same again.
    """

    def __init__(self, dimension: int, population: int, seed: int):
        try:
            import cma
        except ImportError:
            raise UserError("this optimizer needs pycma: pip install 'lucibot[pycma]'") from None

        def begin():
            # With a generator of its own, it neither seeds nor uses the one that all share.
            options = {
                "popsize": population, "verbose": -9, "seed": np.nan,
                "randn": np.random.RandomState(seed).randn,
            }  # fmt: skip
            return cma.CMAEvolutionStrategy(np.zeros(dimension), 1.0, options)

        self._begin, self._es = begin, begin()
        self._samples = np.zeros((0, population, dimension), np.float32)
        self._ranks = np.zeros((0, population), np.float32)

    @_one_thread
    def ask(self) -> np.ndarray:
        return np.array(self._es.ask(), np.float32)

    @_one_thread
    def tell(self, samples: np.ndarray, losses: np.ndarray) -> None:
        ranks = strict_ranks(losses)
        self._es.tell(list(samples.astype(float)), ranks.tolist())
        self._samples = np.concatenate([self._samples, samples[None]])
        self._ranks = np.concatenate([self._ranks, ranks[None]])

    def state(self) -> dict[str, np.ndarray]:
        return {"samples": self._samples, "ranks": self._ranks}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._es = self._begin()
        self._samples, self._ranks = self._samples[:0], self._ranks[:0]
        for samples, ranks in zip(state["samples"], state["ranks"], strict=True):
            self.ask()
            self.tell(samples, ranks)


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
