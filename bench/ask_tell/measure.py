"""One generation of CMA-ES, D 60 and population 128: ours against evosax bare and pycma."""

from __future__ import annotations

import numpy as np

from lucibot.benchmark import Bench
from lucibot.optimize.strategies import EvosaxStrategy

DIMENSION, POPULATION = 60, 128


def measure(bench: Bench) -> None:
    ours = EvosaxStrategy(DIMENSION, POPULATION, seed=0)

    def ours_generation() -> None:
        samples = ours.ask()
        ours.tell(samples, bowl(samples))

    contestants = {"ours": ours_generation, "evosax": evosax_generation()}
    try:
        contestants["pycma"] = pycma_generation()
    except ImportError:
        bench.skip("pycma", "not installed")
    times = bench.race(contestants)
    bench.ratio("ours_over_evosax", times["ours"], times["evosax"], target="at most 1.1")
    if "pycma" in times:
        bench.ratio("pycma_over_ours", times["pycma"], times["ours"])


def bowl(samples: np.ndarray) -> np.ndarray:
    """Losses (P,) whose minimum lies away from the start; as cheap as a loss can be."""
    return ((np.asarray(samples) - 3.0) ** 2 * np.linspace(1, 10, DIMENSION)).sum(1)


def evosax_generation():
    """The library as its own documentation uses it: every step jitted."""
    import jax
    import jax.numpy as jnp
    from evosax.algorithms import CMA_ES

    es = CMA_ES(population_size=POPULATION, solution=jnp.zeros(DIMENSION))
    params = es.default_params
    ask, tell = jax.jit(es.ask), jax.jit(es.tell)
    state = {"es": es.init(jax.random.key(0), jnp.zeros(DIMENSION), params),
             "key": jax.random.key(1)}  # fmt: skip

    def generation() -> None:
        state["key"], a, b = jax.random.split(state["key"], 3)
        samples, s = ask(a, state["es"], params)
        losses = jnp.asarray(bowl(np.asarray(samples)), jnp.float32)
        s, _ = tell(b, samples, losses, s, params)
        state["es"] = jax.block_until_ready(s)

    return generation


def pycma_generation():
    import cma

    es = cma.CMAEvolutionStrategy(
        DIMENSION * [0.0], 1.0, {"popsize": POPULATION, "verbose": -9, "seed": 1}
    )

    def generation() -> None:
        samples = es.ask()
        es.tell(samples, list(bowl(np.array(samples))))

    return generation
