"""The optimizer, its coordinates, resuming, and poses that penetrate nothing."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import get_args, get_type_hints

import numpy as np
import pytest

from lucibot.config import RunConfig
from lucibot.core.geometry import pose_np
from lucibot.objective.evaluation import Evaluation
from lucibot.optimize.clearance import Clearance
from lucibot.optimize.config import CEM, Evosax, Pycma, SearchConfig
from lucibot.optimize.parametrization import Parametrization
from lucibot.optimize.search import AllDiverged, _load_checkpoint, evaluate_once, search
from lucibot.optimize.strategies import strict_ranks
from lucibot.stages import optimize as stage
from lucibot.task import load_task

STRATEGIES = [Evosax(strategy=s) for s in get_args(get_type_hints(Evosax)["strategy"])]
STRATEGIES += [Pycma(), CEM()]
K, A = 4, 1
SHIFT = np.random.default_rng(0).normal(size=(1, A, 6)) * 0.01


def parametrization(correlation: float = 0.64) -> Parametrization:
    start = np.zeros((K, A, 6))
    start[..., 3] = 1.0
    return Parametrization(
        start=start, free=np.ones((K, A), bool), sigma_position_m=0.006, sigma_rotation_rad=0.006,
        correlation=correlation,
    )  # fmt: skip


def evaluate(waypoints: np.ndarray) -> Evaluation:
    """A quadratic bowl around a shift that the whole trajectory shares."""
    start = parametrization().start
    loss = 1e4 * ((waypoints[..., :3] - start[..., :3] - SHIFT[..., :3]) ** 2).mean((1, 2, 3))
    return Evaluation(
        loss=loss.astype(np.float32), terms={"distance": loss}, failed=np.zeros(len(loss), bool)
    )


@pytest.mark.parametrize("optimizer", STRATEGIES, ids=lambda o: getattr(o, "strategy", o.kind))
def test_it_converges_on_a_quadratic(optimizer, tmp_path):
    config = SearchConfig(population=16, generations=40, patience=0, optimizer=optimizer)
    found = search(evaluate, parametrization(), config, seed=1, checkpoints=tmp_path)
    mean = [float(g["loss"].mean()) for g in found.history]
    assert mean[-1] < 0.2 * mean[0]
    assert found.loss == min(g["loss"].min() for g in found.history)
    assert found.rollouts == 16 * 40


@pytest.mark.parametrize(
    ("falls_to", "least_gain", "generations"),
    [(1.1, 0.0, 1 + 3), (0.99, 0.0, 9), (0.99, 0.05, 1 + 3), (0.9, 0.05, 9)],
)
def test_a_search_stops_when_it_gains_too_little(falls_to, least_gain, generations, tmp_path):
    """The loss becomes so many times as large with each generation."""

    def evaluate(waypoints: np.ndarray) -> Evaluation:
        calls.append(len(waypoints))
        loss = falls_to ** len(calls) * np.linspace(1, 2, len(waypoints), dtype=np.float32)
        return Evaluation(loss=loss, terms={}, failed=np.zeros(len(waypoints), bool))

    calls: list[int] = []
    config = SearchConfig(population=8, generations=9, patience=3, least_gain=least_gain)
    found = search(evaluate, parametrization(), config, seed=0, checkpoints=tmp_path)
    assert len(calls) == len(found.history) == generations
    assert found.loss == pytest.approx(min(falls_to, falls_to**generations))


@pytest.mark.parametrize(
    ("grows_to", "least_gain", "generations"),
    [(1.0, 0.05, 1 + 3), (1.01, 0.05, 1 + 3), (1.1, 0.05, 9), (0.99, 0.0, 1 + 3), (1.01, 0.0, 9)],
)
def test_a_loss_below_zero_gains_by_growing(grows_to, least_gain, generations, tmp_path):
    def evaluate(waypoints: np.ndarray) -> Evaluation:
        calls.append(len(waypoints))
        loss = -(grows_to ** len(calls)) * np.linspace(1, 0.5, len(waypoints), dtype=np.float32)
        return Evaluation(loss=loss, terms={}, failed=np.zeros(len(waypoints), bool))

    calls: list[int] = []
    config = SearchConfig(population=8, generations=9, patience=3, least_gain=least_gain)
    search(evaluate, parametrization(), config, seed=0, checkpoints=tmp_path)
    assert len(calls) == generations


def two_basins(waypoints: np.ndarray) -> Evaluation:
    """A shallow basin where the search starts, and a deep one four to five first steps beside it."""
    x = (waypoints - parametrization().start)[..., 0].mean((1, 2)) / 0.006
    shallow, deep = 1 + 0.01 * np.abs(x), 0.5 * np.abs(x - 4.5)
    loss = np.minimum(shallow, deep).astype(np.float32)
    return Evaluation(loss=loss, terms={"off": loss}, failed=np.zeros(len(loss), bool))


@pytest.mark.parametrize("optimizer", [Evosax(), Pycma(), CEM()], ids=lambda o: o.kind)
def test_a_search_that_stalls_short_of_what_was_asked_for_begins_again_wider(optimizer, tmp_path):
    def found(**changes):
        config = SearchConfig(
            population=16, generations=24, patience=3, optimizer=optimizer, **changes
        )
        return search(
            two_basins, parametrization(), config, seed=0, checkpoints=tmp_path / str(changes),
            reached=lambda terms: terms["off"] < 0.5,
        )  # fmt: skip

    assert found(restarts=0).loss == pytest.approx(1, abs=0.05)
    again = found(restarts=3)
    assert again.loss < 0.5
    # Up to the stall both are the same search.
    for a, b in zip(found(restarts=0).history, again.history, strict=False):
        assert np.array_equal(a["loss"], b["loss"])


def test_a_search_that_stalls_where_it_should_be_is_done(tmp_path):
    config = SearchConfig(population=16, generations=24, patience=3)
    found = search(
        two_basins, parametrization(), config, seed=0, checkpoints=tmp_path,
        reached=lambda terms: terms["off"] < 1.5,
    )  # fmt: skip
    assert found.loss >= 1 and len(found.history) < 8


def test_a_search_that_has_begun_again_resumes_with_the_same_bits(tmp_path):
    config = SearchConfig(population=16, generations=14, patience=3, optimizer=Evosax())

    def found() -> list[dict[str, np.ndarray]]:
        return search(
            two_basins, parametrization(), config, seed=0, checkpoints=tmp_path,
            reached=lambda terms: terms["off"] < 0.1,
        ).history  # fmt: skip

    whole = found()
    for lost in (5, 4, len(whole) - 2):
        for path in sorted(tmp_path.glob("generation_*.npz"))[lost:]:
            path.unlink()
        for a, b in zip(whole, found(), strict=True):
            np.testing.assert_array_equal(a["waypoints"], b["waypoints"])


ASK_AND_TELL = """
import hashlib
from lucibot.optimize.config import Evosax, Pycma
for kind in (Evosax, Pycma):
    optimizer = kind().create(66, 16, 0)
    for _ in range(3):
        samples = optimizer.ask()
        optimizer.tell(samples, abs(samples).sum(1))
    print(hashlib.sha256(samples.tobytes()).hexdigest())
