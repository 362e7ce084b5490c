"""Objectives, loss terms and optimizers of one's own: found by name, in every process, on resume."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lucibot.config import OptimizeConfig
from lucibot.core.errors import UserError
from lucibot.core.plugins import path_of
from lucibot.objective.config import VideoObjective
from lucibot.objective.objective import Parts, Picture, Seen
from lucibot.objective.supervision import Affordance, Supervision
from lucibot.objective.terms import LossTerm, find_term
from lucibot.optimize.config import OwnOptimizer, SearchConfig
from lucibot.settings import configured
from lucibot.store.configs import from_dict, to_dict
from lucibot.task import Task, load_task

ROWS = '''
import torch
from lucibot.objective.terms import LossTerm

class Rows(LossTerm):
    """The mean row of the picture on which the target is seen, as a share of its height."""

    def __init__(self, task, supervision, device):
        super().__init__(task, supervision, device)
        self.label = task.label(supervision.targets[0])

    def __call__(self, seen):
        assert seen.state is None
        on = (seen.goal.label == self.label).float()
        rows = torch.linspace(0, 1, on.shape[1])[None, :, None]
        return (on * rows).sum((1, 2)) / on.sum((1, 2)).clamp(min=1)

class Height(Rows):
    sees_state = True

    def __call__(self, seen):
        name = self.supervision.targets[0]
        K, P = seen.overlap.shape[:2]
        return -seen.state.particles[name][..., 2].mean(0).view(K, P)[-1]

class Halving:
    """An optimizer that samples nearer to the best each time."""

    def __init__(self, dimension, population, seed):
        import numpy as np
        self.shape, self.best, self.g = (population, dimension), np.zeros(dimension, np.float32), 0

    def ask(self):
        import numpy as np
        rng = np.random.default_rng(self.g)
        return (self.best + rng.normal(size=self.shape) / 2**self.g).astype(np.float32)

    def tell(self, samples, losses):
        self.best, self.g = samples[losses.argmin()], self.g + 1

    def state(self):
        import numpy as np
        return {"best": self.best, "g": np.array(self.g)}

    def restore(self, state):
        self.best, self.g = state["best"], int(state["g"])

no_term = 3
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with an entry point of each kind."""
    (tmp_path / "rows_of_mine.py").write_text(ROWS)
    info = tmp_path / "rows_of_mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rows-of-mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[lucibot.loss_terms]\nrows = rows_of_mine:Rows\nno_term = rows_of_mine:no_term\n"
        "[lucibot.optimizers]\nhalving = rows_of_mine:Halving\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("rows_of_mine", None)


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("cut_dough")


def supervision(task: Task, size=(24, 32)) -> Supervision:
    image, cloud = np.zeros(size, bool), np.full((16, 3), np.nan, np.float32)
    camera = task.camera.resized(size[1], size[0])
    return Supervision(
        camera=camera, actuators=("knife",), targets=("dough",), contact_pairs=(),
        keyframes=np.arange(2), waypoints=np.zeros((2, 1, 6), np.float32),
        waypoint_confidence=np.ones((2, 1), np.float32), held=np.ones((2, 1), bool),
        actuator_masks=np.stack([image] * 2)[:, None], target_masks=np.stack([image] * 2),
        valid=np.ones((2, *size), bool), actuator_clouds=cloud[None], target_cloud=cloud,
        contact=np.zeros((2, 0), bool), around_pairs=(), around=np.zeros(0, bool),
        affordance=Affordance.none(2, 1), part_masks=image[None], part_clouds=cloud[None],
        part_valid=np.ones(size, bool),
    )  # fmt: skip


def seen(P=3, size=(24, 32)) -> Seen:
    label = torch.zeros(P, *size, dtype=torch.int32)
    for p in range(P):
        label[p, 4 * p : 4 * p + 4] = 2
    depth, count = torch.full(label.shape, 0.5), torch.ones(P, dtype=torch.int32)
    picture = Picture(
        label=label, depth=depth, around=torch.zeros(P, 0, dtype=torch.bool),
        parts=Parts(number=(label == 2).int(), depth=depth, count=count),
    )  # fmt: skip

    state = SimpleNamespace(
        position={"knife": torch.zeros(2 * P, 3)},
        quaternion={"knife": torch.tensor([[1.0, 0, 0, 0]]).repeat(2 * P, 1)},
        particles={"dough": torch.arange(2.0 * P).view(1, -1, 1).repeat(5, 1, 3)},
    )
    return Seen(
        overlap=torch.zeros(2, P, 1), contact=torch.zeros(2, P, 0, dtype=torch.bool), goal=picture,
        settled=picture, state=state,
    )  # fmt: skip