"""


def test_the_number_of_threads_changes_no_bit():
    def samples(threads: str) -> str:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        return subprocess.run(
            [sys.executable, "-c", ASK_AND_TELL], env=environment, check=True, text=True,
            capture_output=True,
        ).stdout  # fmt: skip

    # Covariances of this size are decomposed by several threads, where there are any.
    one = samples("1")
    assert len(one.split()) == 2 and samples("2") == one


@pytest.mark.parametrize("optimizer", [Evosax(), Pycma(), CEM()], ids=lambda o: o.kind)
def test_resuming_gives_the_same_bits(optimizer, tmp_path):
    config = SearchConfig(population=8, generations=5, patience=0, optimizer=optimizer)
    whole = search(evaluate, parametrization(), config, seed=3, checkpoints=tmp_path)
    (tmp_path / "generation_004.npz").unlink()
    (tmp_path / "generation_003.npz").write_bytes(b"half a file")
    again = search(evaluate, parametrization(), config, seed=3, checkpoints=tmp_path)
    for a, b in zip(whole.history, again.history, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_a_checkpoint_that_is_damaged_in_any_place_is_made_again(tmp_path):
    def losses() -> list[np.ndarray]:
        found = search(evaluate, parametrization(), config, seed=3, checkpoints=tmp_path)
        return [g["loss"] for g in found.history]

    config = SearchConfig(population=8, generations=3, patience=0, optimizer=CEM())
    whole, path = losses(), tmp_path / "generation_001.npz"
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    places = [*range(0, len(sound), 37), *range(len(sound) - 100, len(sound))]
    damaged = [
        sound[:i] + bytes([sound[i] ^ rng.integers(1, 256)]) + sound[i + 1 :] for i in places
    ]
    damaged += [sound[:n] for n in (0, 1, 31, 32, 33, len(sound) // 2, len(sound) - 1)]
    damaged += [sound + b"more", bytes(len(sound)), sound[:100] + bytes(64) + sound[164:]]
    for data in damaged:
        path.write_bytes(data)
        assert _load_checkpoint(path) is None
    path.write_bytes(damaged[len(damaged) // 3])
    for a, b in zip(whole, losses(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert path.read_bytes() == sound


def test_what_is_only_evaluated_is_one_rollout_of_the_estimate():
    start = parametrization().start
    found = evaluate_once(evaluate, start)
    assert found.rollouts == 1 and found.loss == evaluate(start[None]).loss[0]
    np.testing.assert_array_equal(found.waypoints, start)

    def diverged(waypoints):
        return Evaluation(loss=np.ones(1), terms={}, failed=np.ones(1, bool))

    with pytest.raises(AllDiverged, match="diverged"):
        evaluate_once(diverged, start)


def test_where_no_actuator_is_held_the_estimate_is_rolled_out_and_why_is_noted(
    tmp_path, monkeypatch
):
    task, notes = load_task("cut_dough"), []
    monkeypatch.setattr(stage, "_given", lambda ctx: SimpleNamespace(supervision=SimpleNamespace(
        waypoints=parametrization().start, held=np.zeros((K, A), bool), keyframes=np.arange(K),
        actuators=("knife",), camera=task.camera,
    )))  # fmt: skip
    reasons = {"held knife": "No hand stays on knife while it moves."}
    (tmp_path / "answers.json").write_text(json.dumps({"reasons": reasons}))
    evaluator = SimpleNamespace(
        supervise=lambda *a: None, evaluate=evaluate, sharding=SimpleNamespace(n_envs=8)
    )
    ctx = SimpleNamespace(
        task=task, config=RunConfig().optimize, inputs={"perceive": tmp_path}, folder=tmp_path,
        seed=0, progress=lambda *a: None, note=notes.append, ahead=evaluator,
    )  # fmt: skip
    stage.run(ctx)
    assert any(reasons["held knife"] in n for n in notes)
    assert json.loads((tmp_path / "search.json").read_text())["rollouts"] == 1
    with np.load(tmp_path / "trajectory.npz") as found:
        np.testing.assert_array_equal(found["waypoints"], parametrization().start)


def test_the_start_is_a_candidate(tmp_path):
    """A loss that only the start satisfies is found in the first generation."""

    def at_start(waypoints):
        away = np.abs(waypoints - parametrization().start).max((1, 2, 3)) > 1e-6
        return Evaluation(loss=away.astype(np.float32), terms={}, failed=np.zeros(len(away), bool))

    config = SearchConfig(population=8, generations=1)
    assert search(at_start, parametrization(), config, seed=0, checkpoints=tmp_path).loss == 0


@pytest.mark.parametrize("optimizer", [Evosax(), Pycma(), CEM()], ids=lambda o: o.kind)
def test_ties_do_not_break_the_optimizer(optimizer):
    optimizer = optimizer.create(6, 8, seed=0)
    for _ in range(4):
        samples = optimizer.ask()
        optimizer.tell(samples, np.zeros(8, np.float32))
    assert np.isfinite(optimizer.ask()).all()
    assert sorted(strict_ranks(np.array([1, 1, np.nan, 0.0]))) == [0, 1, 2, 3]
    np.testing.assert_array_equal(strict_ranks(np.array([1, 1, np.nan, 0.0])), [1, 2, 3, 0])


def test_losses_are_ranked_in_jax_as_elsewhere():
    """Ties, infinite losses and NaN; samples as they were asked for, or others."""
    losses = np.array([1, np.inf, 1, np.nan, 0, np.inf, -2, 1], np.float32)
    states = []
    for said, changed in ((losses, False), (strict_ranks(losses), False), (losses, True)):
        optimizer = Evosax().create(6, 8, seed=0)
        samples = optimizer.ask()
        optimizer.tell(samples.copy() if changed else samples, said)
        states.append(optimizer.state())
    for state in states[1:]:
        for name, x in state.items():
            np.testing.assert_array_equal(x, states[0][name])
    assert not (optimizer.ask() == samples).any()


def test_all_rollouts_diverged_is_one_clear_error(tmp_path):
    def diverge(waypoints):
        P = len(waypoints)
        return Evaluation(loss=np.full(P, 9, np.float32), terms={}, failed=np.ones(P, bool))

    with pytest.raises(AllDiverged, match="diverged"):
        search(diverge, parametrization(), SearchConfig(population=8), seed=0, checkpoints=tmp_path)


@pytest.mark.parametrize("optimizer", [Evosax(), Pycma(), CEM()], ids=lambda o: o.kind)
def test_generations_that_diverge_later_take_nothing_away(optimizer, tmp_path):
    def sometimes(waypoints):
        generations.append(len(waypoints))
        found = evaluate(waypoints)
        if len(generations) in (3, 5, 6):
            P = len(waypoints)
            return Evaluation(
                loss=np.full(P, np.inf, np.float32), terms={"distance": np.full(P, np.nan)},
                failed=np.ones(P, bool),
            )  # fmt: skip
        return found

    generations: list[int] = []
    config = SearchConfig(population=8, generations=8, patience=0, optimizer=optimizer)
    found = search(sometimes, parametrization(), config, seed=0, checkpoints=tmp_path)
    assert len(generations) == len(found.history) == 8
    sound = [g["loss"].min() for g in found.history if not g["failed"].all()]
    assert found.loss == min(sound) and np.isfinite(sound).all() and len(sound) == 5


def test_a_search_that_comes_to_where_all_diverge_stalls_and_begins_again_about_its_best(tmp_path):
    def once(waypoints):
        generations.append(waypoints)
        found = evaluate(waypoints)
        failed = np.full(len(waypoints), 2 <= len(generations) <= 4)
        return Evaluation(loss=found.loss, terms=found.terms, failed=failed)

    generations: list[np.ndarray] = []
    config = SearchConfig(population=16, generations=9, patience=3, restarts=1, optimizer=CEM())
    found = search(
        once, parametrization(), config, seed=0, checkpoints=tmp_path, reached=lambda terms: False
    )
    assert len(found.history) == 9
    assert found.loss < found.history[0]["loss"].min()


@pytest.mark.parametrize("said", [-1e9, 0.0, np.nan, np.inf])
def test_what_failed_is_behind_all_that_did_not_whatever_is_said_of_it(said, tmp_path):
    told = []

    class Listener(CEM):
        def create(self, dimension, population, seed):
            made = super().create(dimension, population, seed)
            tell = made.tell
            made.tell = lambda samples, losses: (told.append(losses), tell(samples, losses))
            return made

    def evaluate(waypoints):
        P = len(waypoints)
        failed = np.arange(P) % 3 == 0
        loss = np.where(failed, said, 1e6 + np.arange(P)).astype(np.float32)
        return Evaluation(loss=loss, terms={"part_count": loss}, failed=failed)

    config = SearchConfig(population=8, generations=2, patience=0, optimizer=Listener())
    found = search(evaluate, parametrization(), config, seed=0, checkpoints=tmp_path)
    assert found.loss == 1e6 + 1
    for losses in told:
        assert (strict_ranks(losses)[np.arange(8) % 3 == 0] >= 5).all()


@pytest.mark.parametrize("correlation", [0.0, 0.64])
def test_displacements_have_the_stated_spread_and_correlation(correlation):
    p = parametrization(correlation)
    z = np.random.default_rng(0).normal(size=(4000, p.dimension))
    moved = p.waypoints(z)[:, :, 0, :3] - p.start[:, 0, :3]
    assert moved.std() == pytest.approx(p.sigma_position_m, rel=0.03)
    between = np.corrcoef(moved[:, 0, 0], moved[:, 3, 0])[0, 1]
    assert between == pytest.approx(correlation, abs=0.05)


def test_fixed_waypoints_stay():
    free = np.array([[False], [True], [True], [False]])
    p = Parametrization(
        start=parametrization().start, free=free, sigma_position_m=0.01, sigma_rotation_rad=0.1,
        correlation=0.5,
    )  # fmt: skip
    moved = p.waypoints(np.random.default_rng(0).normal(size=(5, p.dimension)))
    assert p.dimension == 12
    np.testing.assert_allclose(moved[:, [0, 3]], np.broadcast_to(p.start[[0, 3]], (5, 2, 1, 6)))
    assert (np.abs(moved[:, 1:3] - p.start[1:3]).max((1, 2, 3)) > 0).all()


def test_a_knife_below_the_board_is_lifted_onto_it():
    task = load_task("cut_dough")
    clear = Clearance.of(task)
    rest = pose_np(task.actuators[0].T_world_object)
    assert abs(clear.distance(rest, 0)) < 0.002  # It lies on the table.
    over, sunk = rest.copy(), rest.copy()
    over[:3] = sunk[:3] = task.object("dough").position_m
    over[2] += 0.08
    sunk[2] -= 0.02
    lifted = clear.repaired(np.stack([over, sunk])[:, None], np.ones((2, 1), bool))[:, 0]
    np.testing.assert_array_equal(lifted[0], over)
    assert lifted[1, 2] > sunk[2] + 0.01
    assert 0.0004 < clear.distance(lifted[1], 0) < 0.001  # It reaches the board.
    # Its handle, which lies lower, comes off the board's edge by 6 mm: straight up is farther.
    assert np.linalg.norm(lifted[1, :3] - sunk[:3]) < 0.026
    np.testing.assert_array_equal(lifted[1, 3:], sunk[3:])


def test_steps_along_the_line_of_sight_are_larger():
    start = parametrization().start
    camera = np.array([0.0, -1.0, 1.0])
    p = Parametrization(
        start=start, free=np.ones((K, A), bool), sigma_position_m=0.004, sigma_rotation_rad=0.1,
        sigma_depth_m=0.016, camera_position_m=camera, correlation=0.5,
    )  # fmt: skip
    z = np.random.default_rng(0).normal(size=(4000, p.dimension))
    moved = p.waypoints(z)[:, 1, 0, :3] - start[1, 0, :3]
    ray = -camera / np.linalg.norm(camera)
    assert (moved @ ray).std() == pytest.approx(0.016, rel=0.05)
    assert (moved @ [1.0, 0, 0]).std() == pytest.approx(0.004, rel=0.05)