def test_a_term_of_ones_own_is_scored_weighed_and_logged(task, package):
    config = VideoObjective(own_terms="rows=2.5, rows_of_mine:Height=1")
    objective = config.create(task, supervision(task), {}, "cpu")
    terms = objective.score(seen())
    assert list(terms["rows"]) == sorted(terms["rows"]) and terms["rows"][0] < terms["rows"][2]
    # The state of the last keyframe, of which a term sees only what it has asked for.
    assert terms["rows_of_mine:Height"].tolist() == [-3, -4, -5]
    assert set(terms) == set(objective.weights)
    assert objective.weights["rows"] == 2.5
    plain = VideoObjective().create(task, supervision(task), {}, "cpu").score(seen())
    for name, value in plain.items():
        torch.testing.assert_close(value, terms[name], rtol=0, atol=0, equal_nan=True)


def test_it_is_named_in_the_config_and_found_again(package):
    config = configured(OptimizeConfig(), {
        "objective.own-terms": "rows=0.5", "search.optimizer": "own",
        "search.optimizer.name": "halving", "objective.weights.contact": "3",
    })  # fmt: skip
    assert config.objective.weights.contact == 3
    again = from_dict(OptimizeConfig, to_dict(config))
    assert again == config
    assert issubclass(find_term(*again.objective.own_weights()), LossTerm)
    optimizer = again.search.optimizer.create(4, 6, 0)
    assert optimizer.ask().shape == (6, 4)


def test_what_is_not_there_is_said(task, package):
    for told, words in (
        ("row=1", "unknown entry point .* Did you mean 'rows'"),
        ("no_term=1", "not derived from LossTerm"),
        ("nowhere:Term=1", "cannot be imported"),
        ("rows_of_mine:Nothing=1", "cannot be imported"),
    ):
        with pytest.raises(UserError, match=words):
            VideoObjective(own_terms=told).create(task, supervision(task), {}, "cpu")
    for told in ("rows", "=1", "rows=many", "rows=nan", "target_iou=1", "file=1", "rows=1,rows=2"):
        with pytest.raises(UserError, match="own loss term"):
            VideoObjective(own_terms=told)
    with pytest.raises(UserError, match="unknown entry point"):
        OwnOptimizer(name="halvin").create(4, 6, 0)
    with pytest.raises(UserError, match="no method 'ask'"):
        OwnOptimizer(name="builtins:slice").create(4, 6, 0)


def test_from_python_a_class_is_named_by_where_it_is(package):
    import rows_of_mine

    assert path_of(rows_of_mine.Rows) == "rows_of_mine:Rows"
    assert find_term(path_of(rows_of_mine.Rows)) is rows_of_mine.Rows

    class Local(LossTerm):
        pass

    with pytest.raises(UserError, match="module of its own"):
        path_of(Local)


def test_a_search_with_an_optimizer_of_ones_own_resumes_to_the_same_bits(package, tmp_path):
    from lucibot.objective.evaluation import Evaluation
    from lucibot.optimize.parametrization import Parametrization
    from lucibot.optimize.search import search

    start = np.zeros((2, 1, 6), np.float32)
    parametrization = Parametrization(
        start=start, free=np.ones((2, 1), bool), sigma_position_m=0.01, sigma_rotation_rad=0.05,
        correlation=0.0,
    )  # fmt: skip

    def evaluate(waypoints):
        loss = np.square(waypoints - 0.03).sum((1, 2, 3)).astype(np.float32)
        return Evaluation(loss=loss, terms={"far": loss}, failed=np.zeros(len(loss), bool))

    config = SearchConfig(
        population=6,
        generations=4,
        patience=0,
        include_start=False,
        optimizer=OwnOptimizer(name="halving"),
    )
    whole = search(evaluate, parametrization, config, seed=0, checkpoints=tmp_path / "whole")
    half = replace(config, generations=2)
    search(evaluate, parametrization, half, seed=0, checkpoints=tmp_path / "cut")
    again = search(evaluate, parametrization, config, seed=0, checkpoints=tmp_path / "cut")
    np.testing.assert_array_equal(again.waypoints, whole.waypoints)
    assert again.loss == whole.loss < whole.history[0]["loss"].min()
